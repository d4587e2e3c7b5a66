"""How a link starts a PC: from its disk and how, from its own disk, in a shell, or with a kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lab.nats import NatsServer
from lab.registry import Registry, problem, raw_disk, registry_on

MAC = "52:54:00:12:34:56"
LINK: dict[str, Any] = {"scope": "client", "name": "pc-07"}
KERNEL = {
    "mode": "kernel",
    "kernel": "linux/vmlinuz",
    "initrds": ["linux/initrd.img", "https://images.example/extra.cpio"],
    "arguments": "root=/dev/nfs nfsroot=10.0.0.1:/srv/{client} console=ttyS0 quiet",
}
PLAIN = {"mode": "disk", "file": "", "keep_san": False, "kernel": "", "initrds": [], "arguments": ""}


@pytest.fixture
async def room(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry with a client and an image."""
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        await running.add_image("win11", raw_disk(tmp_path / "win11.img"))
        await running.add_client(MAC, "pc-07")
        yield running


async def plan(room: Registry) -> Any:
    return (await room.get("/v1/clients/pc-07"))["plan"]


@pytest.mark.parametrize("start", [KERNEL, {"mode": "local"}, {"mode": "shell"}], ids=["kernel", "local", "shell"])
async def test_a_link_without_an_image_says_what_is_booted_instead(room: Registry, start: dict[str, Any]) -> None:
    answer = await room.http.put("/v1/links", json=LINK | {"start": start})
    assert answer.status_code == 200, answer.text
    link = answer.json()
    assert (link["image"], link["channel"], link["version"]) == (None, None, None)
    assert link["start"] == PLAIN | start
    assert await room.get("/v1/links/client/pc-07") == link
    compiled = await plan(room)
    assert compiled["start"] == PLAIN | start
    assert (compiled["disks"], compiled["refusal"]) == ([], None)
    assert (await room.get("/v1/clients/pc-07"))["link"]["start"] == PLAIN | start
    assert (await room.http.delete("/v1/links/client/pc-07")).status_code == 204


async def test_a_link_may_say_how_its_disk_is_booted(room: Registry) -> None:
    start = {"file": "EFI/Microsoft/Boot/bootmgfw.efi", "keep_san": True}
    body = LINK | {"image": "win11", "policy": "keep", "start": start}
    answer = await room.http.put("/v1/links", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["start"] == PLAIN | start
    assert (await plan(room))["start"] == PLAIN | start
    # Set again without: back to the usual way.
    assert (await room.http.put("/v1/links", json=LINK | {"image": "win11"})).json()["start"] is None
    assert (await plan(room))["start"] is None
    # What says nothing is the usual way, too.
    plain = await room.http.put("/v1/links", json=LINK | {"image": "win11", "start": {"mode": "disk"}})
    assert plain.json()["start"] is None


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "names no image"),
        ({"start": {"mode": "disk"}}, "names no image"),
        ({"image": "win11", "start": {"mode": "local"}}, "no disk to boot"),
        ({"version": 1, "start": {"mode": "local"}}, "one of an image"),
        ({"start": {"mode": "kernel"}}, "needs the kernel"),
        ({"start": {"mode": "shell", "kernel": "vmlinuz"}}, "takes no kernel"),
        ({"start": {"mode": "shell", "arguments": "quiet"}}, "takes no kernel, initrd or arguments"),
        ({"start": KERNEL | {"file": "EFI/x.efi"}}, "how a disk is booted"),
        ({"image": "win11", "start": {"kernel": "vmlinuz"}}, "this boots a disk"),
        ({"image": "win11", "start": {"keep_san": True}}, "gone at the next boot"),
        ({"image": "win11", "lun": 1, "start": {"file": "EFI/x.efi"}}, "LUN 0"),
        ({"start": {"mode": "local"}, "chap": "mutual"}, "no login"),
        ({"start": {"mode": "local"}, "own_layer": True}, "lies upon an image"),
        ({"start": KERNEL | {"kernel": "../etc/shadow"}}, "no boot file"),
        ({"start": KERNEL | {"kernel": "ftp://host/vmlinuz"}}, "no boot file"),
        ({"start": KERNEL | {"initrds": ["a b"]}}, "no boot file"),
        ({"start": KERNEL | {"arguments": "a=${net0/mac}"}}, "means something to iPXE"),
        ({"start": KERNEL | {"arguments": "a || shell"}}, "means something to iPXE"),
        ({"start": KERNEL | {"arguments": "a={password}"}}, "means something to iPXE"),
        ({"image": "win11", "start": {"file": "EFI/my boot.efi"}}, "without blanks"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_the_reason(room: Registry, body: dict[str, Any], told: str) -> None:
    assert told in problem(await room.http.put("/v1/links", json=LINK | body), 422)["detail"]


async def test_a_menu_offers_starts_beside_images(room: Registry) -> None:
    await room.http.put("/v1/links", json=LINK | {"image": "win11"})
    entries: list[dict[str, Any]] = [
        {"name": "own", "start": {"mode": "local"}},
        {"name": "rescue", "title": "Rescue", "start": KERNEL},
    ]
    answer = await room.http.put("/v1/menus/client/pc-07", json={"entries": entries})
    assert answer.status_code == 200, answer.text
    shown = answer.json()["entries"]
    assert [(entry["image"], entry["start"]["mode"]) for entry in shown] == [(None, "local"), (None, "kernel")]
    # What is shown can be sent back as it is.
    again = await room.http.put("/v1/menus/client/pc-07", json={"entries": shown})
    assert again.json()["entries"] == shown
    menu = (await plan(room))["menu"]
    assert [(entry["title"], len(entry["disks"])) for entry in menu["entries"]] == [
        ("win11", 1),
        ("Own disk", 0),
        ("Rescue", 0),
    ]
    wrong = [{"name": "own", "image": "win11", "start": {"mode": "shell"}}]
    told = problem(await room.http.put("/v1/menus/client/pc-07", json={"entries": wrong}), 422)
    assert "no disk to boot" in told["detail"]
