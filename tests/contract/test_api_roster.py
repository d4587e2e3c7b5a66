"""Bulk import and export over the API: one transaction, all bad rows named, and what is exported can be imported."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lab.nats import NatsServer
from lab.registry import Registry, problem, raw_disk, registry_on

A, B, C = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3))


@pytest.fixture
async def registry(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        await running.add_image("win11", raw_disk(tmp_path / "win11.img"))
        yield running


async def take_in(registry: Registry, text: str, form: str = "csv", **more: Any) -> Any:
    answer = await registry.http.post("/v1/roster", json={"format": form, "text": text, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(registry: Registry, text: str) -> Any:
    return problem(await registry.http.post("/v1/roster", json={"format": "csv", "text": text}), 422)


async def state(registry: Registry) -> tuple[Any, Any]:
    return (await registry.get("/v1/clients"))["items"], (await registry.get("/v1/links"))["items"]


async def test_a_file_adds_and_changes_clients_and_their_links_and_exports_as_it_was_imported(
    registry: Registry,
) -> None:
    await registry.add_client(A, "pc-1", address="10.0.0.1")
    await registry.add_client(B, "pc-2", address="10.0.0.2")
    text = "\n".join(
        [
            "mac,name,group,address,disabled,note,image,channel,version,policy,disks",
            f"{A},pc-2,room-1,10.0.0.2,no,by the door,win11,,,keep,1=win11:1/keep 3=none",
            f"{B},pc-1,room-1,10.0.0.1,yes,,,,,,2=win11",
            f"{C},,,,,new,win11,,1,,",
        ]
    )
    looked = await take_in(registry, text, dry_run=True)
    assert looked == {"added": 1, "changed": 2, "unchanged": 0, "dry_run": True}
    assert [client["group"] for client in (await state(registry))[0]] == [None, None]
    assert (await take_in(registry, text)) == {"added": 1, "changed": 2, "unchanged": 0, "dry_run": False}
    clients, links = await state(registry)
    told = [(c["mac"], c["name"], c["group"], c["address"], c["disabled"], c["note"]) for c in clients]
    assert told == [
        (C, "pc-001", None, None, False, "new"),
        (B, "pc-1", "room-1", "10.0.0.1", True, ""),
        (A, "pc-2", "room-1", "10.0.0.2", False, "by the door"),
    ]
    assert [(k["name"], k["lun"], k["image"], k["channel"], k["version"], k["policy"]) for k in links] == [
        ("pc-2", 0, "win11", "production", None, "keep"),
        ("pc-2", 1, "win11", None, 1, "keep"),
        ("pc-2", 3, None, None, None, "discard"),
        ("pc-1", 2, "win11", "production", None, "discard"),
        ("pc-001", 0, "win11", None, 1, "discard"),
    ]
    for form, media in (("csv", "text/csv"), ("yaml", "application/yaml")):
        exported = await registry.http.get("/v1/roster", params={"format": form})
        assert exported.headers["content-type"].startswith(media)
        again = await take_in(registry, exported.text, form)
        assert again == {"added": 0, "changed": 0, "unchanged": 3, "dry_run": False}
    assert await state(registry) == (clients, links)
    assert (await take_in(registry, f"mac,image,disks\n{A},,3=none\n{B},,\n"))["changed"] == 2
    assert [(link["name"], link["lun"]) for link in (await state(registry))[1]] == [("pc-2", 3), ("pc-001", 0)]


async def test_what_pcs_start_with_is_exported_and_imported(registry: Registry) -> None:
    kernel = '"{""mode"": ""kernel"", ""kernel"": ""vmlinuz"", ""initrds"": [""a"", ""b""]}"'
    keeping = '"{""keep_san"": true}"'
    text = f"mac,image,policy,boot\n{A},,,local\n{B},,,{kernel}\n{C},win11,keep,{keeping}\n"
    assert (await take_in(registry, text))["added"] == 3
    links = (await state(registry))[1]
    assert [(k["image"], k["start"]["mode"], k["start"]["initrds"], k["start"]["keep_san"]) for k in links] == [
        (None, "local", [], False),
        (None, "kernel", ["a", "b"], False),
        ("win11", "disk", [], True),
    ]
    for form in ("csv", "yaml"):
        exported = await registry.http.get("/v1/roster", params={"format": form})
        assert (await take_in(registry, exported.text, form))["unchanged"] == 3
    assert (await state(registry))[1] == links
    assert "boot" in (await refused(registry, f"mac,image,boot\n{A},,nowhere\n"))["detail"]


async def test_of_a_file_with_bad_rows_all_are_named_and_none_is_applied(registry: Registry) -> None:
    await registry.add_client(A, "pc-1")
    before = await state(registry)
    for text, lines in (
        (f"mac,name\n{B},pc-2\nnonsense,pc-3\n{C},No Name\n", [3, 4]),  # what a row says by itself
        (f"mac,name,image\n{B},pc-2,\n{C},pc-1,win7\n{C},pc-3,\n", [3, 3, 4]),  # and beside all others
    ):
        answer = await refused(registry, text)
        assert [line["line"] for line in answer["lines"]] == lines
        assert all(line["problem"] for line in answer["lines"])
        assert "nothing was changed" in answer["remedy"]
    assert "no CSV" in (await refused(registry, 'mac\n"'))["detail"]
    assert await state(registry) == before


async def test_ten_thousand_clients_come_in_at_once(registry: Registry) -> None:
    """More than any other body may bring, and each with an event and a plan."""
    macs = [f"52:54:01:00:{n >> 8:02x}:{n & 255:02x}" for n in range(10_000)]
    text = "mac,group,note\n" + "".join(f"{mac},room-{n % 40},table {n}\n" for n, mac in enumerate(macs))
    assert len(text) > 256 * 1024
    assert (await take_in(registry, text))["added"] == 10_000
    assert (await registry.get("/v1/clients/pc-10000"))["mac"] == macs[-1]
    assert (await registry.get("/v1/info"))["counts"]["clients"] == 10_000
    told = problem(await registry.http.post("/v1/roster", json={"format": "csv", "text": "x" * (9 << 20)}), 413)
    assert "8388608 bytes" in told["detail"]
