"""A client's disk: an overlay over an image, against a plain bytearray; and what it promises when things fail."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_blockstore import overlay as module
from bootlink_blockstore.cache import BLOCK, ENTRY_COST, Cache
from bootlink_blockstore.disk import ClientDisk, DiskFault
from bootlink_blockstore.image import Buffer, Buffers
from bootlink_blockstore.library import Library
from bootlink_blockstore.overlay import Overlay
from bootlink_blockstore.pagemap import CHUNK, PAGE, PRESENT, ZEROED
from bootlink_blockstore.scsi.device import LogicalUnit, Nexus, Outcome
from bootlink_blockstore.scsi.table import TABLE
from bootlink_wire.scsi_vpd import Identity
from lab.blockstore import digest, layer_plan, make_image
from lab.disks import dynamic_vhd, sparse_disk
from lab.slow_disk import SlowDisk

SIZE = (1 << 20) + 1536  # ends within a page and within a block
SECTORS = SIZE // 512


@contextlib.asynccontextmanager
async def disk_over(
    folder: Path, *, durable: bool = False, cache: int = 64 << 20, image: Path | None = None
) -> AsyncIterator[ClientDisk]:
    base = image or make_image(folder / "base.img", SIZE)
    before = digest(base)
    with ThreadPoolExecutor(4) as executor:
        library = Library(Cache(cache), executor)
        opened = await library.open([layer_plan(base)])
        overlay = Overlay.create(folder / "overlay", opened.size)
        yield ClientDisk(opened, overlay, executor, durable=durable)
        overlay.close()
        library.shut()
    assert digest(base) == before, "the image's bytes have changed"


async def read(disk: ClientDisk, offset: int, length: int) -> bytes:
    hit = disk.hit(offset, length)
    result: Buffers | Coroutine[Any, Any, Buffers] = disk.read(offset, length)
    buffers = result if isinstance(result, list) else await result
    whole = b"".join(buffers)
    assert hit is None or hit == whole
    return whole


async def write(disk: ClientDisk, offset: int, data: bytes, *, fua: bool = False) -> None:
    waiting = disk.write(offset, data, fua=fua)
    if waiting is not None:
        await waiting


RANGES = st.integers(0, SECTORS - 1).flatmap(
    lambda lba: st.tuples(st.just(lba), st.integers(1, min(300, SECTORS - lba)))
)


@settings(max_examples=25)
@given(st.lists(st.tuples(RANGES, st.booleans()), max_size=25), st.sampled_from([64 << 20, BLOCK + ENTRY_COST]))
async def test_a_disk_is_a_bytearray_that_begins_as_its_image(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[tuple[int, int], bool]], cache: int
) -> None:
    folder = tmp_path_factory.mktemp("d")
    async with disk_over(folder, cache=cache) as disk:
        model = bytearray((folder / "base.img").read_bytes())
        for number, ((lba, sectors), is_write) in enumerate(steps):
            start, end = lba * 512, (lba + sectors) * 512
            if is_write:
                data = bytes([number + 1]) * (end - start)
                await write(disk, start, data)
                model[start:end] = data
            assert await read(disk, start, end - start) == model[start:end]
        assert await read(disk, 0, SIZE) == model
        again = Overlay.reopen(disk.overlay.path, disk.size)
        assert [bytes(c) for _, c in sorted(again.chunks.items())] == [
            bytes(c) for _, c in sorted(disk.overlay.chunks.items())
        ]
        again.close()


async def test_concurrent_writes_into_one_page_do_not_undo_each_other(tmp_path: Path) -> None:
    """Eight sectors of one absent page, written at once while the image's bytes must come from a thread."""
    async with disk_over(tmp_path) as disk:
        with contextlib.suppress(OSError):
            os.posix_fadvise(disk.image.layers[0].open.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        disk.image.layers[0].nowait = False
        await asyncio.gather(*(write(disk, 8192 + n * 512, bytes([n + 1]) * 512) for n in range(8)))
        assert await read(disk, 8192, 4096) == b"".join(bytes([n + 1]) * 512 for n in range(8))


async def test_writes_land_in_the_order_they_came_also_when_some_must_wait(tmp_path: Path) -> None:
    async with disk_over(tmp_path) as disk:
        disk.image.layers[0].nowait = False
        waiting = [disk.write(512, bytes([n]) * 1024) for n in range(1, 40)]
        await asyncio.gather(*(w for w in waiting if w is not None))
        assert await read(disk, 512, 1024) == bytes([39]) * 1024


async def test_while_a_write_is_queued_none_overtakes_it(tmp_path: Path) -> None:
    async with disk_over(tmp_path) as disk:
        large = disk.write(0, b"1" * (256 << 10))
        small = disk.write(0, b"2" * 4096)
        assert large is not None
        assert small is not None
        await asyncio.gather(large, small)
        assert await read(disk, 0, 4096) == b"2" * 4096


async def test_a_small_write_needs_no_task(tmp_path: Path) -> None:
    async with disk_over(tmp_path) as disk:
        assert disk.write(0, b"x" * 4096) is None
        assert disk.write(0, b"x" * 512) is None  # the page is there: no copy-up


async def test_a_cached_read_is_a_view_of_the_cache(tmp_path: Path) -> None:
    async with disk_over(tmp_path) as disk:
        await read(disk, 0, 4096)
        view = disk.hit(0, 16384)
        assert isinstance(view, memoryview)
        assert view.obj is disk.image.layers[0].shelf.blocks[0]
        await write(disk, 0, b"x" * 512)
        assert disk.hit(0, 4096) is None
        assert disk.hit(4096, 4096) is not None


async def test_a_fenced_disk_takes_no_write_and_still_reads(tmp_path: Path) -> None:
    async with disk_over(tmp_path) as disk:
        under_way = disk.write(0, b"x" * (1 << 20))
        assert under_way is not None
        task = asyncio.ensure_future(under_way)
        await asyncio.sleep(0)
        await disk.fence()
        await task
        with pytest.raises(DiskFault) as caught:
            disk.write(0, b"y" * 512)
        assert caught.value.kind == "fenced"
        assert await read(disk, 0, 512) == b"x" * 512


async def test_a_full_disk_is_told_as_space_and_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with disk_over(tmp_path) as disk:
        before = await read(disk, 0, 8192)
        monkeypatch.setattr(os, "pwritev", full)
        for size in (4096, 256 << 10):
            with pytest.raises(DiskFault) as caught:
                await write(disk, 0, b"x" * size)
            assert caught.value.kind == "space"
        assert await read(disk, 0, 8192) == before
        monkeypatch.undo()
        await write(disk, 0, b"x" * 4096)
        assert await read(disk, 0, 4096) == b"x" * 4096


@pytest.mark.parametrize("size", [16 << 10, 256 << 10])  # inline, and in a thread
async def test_what_a_write_left_behind_when_the_disk_was_full_is_the_same_before_and_after_reopening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    real = os.pwritev

    def short(fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        return real(fd, [b"".join(buffers)[: 2 * PAGE]], offset)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with disk_over(tmp_path) as disk:
        monkeypatch.setattr(os, "pwritev", short)
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(DiskFault):
            await write(disk, 512, b"x" * size)
        monkeypatch.undo()
        seen = await read(disk, 0, SIZE)
        again = Overlay.reopen(disk.overlay.path, disk.size)
        disk.overlay.close()
        disk.overlay = again
        assert await read(disk, 0, SIZE) == seen, "pages that were not there have come back"
        base = (tmp_path / "base.img").read_bytes()
        assert seen == base[:512] + b"x" * (2 * PAGE - 512) + base[2 * PAGE :]


async def test_of_two_syncs_at_once_none_says_yes_when_the_other_was_told_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []

    def once(_fd: int) -> None:
        """As the kernel has it: the first to ask is told, and the second may be back earlier."""
        calls.append(0)
        if len(calls) == 1:
            time.sleep(0.1)
            raise OSError(errno.EIO, "Input/output error")

    async with disk_over(tmp_path, durable=True) as disk:
        told: list[str] = []
        disk.on_failure = told.append
        await write(disk, 0, b"x" * 4096)
        monkeypatch.setattr(os, "fdatasync", once)
        flushes = [disk.flush() for _ in range(4)]
        outcomes = await asyncio.gather(*(f for f in flushes if f is not None), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [DiskFault] * 4


async def test_a_failed_sync_fails_the_disk_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with disk_over(tmp_path, durable=True) as disk:
        await write(disk, 0, b"x" * 4096)
        monkeypatch.setattr(os, "fdatasync", broken)
        flushing = disk.flush()
        assert flushing is not None
        with pytest.raises(DiskFault):
            await flushing
        monkeypatch.undo()  # the kernel says yes the next time: it must not be believed
        for attempt in (disk.flush, lambda: disk.write(0, b"y" * 512), lambda: disk.read(0, 512)):
            with pytest.raises(DiskFault) as caught:
                attempt()
            assert caught.value.kind == "failed"


async def test_flush_and_fua_reach_the_disk_only_where_it_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    (tmp_path / "keep").mkdir()
    (tmp_path / "discard").mkdir()
    async with disk_over(tmp_path / "keep", durable=True) as disk:
        await write(disk, 0, b"x" * 4096, fua=True)
        assert len(synced) == 1
        await write(disk, 0, b"x" * 4096)
        assert len(synced) == 1
        flushing = disk.flush()
        assert flushing is not None
        await flushing
        assert len(synced) == 2
    async with disk_over(tmp_path / "discard") as disk:
        await write(disk, 0, b"x" * 4096, fua=True)
        assert disk.flush() is None
        assert len(synced) == 2


async def test_turning_the_write_cache_off_makes_stable_also_what_is_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a write was taken under a cache, and is answered when there is none any more: nobody flushes after it."""
    events: list[str] = []
    async with disk_over(tmp_path, durable=True) as disk:
        write_pages = disk.overlay.write

        def slowly(offset: int, buffers: Sequence[Buffer]) -> None:
            time.sleep(0.05)
            write_pages(offset, buffers)
            events.append("written")

        monkeypatch.setattr(Overlay, "write", lambda _self, offset, buffers: slowly(offset, buffers))
        monkeypatch.setattr(os, "fdatasync", lambda _fd: events.append("synced"))
        writing = disk.write(0, b"x" * (1 << 19))
        unit, nexus = LogicalUnit(TABLE, Identity("52:54:00:00:00:01", 0), (0,), disk), Nexus(attentions=[])
        caching = bytes(4) + bytes((0x08, 0x12, 0x00)) + bytes(17)
        cdb = bytes((0x15, 0x10, 0, 0, len(caching), 0)).ljust(16, b"\0")
        selecting = unit.execute(unit.prepare(nexus, cdb, len(caching))[0], nexus, cdb, caching)
        assert writing is not None
        assert not isinstance(selecting, Outcome)
        assert await asyncio.gather(selecting, writing) == [Outcome(), None]
        assert events[:2] == ["written", "synced"]
        assert not unit.modes.write_cache


async def test_a_layer_that_fails_is_a_read_fault(tmp_path: Path) -> None:
    async with disk_over(tmp_path) as disk:
        with SlowDisk(broken={0}):
            with pytest.raises(DiskFault) as caught:
                await read(disk, 0, 4096)
            assert caught.value.kind == "read"
            with pytest.raises(DiskFault):
                await write(disk, 512, b"x" * 512)  # copy-up needs what cannot be read
        assert await read(disk, 512, 512) == (tmp_path / "base.img").read_bytes()[512:1024]


# Giving back, and changing in place


async def zero(disk: ClientDisk, offset: int, length: int) -> bool:
    """Whether anything had to be done."""
    waiting = disk.zero(offset, length)
    if waiting is not None:
        await waiting
    return waiting is not None


async def test_what_was_given_back_takes_no_space_reads_as_zeros_and_never_as_the_image(tmp_path: Path) -> None:
    async with disk_over(tmp_path) as disk:
        await write(disk, 0, b"x" * (64 * PAGE))
        taken = disk.overlay.disk_usage
        await zero(disk, 512, 40 * PAGE)
        assert taken - disk.overlay.disk_usage >= 38 * PAGE  # 39 whole pages, less a block of marks
        assert [disk.overlay.state(page) for page in (0, 1, 39, 40)] == [PRESENT, ZEROED, ZEROED, PRESENT]
        expected = b"x" * 512 + bytes(40 * PAGE) + b"x" * (24 * PAGE - 512)
        assert await read(disk, 0, 64 * PAGE) == expected
        await write(disk, 2 * PAGE + 512, b"y" * 512)  # the rest of the page is zeros, and not the image
        assert await read(disk, 2 * PAGE, PAGE) == bytes(512) + b"y" * 512 + bytes(PAGE - 1024)
        again = Overlay.reopen(disk.overlay.path, disk.size)
        assert {n: bytes(c) for n, c in again.chunks.items()} == {n: bytes(c) for n, c in disk.overlay.chunks.items()}
        again.close()


async def test_giving_back_what_is_zeros_already_costs_nothing(tmp_path: Path) -> None:
    image = tmp_path / "base.vhd"
    image.write_bytes(dynamic_vhd(4 << 20, 1 << 20, [(1, b"d" * (1 << 20))]))
    async with disk_over(tmp_path, image=image) as disk:
        assert not await zero(disk, 0, 1 << 20)
        assert not await zero(disk, 2 << 20, 2 << 20)
        assert disk.overlay.chunks == {}
        assert list(disk.mapped(0, 4 << 20)) == [
            (False, 0, 1 << 20),
            (True, 1 << 20, 2 << 20),
            (False, 2 << 20, 4 << 20),
        ]
        assert await zero(disk, 0, 4 << 20)
        assert disk.overlay.count(0, 1024, ZEROED) == 256, "only what the image has bytes of is marked"
        assert not await zero(disk, 0, 4 << 20)
        assert list(disk.mapped(0, 4 << 20)) == [(False, 0, 4 << 20)]
        await write(disk, 3 << 20, b"x" * 512)
        assert list(disk.mapped(512, (4 << 20) - 512))[1] == (True, 3 << 20, (3 << 20) + PAGE)


async def test_writes_updates_and_what_is_given_back_keep_one_order(tmp_path: Path) -> None:
    async with disk_over(tmp_path) as disk:
        order = [
            disk.write(0, b"a" * (128 << 10)),
            disk.zero(0, 128 << 10),
            disk.write(PAGE, b"b" * 512),
            disk.update(0, 2 * PAGE, lambda held: held.replace(b"b", b"c")),
            disk.update(0, 2 * PAGE, lambda held: None),
            disk.zero(PAGE + 256 * 2, 64 << 10),
            disk.write(0, b"d" * 512),
        ]
        await asyncio.gather(*(step for step in order if step is not None))
        assert await read(disk, 0, 128 << 10) == (
            b"d" * 512 + bytes(PAGE - 512) + b"c" * 512 + bytes((128 << 10) - PAGE - 512)
        )


async def test_an_update_is_atomic_among_writes_and_passes_on_what_is_raised(tmp_path: Path) -> None:
    def count(held: bytes) -> bytes:
        return (int.from_bytes(held[:8], "big") + 1).to_bytes(8, "big") + held[8:]

    def refuse(_held: bytes) -> bytes:
        raise KeyError("not this one")

    async with disk_over(tmp_path) as disk:
        await write(disk, 0, bytes(512))
        await asyncio.gather(*(disk.update(0, 512, count) for _ in range(50)))
        with pytest.raises(KeyError):
            await disk.update(0, 512, refuse)
        await asyncio.gather(*(disk.update(0, 512, count) for _ in range(50)))
        assert int.from_bytes((await read(disk, 0, 512))[:8], "big") == 100
        assert disk.write(0, b"x" * 512) is None, "nothing is left in the queue"


async def test_on_a_durable_disk_marks_are_synced_before_anything_is_punched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with disk_over(tmp_path, durable=True) as disk:
        overlay = disk.overlay
        calls: list[str] = []
        names = {overlay.fd: "pages", overlay.zeros_fd: "marks"}
        real_sync, real_punch = os.fdatasync, module.punch

        def sync(fd: int) -> None:
            calls.append(f"sync {names[fd]}")
            real_sync(fd)

        def punch(fd: int, offset: int, length: int) -> None:
            calls.append(f"punch {names[fd]}")
            real_punch(fd, offset, length)

        monkeypatch.setattr(os, "fdatasync", sync)
        monkeypatch.setattr(module, "punch", punch)
        await zero(disk, 64 * PAGE, 4 * PAGE)
        assert calls == [], "nothing was written there: nothing to punch, and a flush will see to the marks"
        await write(disk, 0, b"x" * (8 * PAGE))
        await zero(disk, 0, 4 * PAGE)
        assert calls == ["sync marks", "punch pages"]
        await zero(disk, 32 * PAGE, PAGE)
        flushing = disk.flush()
        assert flushing is not None
        await flushing
        assert calls[2:] == ["sync marks", "sync pages"]


@pytest.mark.parametrize("step", ["mark", "punch"])
async def test_a_trim_that_fails_half_way_is_the_same_before_and_after_reopening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with disk_over(tmp_path) as disk:
        await write(disk, 0, b"x" * (4 * PAGE))
        if step == "mark":
            monkeypatch.setattr(os, "pwrite", full)
        else:
            monkeypatch.setattr(module, "punch", full)
        with pytest.raises(DiskFault) as caught:
            await zero(disk, 0, 8 * PAGE)
        assert caught.value.kind == "space"
        monkeypatch.undo()
        seen = await read(disk, 0, SIZE)
        assert seen[: 4 * PAGE] == b"x" * (4 * PAGE)
        again = Overlay.reopen(disk.overlay.path, disk.size)
        disk.overlay.close()
        disk.overlay = again
        assert await read(disk, 0, SIZE) == seen
        await zero(disk, 0, 8 * PAGE)
        assert await read(disk, 0, 8 * PAGE) == bytes(8 * PAGE)


async def test_where_the_map_cannot_be_made_out_after_an_error_the_disk_is_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    async with disk_over(tmp_path) as disk:
        await write(disk, 0, b"x" * PAGE)
        monkeypatch.setattr(os, "pwritev", broken)
        monkeypatch.setattr(module, "extents", broken)
        with pytest.raises(DiskFault):
            await write(disk, 0, b"y" * PAGE)
        monkeypatch.undo()
        with pytest.raises(DiskFault) as caught:
            await read(disk, 0, PAGE)
        assert caught.value.kind == "failed", "the image's bytes would be a wrong answer"


async def test_a_large_range_is_given_back_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = sparse_disk(tmp_path / "large.img", 3 * CHUNK * PAGE)
    marked: list[tuple[int, int]] = []
    async with disk_over(tmp_path, image=image) as disk:
        real = disk.overlay.mark_zeros

        def mark_zeros(_self: Overlay, first: int, end: int) -> None:
            marked.append((first, end))
            real(first, end)

        monkeypatch.setattr(Overlay, "mark_zeros", mark_zeros)
        await zero(disk, 512, 3 * CHUNK * PAGE - 512)
        assert max(end - first for first, end in marked) <= CHUNK
        assert disk.overlay.count(0, 3 * CHUNK, ZEROED) == 3 * CHUNK - 1


async def test_slow_writes_go_to_a_thread_until_they_are_fast_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with disk_over(tmp_path) as disk:
        monkeypatch.setattr("bootlink_blockstore.disk.SLOW_WRITE", -1.0)
        assert disk.write(0, b"x" * PAGE) is None
        monkeypatch.setattr("bootlink_blockstore.disk.SLOW_WRITE", 60.0)
        waiting = disk.write(0, b"x" * PAGE)
        assert waiting is not None
        await waiting
        assert disk.write(0, b"x" * PAGE) is None


async def test_writing_goes_on_inline_after_a_slow_write_though_some_are_always_on_their_way(tmp_path: Path) -> None:
    async with disk_over(tmp_path) as disk:
        disk._slow = True
        writing = [disk.write(page * PAGE, bytes([page]) * PAGE) for page in range(8)]
        assert None not in writing
        jobs = [asyncio.ensure_future(job) for job in writing if job is not None]
        later: list[Coroutine[Any, Any, None] | None] = []
        jobs[0].add_done_callback(lambda _: later.append(disk.write(8 * PAGE, b"\x08" * PAGE)))
        await asyncio.gather(*jobs)
        assert later == [None], "the first answer was given when the queue was empty"
        assert not disk._queue
        for page in range(9):
            assert await read(disk, page * PAGE, PAGE) == bytes([page]) * PAGE


async def test_a_write_now_is_a_write_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with disk_over(tmp_path) as disk:
        assert disk.write_now(PAGE, b"a" * PAGE)
        assert await read(disk, PAGE, PAGE) == b"a" * PAGE
        assert not disk.write_now(512, b"b" * PAGE), "no whole page"
        monkeypatch.setattr(os, "pwrite", lambda *_: 512)
        assert not disk.write_now(2 * PAGE, b"c" * PAGE), "not all of it"
        monkeypatch.undo()
        assert disk.overlay.count(0, 8, PRESENT) == 1
        disk.fenced = True
        assert not disk.write_now(PAGE, b"d" * PAGE)
        assert await read(disk, PAGE, PAGE) == b"a" * PAGE


async def test_a_disk_that_fails_twice_at_once_is_told_of_once_and_with_the_first_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def no_sync(_self: Overlay) -> None:
        raise OSError(errno.EIO, "no sync")

    def no_write(_self: Overlay, _offset: int, _buffers: Sequence[Buffer]) -> None:
        asyncio.run_coroutine_threadsafe(failed.wait(), loop).result(10)
        raise OSError(errno.EIO, "no write")

    def no_recall(_self: Overlay, _offset: int, _length: int) -> None:
        raise OSError(errno.EIO, "no recall")

    async with disk_over(tmp_path, durable=True) as disk:
        told: list[str] = []

        def tell(why: str) -> None:
            told.append(why)
            failed.set()

        disk.on_failure = tell
        monkeypatch.setattr(Overlay, "write", no_write)
        monkeypatch.setattr(Overlay, "recall", no_recall)
        monkeypatch.setattr(Overlay, "sync", no_sync)
        writing = disk.write(0, bytes(1 << 18))
        flushing = disk.flush()
        assert writing is not None
        assert flushing is not None
        ends = await asyncio.gather(writing, flushing, return_exceptions=True)
        assert all(isinstance(end, DiskFault) for end in ends), ends
        assert told == [disk.failed]
        assert "could not be synced" in disk.failed
