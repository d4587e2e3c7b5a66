"""What a super client wrote becomes a version: judged by libvhdi as a chain, and by qemu-img as a flat disk."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_disks import create_vhd_dynamic
from bootlink_events import CloudEvent, WritebackCommitted
from bootlink_registry import commits, exports
from bootlink_runtime import follow
from lab.chassis import bus_on
from lab.disks import MIB, apply_changes, digest, qemu_img, sparse_disk
from lab.nats import NatsServer
from lab.registry import problem, until
from lab.room import Room, room_on
from lab.vhdi import read_chain

SIZE = 6 * MIB
PAGE = 4096


class Golden:
    """An image, its file, and the bytes that its disk has."""

    def __init__(self, path: Path, model: bytes) -> None:
        self.path = path
        self.model = model
        self.digest = digest(path)


@pytest.fixture
async def room(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Room]:
    async with room_on(nats.url, database, tmp_path) as running:
        yield running


@pytest.fixture
async def golden(room: Room, tmp_path: Path) -> AsyncIterator[Golden]:
    """Image win11, a dynamic VHD; its bytes are the same in the end."""
    raw = sparse_disk(tmp_path / "golden.img", SIZE)
    create_vhd_dynamic(tmp_path / "golden.vhd", raw)
    image = Golden(tmp_path / "golden.vhd", raw.read_bytes())
    await room.registry.add_image("win11", image.path)
    yield image
    assert digest(image.path) == image.digest, "the image's bytes have changed"


def pages(rng: random.Random, count: int = 12) -> list[tuple[int, bytes]]:
    """Changes of whole pages, apart from one another."""
    chosen = sorted(rng.sample(range(1, SIZE // PAGE), count))
    return [(page * PAGE, rng.randbytes(PAGE)) for page in chosen]


async def write(pc: Any, changes: list[tuple[int, bytes]]) -> None:
    for at, data in changes:
        await pc.disk.write(at, data, fua=True)


async def versions(room: Room) -> dict[int, Any]:
    found = await room.registry.get("/v1/images/win11/versions")
    return {one["number"]: one for one in found["items"]}


async def test_what_a_super_client_wrote_becomes_a_version(room: Room, golden: Golden, tmp_path: Path) -> None:
    rng = random.Random(1)
    pc, other = await room.pc(1), await room.pc(2)
    await room.registry.link("default", "", "win11")
    await room.make_super(pc, "win11")
    await pc.boot()
    first, second = pages(rng), pages(rng)
    await write(pc, first)
    await pc.boot()  # a super client keeps what it wrote
    await write(pc, second)
    await pc.off()
    result = await room.commit(pc, note="drivers")
    assert (result["version"], result["parent"], result["branch"], result["notes"]) == (2, 1, "ended", [])

    model = bytearray(golden.model)
    apply_changes(model, first)
    apply_changes(model, second)
    version = (await versions(room))[2]
    assert (version["note"], version["parent"], version["owned"]) == ("drivers", 1, True)
    assert version["from_boot"] == str(pc.boot_id)
    layer = Path(version["path"])
    assert layer.is_relative_to(tmp_path / "data" / "images" / "win11")
    assert layer.stat().st_mode & 0o777 == 0o444
    assert digest(layer) == version["sha256"]
    assert read_chain(layer, golden.path) == model

    flat = tmp_path / "flat.qcow2"
    exported = await room.job("/v1/images/win11/export", {"path": str(flat), "format": "qcow2", "version": 2})
    assert exported["state"] == "done", exported["problem"]
    (tmp_path / "expected.img").write_bytes(model)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", flat, tmp_path / "expected.img")

    assert (await pc.planned()).disks[0].policy == "discard"
    disk = await other.boot()
    assert await disk.read(first[0][0], PAGE) == golden.model[first[0][0] :][:PAGE]  # nothing was published
    published = await room.registry.http.put("/v1/images/win11/channels/production", json={"version": 2})
    assert published.status_code == 200
    assert await disk.read(first[0][0], PAGE) == golden.model[first[0][0] :][:PAGE]  # and it runs on what it booted
    disk = await other.boot()
    assert b"".join([await disk.read(at, MIB // 2) for at in range(0, SIZE, MIB // 2)]) == model
    await other.off()


async def test_two_branches_and_the_second_is_told_that_it_is_not_on_top(room: Room, golden: Golden) -> None:
    rng = random.Random(2)
    pcs = [await room.pc(1), await room.pc(2)]
    changes = [pages(rng), pages(rng)]
    for pc, written in zip(pcs, changes, strict=True):
        await room.make_super(pc, "win11")
        await pc.boot()
        await write(pc, written)
        await pc.off()
    first = await room.commit(pcs[0], note="first")
    assert (first["version"], first["parent"], first["beside"], first["notes"]) == (2, 1, [], [])
    second = await room.commit(pcs[1], note="second")
    assert (second["version"], second["parent"], second["beside"]) == (3, 1, [2])
    assert second["notes"] == [
        "version 3 is not on top of version 2: it lies on version 1, and has nothing of what is new there; publishing "
        "it takes that back"
    ]
    found = await versions(room)
    for number, written in ((2, changes[0]), (3, changes[1])):
        model = bytearray(golden.model)
        apply_changes(model, written)
        assert read_chain(Path(found[number]["path"]), golden.path) == model


async def test_a_branch_may_go_on_upon_the_version_that_was_made_of_it(room: Room, golden: Golden) -> None:
    rng = random.Random(3)
    pc = await room.pc(1)
    await room.make_super(pc, "win11")
    model = bytearray(golden.model)
    for number in (2, 3):
        await pc.boot()
        written = pages(rng)
        await write(pc, written)
        apply_changes(model, written)
        await pc.off()
        result = await room.commit(pc, stay=True)
        assert (result["version"], result["parent"], result["branch"]) == (number, number - 1, "moved")
    found = await versions(room)
    assert read_chain(*(Path(found[n]["path"]) for n in (3, 2, 1))) == model
    disk = await pc.boot()
    at = written[0][0]
    assert await disk.read(at, PAGE) == written[0][1]
    assert (await room.registry.get(f"/v1/clients/{pc.name}/branch"))["base"] == 3
    await pc.off()


async def test_a_client_that_runs_is_committed_only_where_that_is_meant(room: Room, golden: Golden) -> None:
    rng = random.Random(4)
    pc = await room.pc(1)
    await room.make_super(pc, "win11")
    await pc.boot()
    written = pages(rng)
    await write(pc, written)
    refused = await room.job(f"/v1/clients/{pc.name}/commit", {})
    assert refused["state"] == "failed"
    assert "is running" in refused["problem"]["detail"]
    assert list(await versions(room)) == [1]
    result = await room.commit(pc, running=True)
    assert (result["version"], result["branch"]) == (2, "unchanged")
    assert "its branch goes on, upon version 1" in result["notes"][0]
    model = bytearray(golden.model)
    apply_changes(model, written)
    assert read_chain(Path((await versions(room))[2]["path"]), golden.path) == model
    more = pages(rng)
    await write(pc, more)
    apply_changes(model, more)
    await pc.off()
    result = await room.commit(pc)
    assert (result["version"], result["parent"], result["beside"], result["branch"]) == (3, 1, [2], "ended")
    assert read_chain(Path((await versions(room))[3]["path"]), golden.path) == model


async def test_a_client_that_is_started_during_its_commit_loses_nothing(
    room: Room, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(8)
    pc = await room.pc(1)
    await room.make_super(pc, "win11")
    await pc.boot()
    written = pages(rng)
    await write(pc, written)
    await pc.off()
    real = exports.export

    async def export_and_start(*what: Any, **more: Any) -> Any:
        made = await real(*what, **more)
        await pc.boot()
        return made

    monkeypatch.setattr(commits, "export", export_and_start)
    result = await room.commit(pc)
    assert (result["version"], result["branch"]) == (2, "unchanged")
    assert "is running, so its branch goes on" in result["notes"][0]
    model = bytearray(golden.model)
    apply_changes(model, written)
    assert read_chain(Path((await versions(room))[2]["path"]), golden.path) == model
    more = pages(rng)
    await write(pc, more)
    apply_changes(model, more)
    disk = await pc.boot()
    assert b"".join([await disk.read(at, MIB // 2) for at in range(0, SIZE, MIB // 2)]) == model
    await pc.off()


async def test_what_a_client_wrote_after_the_moment_of_its_commit_is_kept(
    room: Room, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs, is committed as it runs, writes more and is shut down before the layer is recorded."""
    rng = random.Random(9)
    pc = await room.pc(1)
    await room.make_super(pc, "win11")
    await pc.boot()
    written, more = pages(rng), pages(rng)
    await write(pc, written)
    real = exports.export

    async def export_and_stop(*what: Any, **told: Any) -> Any:
        made = await real(*what, **told)
        await write(pc, more)
        await pc.off()
        return made

    monkeypatch.setattr(commits, "export", export_and_stop)
    result = await room.commit(pc, running=True)
    assert (result["version"], result["branch"]) == (2, "unchanged")
    monkeypatch.undo()
    result = await room.commit(pc)
    assert (result["version"], result["branch"]) == (3, "ended")
    model = bytearray(golden.model)
    apply_changes(model, written)
    apply_changes(model, more)
    assert read_chain(Path((await versions(room))[3]["path"]), golden.path) == model


