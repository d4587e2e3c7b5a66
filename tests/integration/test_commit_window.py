"""A PC that is started when its commit or seal is through, and its new plan is not at the block store yet.

It is given the write-back of before, which a layer was made of, and writes on. None of that is lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_disks import create_vhd_dynamic
from bootlink_events import WritebackLeft
from bootlink_registry.delivery import Delivery
from bootlink_runtime import follow
from lab.chassis import bus_on
from lab.disks import MIB, apply_changes, digest, sparse_disk
from lab.nats import NatsServer
from lab.registry import problem, until
from lab.room import Pc, Room, room_on
from lab.vhdi import read_chain

SIZE = 4 * MIB
PAGE = 4096


class Held:
    """What keeps plans from the block store while it is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = asyncio.Event()
        self._open.set()
        real = Delivery._put

        async def put(delivery: Delivery, *what: Any) -> None:
            await self._open.wait()
            await real(delivery, *what)

        monkeypatch.setattr(Delivery, "_put", put)

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


@pytest.fixture
async def room(
    nats: NatsServer, database: str, tmp_path: Path, plans: Held, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Room]:
    """Image win11, which everybody boots; its bytes are the same in the end."""
    monkeypatch.setattr("bootlink_registry.writebacks.LOOK_SECONDS", 0.1)
    raw = sparse_disk(tmp_path / "golden.img", SIZE)
    create_vhd_dynamic(tmp_path / "golden.vhd", raw)
    before = digest(tmp_path / "golden.vhd")
    async with room_on(nats.url, database, tmp_path) as running:
        await running.registry.add_image("win11", tmp_path / "golden.vhd")
        await running.registry.link("default", "", "win11")
        yield running
        plans.open()
    assert digest(tmp_path / "golden.vhd") == before


