"""A client's own layer over a shared version: kept in it, sealed, begun anew above it at each boot, and rebased."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_disks import create_vhd_dynamic
from bootlink_registry import exports, own_layers
from lab.disks import MIB, apply_changes, digest, sparse_disk
from lab.nats import NatsServer
from lab.registry import problem
from lab.room import Pc, Room, room_on
from lab.vhdi import read_chain

SIZE = 4 * MIB
PAGE = 4096


@pytest.fixture
async def room(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Room]:
    """Image win11 in two versions; the files' bytes are the same in the end."""
    files = []
    for number in (1, 2):
        raw = sparse_disk(tmp_path / f"{number}.img", SIZE, seed=number)
        create_vhd_dynamic(tmp_path / f"{number}.vhd", raw)
        files.append(tmp_path / f"{number}.vhd")
    before = [digest(file) for file in files]
    async with room_on(nats.url, database, tmp_path) as running:
        await running.registry.add_image("win11", files[0])
        added = await running.registry.http.post("/v1/images/win11/versions", json={"path": str(files[1])})
        assert added.status_code == 201
        yield running
    assert [digest(file) for file in files] == before


async def link(room: Room, pc: Pc, **more: Any) -> Any:
    """Set the link with an own layer, and wait for the job where there is one."""
    body = {"scope": "client", "name": pc.name, "image": "win11", "own_layer": True, **more}
    answer = await room.registry.http.put("/v1/links", json=body)
    assert answer.is_success, answer.text
    if answer.status_code == 202:
        job = await room.over(answer.json())
        assert job["state"] == "done", job["problem"]
    return await room.registry.get(f"/v1/links/client/{pc.name}")


async def write(pc: Pc, rng: random.Random, model: bytearray) -> None:
    """Write some pages, and note them."""
    for page in sorted(rng.sample(range(1, SIZE // PAGE), 8)):
        data = rng.randbytes(PAGE)
        await pc.disk.write(page * PAGE, data, fua=True)
        apply_changes(model, [(page * PAGE, data)])


async def whole(pc: Pc) -> bytes:
    return b"".join([await pc.disk.read(at, MIB // 2) for at in range(0, SIZE, MIB // 2)])


async def test_what_is_kept_in_it_is_sealed_and_lies_below_every_boot_from_then_on(room: Room, tmp_path: Path) -> None:
    rng = random.Random(1)
    golden = (tmp_path / "1.img").read_bytes()
    pc, other = await room.pc(1), await room.pc(2)
    await room.registry.link("default", "", "win11")
    assert (await link(room, pc))["policy"] == "keep"
    model = bytearray(golden)
    for _ in range(2):  # it survives reboots
        await pc.boot()
        await write(pc, rng, model)
    assert await whole(pc) == model
    refused = await room.registry.http.put(
        "/v1/links",
        json={"scope": "client", "name": pc.name, "image": "win11", "own_layer": True, "policy": "discard"},
    )
    assert "is running" in (await room.over(refused.json()))["problem"]["detail"]
    assert (await room.registry.get(f"/v1/links/client/{pc.name}"))["policy"] == "keep"
    await pc.off()

    assert (await link(room, pc, policy="discard"))["policy"] == "discard"
    plan = await pc.planned()
    layers = [Path(layer.path) for layer in plan.disks[0].layers]
    assert (len(layers), layers[1]) == (2, tmp_path / "1.vhd")
    assert layers[0].stat().st_mode & 0o777 == 0o444
    assert read_chain(*layers) == model
    await pc.boot()
    assert await whole(pc) == model
    await write(pc, rng, bytearray(model))
    await pc.boot()  # what was written above it is gone, and it is not
    assert await whole(pc) == model
    await pc.off()

    await link(room, pc, policy="keep")  # it goes on above what was sealed
    await pc.boot()
    await write(pc, rng, model)
    await pc.off()
    await link(room, pc, policy="discard")
    layers = [Path(layer.path) for layer in (await pc.planned()).disks[0].layers]
    assert len(layers) == 3
    assert read_chain(*layers) == model
    own = await room.registry.get(f"/v1/clients/{pc.name}/own-layer")
    assert (own["version"], own["unsealed"], own["sealed"] > 0) == (1, 0, True)

    await other.boot()  # nobody else has any of it
    assert await whole(other) == golden
    await other.off()


async def test_a_rebase_says_what_it_would_lose_and_can_be_taken_back(room: Room, tmp_path: Path) -> None:
    rng = random.Random(2)
    pc = await room.pc(1)
    await link(room, pc)
    model = bytearray((tmp_path / "1.img").read_bytes())
    await pc.boot()
    await write(pc, rng, model)
    await pc.off()
    await link(room, pc, policy="discard")
    await link(room, pc, policy="keep")
    await pc.boot()
    await write(pc, rng, model)
    await pc.off()

    path = f"/v1/clients/{pc.name}/own-layer/rebase"
    told = problem(await room.registry.http.post(path, json={"version": 2}), 409)
    assert "would lose what it has of its own over version 1 of image win11" in told["detail"]
    assert "MiB sealed on" in told["detail"]
    assert "MiB written since" in told["detail"]
    assert (await pc.planned()).disks[0].version == 1

    rebased = await room.registry.http.post(path, json={"version": 2, "accept_loss": True})
    assert (rebased.status_code, rebased.json()["version"]) == (200, 2)
    second = bytearray((tmp_path / "2.img").read_bytes())
    await pc.boot()
    assert await whole(pc) == second
    await write(pc, rng, second)
    await pc.off()

    assert (await room.registry.http.post(path, json={"undo": True})).json()["version"] == 1
    await pc.boot()
    assert await whole(pc) == model
    await pc.off()
    assert (await room.registry.http.post(path, json={"undo": True})).json()["version"] == 2
    await pc.boot()
    assert await whole(pc) == second
    await pc.off()


async def test_an_own_layer_of_which_nothing_was_written_seals_at_once(room: Room) -> None:
    pc = await room.pc(1)
    await link(room, pc)
    before = await pc.planned()
    assert (await link(room, pc, policy="discard"))["policy"] == "discard"
    after = await pc.planned()
    assert (after.disks[0].layers, after.disks[0].content) == (before.disks[0].layers, before.disks[0].content)


async def test_a_client_that_is_started_while_its_layer_is_sealed_loses_nothing(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(4)
    pc = await room.pc(1)
    await link(room, pc)
    model = bytearray((tmp_path / "1.img").read_bytes())
    await pc.boot()
    await write(pc, rng, model)
    await pc.off()
    before = await pc.planned()
    real = exports.export

    async def export_and_start(*what: Any, **more: Any) -> Any:
        made = await real(*what, **more)
        await pc.boot()
        return made

    monkeypatch.setattr(own_layers, "export", export_and_start)
    body = {"scope": "client", "name": pc.name, "image": "win11", "own_layer": True, "policy": "discard"}
    job = await room.over((await room.registry.http.put("/v1/links", json=body)).json())
    assert job["problem"]["detail"] == f"{pc.name} was started while its own layer was sealed, and nothing was changed"
    assert (await pc.planned()).disks == before.disks
    await write(pc, rng, model)
    await pc.boot()
    assert await whole(pc) == model
    await pc.off()
