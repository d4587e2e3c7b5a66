"""A snapshot: what a running client's disk holds at one moment at which all of it was flushed.

How it works. The overlay is copied while the client writes on, and the disk notes which pages change meanwhile. Those
are copied again, round by round. Once few are left, the next flush that leaves nothing unflushed is waited for, and at
that moment what is left is copied in one go on the event loop: nothing can be written in between, and the copy holds
what a power cut at that moment would leave. A file system that was running begins again from that as it does after a
power cut, with all that its programs had synced.

A client that writes faster than its disk can be copied, or that never flushes, has no such moment: that is told, and
nothing is left behind. Nothing of any client is held up for longer than copying FINAL_PAGES takes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from bootlink_blockstore.disk import ClientDisk
from bootlink_blockstore.overlay import Overlay, zeros_path
from bootlink_blockstore.pagemap import PAGE_BITS, PRESENT, ZEROED, PageMap

FINAL_PAGES: Final = 1024  # copied on the event loop: 4 MiB from page cache to page cache, some 2 milliseconds
ROUNDS: Final = 12  # of copying what changed; a client that is ahead after so many stays ahead
PIECE: Final = 1 << 20  # bytes copied at once
FLUSH_SECONDS: Final = 10.0  # waited for a flush after each round; systems flush every 5 to 30 seconds


class NoMoment(Exception):
    """The client was never quiet enough, or has gone."""


async def snapshot(disk: ClientDisk, path: Path, executor: Executor, progress: Callable[[int], None]) -> None:
    """Make `path` an overlay with the disk's pages. `progress` is told the bytes copied, of each round.

    NoMoment or OSError if that cannot be; then there is no such file.
    """
    if disk.dirty is not None:
        raise NoMoment("another snapshot of it is being made")
    loop = asyncio.get_running_loop()
    disk.dirty = PageMap(disk.size)  # before anything is read: what changes from now on is copied again
    todo = disk.overlay.copy()
    source = os.dup(disk.overlay.fd)  # stays open where the boot closes its own
    try:
        copy = await loop.run_in_executor(executor, Overlay.create, path, disk.size)
        try:
            for _ in range(ROUNDS):
                work = partial(_copy_all, source, copy, todo, disk.overlay.copy(), progress)
                await loop.run_in_executor(executor, work)
                todo, disk.dirty = disk.dirty, PageMap(disk.size)
                if todo.pages <= FINAL_PAGES and await _finish(disk, source, copy, todo):
                    return
                if disk.failed or disk.fenced:
                    raise NoMoment(disk.failed or "its boot ended meanwhile")
                for _, first, end in todo.touched():
                    disk.dirty.mark(first, end)
                todo, disk.dirty = disk.dirty, PageMap(disk.size)
            raise NoMoment("it writes faster than its write-back can be copied, or does not flush what it writes")
        except BaseException:
            _remove(path)
            raise
        finally:
            copy.close()
    finally:
        disk.dirty = None
        os.close(source)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    zeros_path(path).unlink(missing_ok=True)


async def _finish(disk: ClientDisk, source: int, copy: Overlay, todo: PageMap) -> bool:
    """Copy what is left at the next moment at which the disk is settled. False if there was none."""
    moment: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settled() -> None:
        assert disk.dirty is not None
        if moment.done() or todo.pages + disk.dirty.pages > FINAL_PAGES:
            return
        try:
            for pages in (todo, disk.dirty):
                for _, first, end in pages.touched():
                    _copy(source, copy, first, end, disk.overlay)
        except OSError as error:
            moment.set_exception(error)
        else:
            moment.set_result(None)

    disk.on_settled = settled
    try:
        if disk.settled and not disk.fenced:
            settled()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await moment
    finally:
        disk.on_settled = lambda: None
    return moment.done() and not moment.cancelled()


def _copy_all(source: int, copy: Overlay, todo: PageMap, held: PageMap, progress: Callable[[int], None]) -> None:
    """Copy the pages that `todo` names, which are what `held` says. Blocks."""
    done = 0
    for _, first, end in todo.touched():
        _copy(source, copy, first, end, held)
        done += end - first << PAGE_BITS
        progress(done)


def _copy(source: int, copy: Overlay, first: int, end: int, held: PageMap) -> None:
    """Copy pages first..end. OSError if that fails."""
    start = first << PAGE_BITS
    for state, low, high in held.runs(start, (end << PAGE_BITS) - start):
        if state == PRESENT:
            for at in range(low, high, PIECE):
                wanted = min(PIECE, high - at)
                data = os.pread(source, wanted, at)
                if len(data) != wanted:
                    raise OSError(0, "the overlay has become shorter", str(copy.path))
                copy.write(at, [data])
        elif state == ZEROED:
            copy.mark_zeros(low >> PAGE_BITS, high >> PAGE_BITS)
            copy.punch(low >> PAGE_BITS, high >> PAGE_BITS)
        else:  # a write into it failed meanwhile, and left it to the image
            copy.punch(low >> PAGE_BITS, high >> PAGE_BITS)