async def write(pc: Pc, rng: random.Random, model: bytearray) -> None:
    for page in sorted(rng.sample(range(1, SIZE // PAGE), 8)):
        data = rng.randbytes(PAGE)
        await pc.disk.write(page * PAGE, data, fua=True)
        apply_changes(model, [(page * PAGE, data)])


async def whole(pc: Pc) -> bytes:
    return b"".join([await pc.disk.read(at, MIB // 2) for at in range(0, SIZE, MIB // 2)])


async def writebacks(room: Room, pc: Pc) -> list[Any]:
    held: list[Any] = await room.registry.get(f"/v1/clients/{pc.name}/writebacks")
    return held


async def left(room: Room, pc: Pc) -> None:
    """Wait until the registry has found that what this PC wrote is more than the layer holds."""

    async def found() -> bool:
        return any(one["left"] for one in await writebacks(room, pc))

    await until(found, f"what {pc.name} wrote to be left")


async def gone(room: Room, pc: Pc, policy: str) -> None:
    async def none() -> bool:
        return not [one for one in await writebacks(room, pc) if one["policy"] == policy]

    await until(none, f"the end of what {pc.name} wrote")


async def chain(room: Room, *versions: int) -> bytes:
    """What libvhdi reads of these versions' layers, the newest first."""
    found = {one["number"]: one for one in (await room.registry.get("/v1/images/win11/versions"))["items"]}
    return bytes(read_chain(*(Path(found[number]["path"]) for number in versions)))


async def written(room: Room, pc: Pc, plans: Held, rng: random.Random, model: bytearray) -> None:
    """A super client that wrote upon its branch and was switched off; from now on no plan arrives."""
    await room.make_super(pc, "win11")
    await pc.boot()
    await write(pc, rng, model)
    await pc.off()
    plans.close()


async def committed(room: Room, pc: Pc, plans: Held, rng: random.Random, model: bytearray) -> bytes:
    """A super client that was committed, and started upon its former branch; what version 2 shows."""
    await written(room, pc, plans, rng, model)
    assert (await room.commit(pc))["branch"] == "ended"
    first = bytes(model)
    await pc.boot(at_once=True)
    assert await whole(pc) == first
    await write(pc, rng, model)
    return first


@pytest.mark.parametrize("arrives", ["while it runs", "when it is off"])
async def test_what_a_pc_writes_between_its_commit_and_its_new_plan_is_left_and_becomes_a_version(
    room: Room, plans: Held, nats: NatsServer, tmp_path: Path, arrives: str
) -> None:
    rng, pc = random.Random(1), await room.pc(1)
    model = bytearray((tmp_path / "golden.img").read_bytes())
    first = await committed(room, pc, plans, rng, model)
    boot = str(pc.boot_id)
    if arrives == "while it runs":
        plans.open()
        await left(room, pc)
        await write(pc, rng, model)  # and it goes on
    await pc.off()
    plans.open()
    await left(room, pc)
    (one,) = await writebacks(room, pc)
    assert (one["boot_id"], one["policy"], one["left"]) == (boot, "super", True)
    assert await chain(room, 2, 1) == first

    await pc.boot()  # by its links, and with nothing of it
    assert await whole(pc) == (tmp_path / "golden.img").read_bytes()
    await pc.off()
    refused = problem(await room.registry.http.delete(f"/v1/clients/{pc.name}"), 409)
    assert boot in refused["detail"]

    result = await room.commit(pc, boot_id=boot, note="written in the window")
    assert (result["version"], result["parent"], result["branch"]) == (3, 1, "unchanged")
    assert await chain(room, 3, 1) == model
    await gone(room, pc, "super")
    async with bus_on(nats.url, service="reader", make=False) as bus:
        told = [event.decode() async for event in follow(bus, subject="bootlink.v1.writeback.left.>", wait=False)]
    assert [(e.client, str(e.boot_id), e.image, e.version) for e in told if isinstance(e, WritebackLeft)] == [
        (pc.name, boot, "win11", 1)
    ]


async def test_a_pc_that_is_started_then_and_writes_nothing_leaves_nothing(
    room: Room, plans: Held, tmp_path: Path
) -> None:
    rng, pc = random.Random(2), await room.pc(1)
    model = bytearray((tmp_path / "golden.img").read_bytes())
    await written(room, pc, plans, rng, model)
    await room.commit(pc)
    await pc.boot(at_once=True)
    assert await whole(pc) == model
    await pc.off()
    plans.open()
    await gone(room, pc, "super")


async def test_what_was_left_can_be_thrown_away_by_name(room: Room, plans: Held, tmp_path: Path) -> None:
    rng, pc = random.Random(3), await room.pc(1)
    await committed(room, pc, plans, rng, bytearray((tmp_path / "golden.img").read_bytes()))
    await pc.off()
    plans.open()
    await left(room, pc)
    path = f"/v1/clients/{pc.name}/writebacks/"
    absent = problem(await room.registry.http.delete(f"{path}01a206db-0000-7000-8000-000000000000"), 404)
    assert "was left behind" in absent["detail"]
    assert (await room.registry.http.delete(f"{path}{pc.boot_id}")).status_code == 204
    await gone(room, pc, "super")
    assert (await room.registry.http.delete(f"/v1/clients/{pc.name}")).status_code == 204


async def test_a_branch_that_goes_on_upon_its_version_leaves_what_was_written_upon_the_former(
    room: Room, plans: Held, tmp_path: Path
) -> None:
    rng, pc = random.Random(4), await room.pc(1)
    model = bytearray((tmp_path / "golden.img").read_bytes())
    await written(room, pc, plans, rng, model)
    assert (await room.commit(pc, stay=True))["branch"] == "moved"
    first = bytes(model)
    await pc.boot(at_once=True)
    boot = str(pc.boot_id)
    await write(pc, rng, model)
    await pc.off()
    plans.open()
    await left(room, pc)
    await pc.boot()
    assert await whole(pc) == first, "nothing of the former write-back is mixed into the new one"
    await pc.off()
    assert (await room.commit(pc, boot_id=boot))["parent"] == 1
    assert await chain(room, 3, 1) == model


async def test_what_a_pc_writes_between_a_seal_and_its_new_plan_is_left_and_becomes_a_version(
    room: Room, plans: Held, tmp_path: Path
) -> None:
    rng, pc = random.Random(5), await room.pc(1)
    model = bytearray((tmp_path / "golden.img").read_bytes())
    body = {"scope": "client", "name": pc.name, "image": "win11", "own_layer": True}
    for _ in range(2):  # the second lies upon what was sealed first
        assert (await room.registry.http.put("/v1/links", json={**body, "policy": "keep"})).status_code == 200
        await pc.boot()
        await write(pc, rng, model)
        await pc.off()
        plans.close()
        answer = await room.registry.http.put("/v1/links", json={**body, "policy": "discard"})
        assert (await room.over(answer.json()))["state"] == "done"
        sealed = bytes(model)
        await pc.boot(at_once=True)
        boot = str(pc.boot_id)
        after = bytearray(model)
        await write(pc, rng, after)
        await pc.off()
        plans.open()
        await left(room, pc)
        await pc.boot()
        assert await whole(pc) == sealed
        await pc.off()
        result = await room.commit(pc, boot_id=boot)
        found = (await room.registry.get(f"/v1/images/win11/versions/{result['version']}"))["path"]
        below = [Path(layer.path) for layer in (await pc.planned()).disks[0].layers][1:]
        assert read_chain(Path(found), *below) == after
        await gone(room, pc, "keep")
