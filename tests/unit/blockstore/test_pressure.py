"""What a client may write, and when it is told that it is much."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bootlink_blockstore import reclaim
from bootlink_blockstore.disk import ClientDisk, DiskFault
from bootlink_blockstore.pagemap import PAGE
from bootlink_blockstore.pressure import Allowance, Space
from bootlink_blockstore.reclaim import Retention
from bootlink_blockstore.service import BlockStore
from bootlink_events import BootId, WritebackPressure
from bootlink_runtime import StartupError
from lab.blockstore import MAC, Lab, Plans, Told, identity, make_image, plan, serving
from lab.iscsi import CheckConditionSeen, Initiator

LIMIT = 100 * PAGE
OTHER = "52:54:00:00:00:02"


def test_each_level_is_told_once_and_again_only_after_it_was_clearly_left() -> None:
    told: list[int] = []
    allowance = Allowance(LIMIT, told.append)
    for _ in range(79):
        allowance.changed(1)
    assert told == []
    for _ in range(5):
        allowance.changed(1)
        allowance.changed(-1)
        allowance.changed(1)
    assert told == [80]
    allowance.changed(11)
    assert told == [80, 95]
    allowance.changed(-19)  # 76: 95 was left clearly, and 80 was not
    allowance.changed(19)
    assert told == [80, 95, 95]
    allowance.changed(-60)
    allowance.changed(45)
    assert told == [80, 95, 95, 80]


def test_there_is_room_up_to_the_limit_and_what_is_under_way_counts() -> None:
    told: list[int] = []
    allowance = Allowance(LIMIT, told.append)
    allowance.changed(90)
    assert allowance.fits(10)
    allowance.promise(5)
    assert not allowance.fits(6)
    for _ in range(2):
        allowance.refuse()
    assert told == [80, 95, 100]
    allowance.promise(-5)
    assert allowance.fits(10)
    assert Allowance().fits(1 << 60), "no limit"


def test_the_reserve_is_told_once_per_crossing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, left = Space(tmp_path, 1000), iter([2000, 999, 500, 1050, 990, 1200, 900])
    assert space.free() > 0
    monkeypatch.setattr(Space, "free", lambda _self: next(left))
    assert [space.fell() for _ in range(7)] == [None, 999, None, None, None, None, 900]
    assert space.low


async def pc(running: Lab, mac: str = MAC) -> Initiator:
    return await Initiator.logged_in(
        running.host, running.port, name=identity(BootId.mint(), mac), target=running.plans[mac].target
    )


async def refused(client: Initiator, offset: int, data: bytes) -> None:
    with pytest.raises(CheckConditionSeen) as caught:
        await client.write(offset, data)
    assert (caught.value.key, caught.value.code) == (7, 0x2707)


async def test_a_client_at_its_limit_is_refused_as_a_whole_and_nobody_else(tmp_path: Path) -> None:
    base, second = make_image(tmp_path / "base.img"), make_image(tmp_path / "second.img", seed=2)
    image = base.read_bytes()
    async with serving(tmp_path, plan(base, second), plan(base, mac=OTHER), limit=LIMIT) as running:
        full, other = await pc(running), await pc(running, OTHER)
        await full.write(0, b"x" * (79 * PAGE))
        assert running.told.of(WritebackPressure) == []
        await full.write(79 * PAGE, b"x" * (21 * PAGE))
        for size in (512, 40 * PAGE, 400 * PAGE):
            await refused(full, 99 * PAGE + 512, b"y" * (PAGE + size))
            await refused(full, 1 << 20, b"y" * size)
        assert await full.read(99 * PAGE, 2 * PAGE) == b"x" * PAGE + image[100 * PAGE : 101 * PAGE], "nothing partial"
        await full.write(512, b"z" * (50 * PAGE))  # into pages that are there
        assert await full.read(512, 50 * PAGE) == b"z" * (50 * PAGE)
        await other.write(0, b"o" * (99 * PAGE))
        assert await other.read(0, 99 * PAGE) == b"o" * (99 * PAGE)
        events = [event for event in running.told.of(WritebackPressure) if isinstance(event, WritebackPressure)]
        assert [(event.mac, event.percent, event.limit) for event in events] == [
            (MAC, 80, LIMIT),
            (MAC, 95, LIMIT),
            (MAC, 100, LIMIT),
            (OTHER, 80, LIMIT),
            (OTHER, 95, LIMIT),
        ]
        # The limit is the client's, whichever of its disks it writes to; what it gives back counts no more.
        boot = next(b for b in running.store.attachments.boots if b.mac == MAC)
        with pytest.raises(DiskFault):
            boot.disks[1].disk.write(0, b"x" * PAGE)
        giving = boot.disks[0].disk.zero(0, 10 * PAGE)
        assert giving is not None
        await giving
        await full.write(1 << 20, b"y" * (10 * PAGE))
        await refused(full, 2 << 20, b"y" * 512)
        await full.close()
        await other.close()


async def test_writes_at_once_do_not_go_beyond_the_limit_together(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img")
    async with serving(tmp_path, plan(base), limit=LIMIT) as running:
        client = await pc(running)
        disk: ClientDisk = running.store.attachments.boots[0].disks[0].disk
        writes = [disk.write(n << 20, b"x" * (30 * PAGE)) for n in range(5)]
        ends = await asyncio.gather(*(w for w in writes if w is not None), return_exceptions=True)
        assert [isinstance(end, DiskFault) for end in ends] == [False, False, False, True, True]
        assert disk.overlay.pages == 90
        await client.close()


async def test_a_large_write_into_pages_that_are_there_takes_no_room_from_another_disk(tmp_path: Path) -> None:
    base, second = make_image(tmp_path / "base.img"), make_image(tmp_path / "second.img", seed=2)
    async with serving(tmp_path, plan(base, second), limit=LIMIT) as running:
        client = await pc(running)
        disks = running.store.attachments.boots[0].disks
        await client.write(0, b"x" * (50 * PAGE))
        again = disks[0].disk.write(0, b"y" * (50 * PAGE))
        assert again is not None
        waiting = asyncio.ensure_future(again)
        await asyncio.sleep(0)  # it is being written in a thread
        assert disks[1].disk.write(0, b"z" * PAGE) is None
        await waiting
        await client.close()


async def test_a_client_at_its_limit_may_give_back_also_what_ends_within_pages(tmp_path: Path) -> None:
    """The zeros at the ends take pages of their own, and the pages between make room for them."""
    base = make_image(tmp_path / "base.img")
    async with serving(tmp_path, plan(base), limit=LIMIT) as running:
        client = await pc(running)
        disk: ClientDisk = running.store.attachments.boots[0].disks[0].disk
        await client.write(PAGE, b"x" * (100 * PAGE))
        giving = disk.zero(512, 102 * PAGE - 1024)
        assert giving is not None
        await giving
        image = base.read_bytes()
        assert (
            await client.read(0, 102 * PAGE) == image[:512] + bytes(102 * PAGE - 1024) + image[102 * PAGE - 512 :][:512]
        )
        assert disk.overlay.pages == 2
        await client.close()


async def test_the_limit_counts_what_was_written_before_a_restart(tmp_path: Path) -> None:
    base, boot_id = make_image(tmp_path / "base.img"), BootId.mint()
    for offset in (0, 50 * PAGE):
        async with serving(tmp_path, plan(base), limit=LIMIT) as running:
            client = await Initiator.logged_in(running.host, running.port, name=identity(boot_id))
            await client.write(offset, b"x" * (50 * PAGE))
            await client.close()
    async with serving(tmp_path, plan(base), limit=LIMIT) as running:
        client = await Initiator.logged_in(running.host, running.port, name=identity(boot_id))
        await refused(client, 1 << 20, b"x" * PAGE)
        assert len(running.told.of(WritebackPressure)) == 3, "told again after a restart, once"
        await client.close()


async def test_where_space_is_low_it_is_told_once_and_discarded_writebacks_go_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(reclaim, "ROUND_SECONDS", 0.01)
    base = make_image(tmp_path / "base.img")
    async with serving(tmp_path, plan(base)) as running:
        for _ in range(2):  # the second boot discards the first
            client = await pc(running)
            await client.write(0, b"x" * (8 * PAGE))
            await client.close()
        space = Space(running.store.root, 1 << 62)
        journal = running.told.journal()
        task = asyncio.create_task(
            reclaim.reclaim(running.store.attachments, journal, space, Retention(9, 3600.0, 1 << 40))
        )
        async with asyncio.timeout(10):
            while not running.told.counters["writebacks_reclaimed"]:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        (event,) = running.told.of(WritebackPressure)
        assert isinstance(event, WritebackPressure)
        assert (event.mac, event.bytes, event.limit) == (MAC, 8 * PAGE, 0)
        assert event.free is not None
        assert running.told.counters["writebacks_reclaimed"] == 1


async def test_two_block_stores_never_write_below_one_folder(tmp_path: Path) -> None:
    async with serving(tmp_path, plan(make_image(tmp_path / "base.img"))):
        second = BlockStore(Plans(), Told().journal(), tmp_path, cache=1 << 20)
        with pytest.raises(StartupError, match="another block store"):
            await second.open()
        await second.close()
    third = BlockStore(Plans(), Told().journal(), tmp_path, cache=1 << 20)
    await third.open()
    await third.close()
