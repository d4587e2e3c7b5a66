"""The API's super clients: one branch per client, as many as one likes per image, and what is told of each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_events import BranchChanged
from bootlink_runtime import follow
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.registry import Registry, problem, raw_disk, registry_on, until

MACS = ("52:54:00:12:34:56", "52:54:00:12:34:57")


@pytest.fixture
async def room(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry with two clients, and an image with two versions, of which the first is in production."""
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        await running.add_image("win11", raw_disk(tmp_path / "win11-1.img"))
        second = {"path": str(raw_disk(tmp_path / "win11-2.img"))}
        assert (await running.http.post("/v1/images/win11/versions", json=second)).status_code == 201
        for mac, name in zip(MACS, ("pc-07", "pc-08"), strict=True):
            await running.add_client(mac, name)
        await running.link("default", "", "win11", version=2)
        yield running


async def make_super(room: Registry, client: str, status: int = 201, **more: Any) -> Any:
    answer = await room.http.put(f"/v1/clients/{client}/branch", json={"image": "win11", **more})
    assert answer.status_code == status, answer.text
    return answer.json()


async def planned(room: Registry, client: str) -> tuple[int, str]:
    """The version that a client's plan names, and the policy."""
    (disk,) = (await room.get(f"/v1/clients/{client}"))["plan"]["disks"]
    return disk["version"], disk["policy"]


async def test_a_super_client_writes_upon_productions_version_unless_told(room: Registry) -> None:
    branch = await make_super(room, "pc-07")
    assert (branch["client"], branch["image"], branch["base"]) == ("pc-07", "win11", 1)
    assert await planned(room, "pc-07") == (1, "super")
    shown = await room.get("/v1/clients/pc-07")
    assert (shown["branch"]["base"], shown["link"]["version"]) == (1, 2)
    assert await planned(room, "pc-08") == (2, "discard")
    assert (await make_super(room, MACS[1], version=2))["base"] == 2
    listed = await room.get("/v1/branches", image="win11")
    assert [(one["client"], one["base"]) for one in listed["items"]] == [("pc-07", 1), ("pc-08", 2)]


async def test_a_branch_begins_empty_whatever_was_written_before(room: Registry) -> None:
    contents = []
    for _ in range(2):
        await make_super(room, "pc-07")
        contents.append((await room.get("/v1/clients/pc-07"))["plan"]["disks"][0]["content"])
        assert (await room.http.delete("/v1/clients/pc-07/branch")).status_code == 204
    assert len(set(contents)) == 2


async def test_asked_for_again_a_branch_goes_on_and_another_is_refused(room: Registry) -> None:
    await make_super(room, "pc-07")
    content = (await room.get("/v1/clients/pc-07"))["plan"]["disks"][0]["content"]
    await make_super(room, "pc-07", 200, channel="production")
    assert (await room.get("/v1/clients/pc-07"))["plan"]["disks"][0]["content"] == content
    refused = problem(await room.http.put("/v1/clients/pc-07/branch", json={"image": "win11", "version": 2}), 409)
    assert refused["detail"] == "pc-07 is on a branch of win11 already, upon version 1"
    assert "bootlink client abandon pc-07" in refused["remedy"]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"image": "win12"}, 404, "there is no image 'win12'"),
        ({"image": "win11", "version": 9}, 404, "image win11 has no version 9"),
        ({"image": "win11", "channel": "test"}, 404, "image win11 has no channel test"),
        ({"image": "win11", "channel": "production", "version": 1}, 422, "a channel and a version are named"),
    ],
)
async def test_a_branch_upon_what_is_not_there_is_refused(room: Registry, body: Any, status: int, detail: str) -> None:
    assert detail in problem(await room.http.put("/v1/clients/pc-07/branch", json=body), status)["detail"]
    assert (await room.get("/v1/branches"))["items"] == []


async def test_who_is_no_super_client_has_nothing_to_commit_or_abandon(room: Registry) -> None:
    for answer in (
        await room.http.get("/v1/clients/pc-07/branch"),
        await room.http.delete("/v1/clients/pc-07/branch"),
        await room.http.post("/v1/clients/pc-07/commit", json={}),
    ):
        told = problem(answer, 404)
        assert told["detail"] == "pc-07 is no super client"
        assert told["remedy"] == "make it one: bootlink client super pc-07 --image IMAGE"


async def test_without_a_block_store_that_is_what_is_told(room: Registry) -> None:
    for answer in (
        await room.http.get("/v1/clients/pc-07/writebacks"),
        await room.http.post("/v1/clients/pc-07/undo-reboot", json={}),
        await room.http.post("/v1/clients/pc-07/commit", json={"boot_id": "01a206db-0000-7000-8000-000000000000"}),
    ):
        assert "no block store can be asked" in problem(answer, 503)["detail"]


async def test_an_image_is_not_removed_while_a_branch_lies_upon_it(room: Registry) -> None:
    await make_super(room, "pc-07")
    refused = problem(await room.http.delete("/v1/images/win11/versions/1"), 409)
    assert "super client pc-07" in refused["detail"]


async def test_all_hear_of_a_branch(room: Registry, nats: NatsServer) -> None:
    await make_super(room, "pc-07")
    await room.http.delete("/v1/clients/pc-07/branch")
    async with bus_on(nats.url, service="reader", make=False) as bus:

        async def told() -> bool:
            events = [e.decode() async for e in follow(bus, subject="bootlink.v1.branch.>", wait=False)]
            return [(e.client, e.base, e.became) for e in events if isinstance(e, BranchChanged)] == [
                *(("pc-07", 1, "opened"), ("pc-07", 1, "abandoned"))
            ]

        await until(told, "the events of a branch")