async def test_an_abandoned_branch_leaves_nothing(room: Room, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bootlink_registry.writebacks.LOOK_SECONDS", 0.1)
    pc = await room.pc(1)
    await room.registry.link("default", "", "win11")
    await room.make_super(pc, "win11")
    await pc.boot()
    await write(pc, pages(random.Random(5)))
    assert (await room.registry.http.delete(f"/v1/clients/{pc.name}/branch")).status_code == 204
    held = await room.registry.get(f"/v1/clients/{pc.name}/writebacks")
    assert [one["policy"] for one in held] == ["super"]  # it runs, and is not cut off
    await pc.off()

    async def gone() -> bool:
        return bool(await room.registry.get(f"/v1/clients/{pc.name}/writebacks") == [])

    await until(gone, "the end of what the branch wrote", seconds=60)
    disk = await pc.boot()
    assert await disk.read(0, MIB // 2) == golden.model[: MIB // 2]
    await pc.off()


async def test_a_commit_of_nothing_says_so(room: Room, golden: Golden) -> None:
    pc = await room.pc(1)
    await room.make_super(pc, "win11")
    await pc.planned()
    job = await room.job(f"/v1/clients/{pc.name}/commit", {})
    assert job["problem"]["detail"] == f"{pc.name} has written nothing on its branch of win11 yet"


async def test_a_discarded_boot_comes_back_and_can_become_a_version(room: Room, golden: Golden) -> None:
    rng = random.Random(6)
    pc = await room.pc(1)
    await room.registry.link("default", "", "win11")
    await pc.boot()
    lost_boot, written = pc.boot_id, pages(rng)
    await write(pc, written)
    await pc.boot()  # which discards it
    await pc.off()
    absent = problem(
        await room.registry.http.post(
            f"/v1/clients/{pc.name}/undo-reboot", json={"boot_id": "01a206db-0000-7000-8000-000000000000"}
        ),
        404,
    )
    assert "is held no more" in absent["detail"]
    result = await room.commit(pc, boot_id=str(lost_boot), note="after the fact")
    assert (result["version"], result["parent"], result["branch"]) == (2, 1, "unchanged")
    model = bytearray(golden.model)
    apply_changes(model, written)
    assert read_chain(Path((await versions(room))[2]["path"]), golden.path) == model
    answer = await room.registry.http.post(f"/v1/clients/{pc.name}/undo-reboot", json={})
    assert answer.status_code == 200, answer.text
    assert [(one["boot_id"], one["returning"]) for one in answer.json()] == [(str(lost_boot), True)]
    disk = await pc.boot()
    assert await disk.read(written[0][0], PAGE) == written[0][1]
    await pc.off()


async def test_a_discarded_boot_comes_back_upon_what_its_version_was_merged_into(room: Room, golden: Golden) -> None:
    rng = random.Random(10)
    pc = await room.pc(1)
    await room.make_super(pc, "win11")
    await pc.boot()
    below, above = pages(rng), pages(rng)
    await write(pc, below)
    await pc.off()
    assert (await room.commit(pc))["version"] == 2
    await room.registry.link("client", pc.name, "win11", version=2)
    await pc.boot()
    await write(pc, above)
    await room.registry.link("client", pc.name, "win11", version=1)
    await pc.boot()  # of another version, so that its plan names nothing of the former one
    await pc.off()
    former = Path((await versions(room))[2]["path"])
    merged = await room.job("/v1/images/win11/merge", {"version": 2})
    assert merged["state"] == "done", merged["problem"]
    assert (await versions(room))[2]["path"] != str(former)
    former.unlink()  # as a week later
    answer = await room.registry.http.post(f"/v1/clients/{pc.name}/undo-reboot", json={})
    assert answer.status_code == 200, answer.text
    disk = await pc.boot()
    model = bytearray(golden.model)
    apply_changes(model, below)
    apply_changes(model, above)
    assert b"".join([await disk.read(at, MIB // 2) for at in range(0, SIZE, MIB // 2)]) == model
    await pc.off()


async def test_all_hear_of_a_commit(room: Room, golden: Golden, nats: NatsServer) -> None:
    pc = await room.pc(1)
    await room.make_super(pc, "win11")
    await pc.boot()
    await write(pc, pages(random.Random(7)))
    await pc.off()
    await room.commit(pc)
    async with bus_on(nats.url, service="reader", make=False) as bus:

        async def heard() -> list[CloudEvent]:
            return [event async for event in follow(bus, subject="bootlink.v1.*.*.*", wait=False)]

        async def told() -> bool:
            return any(isinstance(event.decode(), WritebackCommitted) for event in await heard())

        await until(told, "the event of the commit")
        decoded = [event.decode() for event in await heard()]
        committed = [event for event in decoded if isinstance(event, WritebackCommitted)]
        assert [(e.client, e.image, e.version, e.boot_id) for e in committed] == [(pc.name, "win11", 2, pc.boot_id)]
        kinds = {event.type for event in await heard()}
        assert {"bootlink.v1.branch.changed", "bootlink.v1.image.version_added"} <= kinds
