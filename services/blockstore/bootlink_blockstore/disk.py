"""One client's disk: its overlay over a shared image.

Theory of operation. A read goes page by page to the overlay, where the client wrote, and to the image elsewhere. A
client that has written nothing near is answered from the image's cache by one call (`hit`).

A write goes to the overlay alone. A page that is written in part, and that is not there yet, is made whole first with
bytes of the image around it (copy-up), and goes to the file in the same system call.

All writes of one disk happen in the order they came, so that two writes into one page cannot undo each other. There
are two ways:

    inline   a small write that needs no waiting: `pwritev` into the page cache on the event loop takes 2 to 5 µs
    queued   everything else: behind all earlier ones, in a thread. Taken when a copy-up misses the cache, when the
             write is large, and as long as the last one was slow (the kernel throttles writers when its disk cannot
             follow); a fast one in the thread brings the inline way back

While anything is queued, nothing goes inline. Reads never wait for writes.

Promises (DESIGN, section 4). A write that returned survives the death of this process: it is in the page cache. A
flush that returned survives a power cut, where the disk is `durable` (policy keep); a discard disk is gone at the next
boot anyway, and flushes at no cost. After a failed sync the disk is failed for good: the kernel may have dropped what
it could not write, and would say yes the next time. A fenced disk (a newer boot took over) takes no write.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, Final

from bootlink_blockstore.image import Buffer, Buffers, Image
from bootlink_blockstore.overlay import PAGE, PAGE_BITS, Overlay

INLINE_READ: Final = 131_072  # bytes of the overlay that one read may copy from the page cache on the event loop
INLINE_WRITE: Final = 65_536  # bytes; copying more into the page cache would hold the event loop for over 20 µs
SLOW_WRITE: Final = 0.001  # seconds; two hundred times what a 4 KiB write into the page cache takes
OUT_OF_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


Edge = tuple[int, int, int]  # (start, end within the disk, end of the page or start of the data), in bytes


class DiskFault(Exception):
    """The disk cannot do it. `kind` is read, write, space, fenced or failed."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ClientDisk:
    """One client's disk. Offsets and lengths are bytes, multiples of 512 and within `size`; callers see to that.

    `read` gives buffers, `write` and `flush` give None, or each a coroutine that must be awaited. DiskFault if not.
    """

    def __init__(self, image: Image, overlay: Overlay, executor: Executor, *, durable: bool) -> None:
        self.image = image
        self.overlay = overlay
        self.size = image.size
        self.durable = durable
        self.failed = ""
        self.on_failure: Callable[[str], None] = lambda _why: None  # told once, when the disk has failed for good
        self.fenced = False
        self._executor = executor
        self._queue = asyncio.Lock()  # first come, first served
        self._queued = 0
        self._syncing = asyncio.Lock()
        self._slow = False

    def hit(self, offset: int, length: int) -> memoryview | None:
        """The bytes, where the client did not write and one cached block holds them; None if it is less simple."""
        if (self.overlay.chunks and self.overlay.touches(offset, length)) or self.failed:
            return None
        return self.image.hit(offset, length)

    def read(self, offset: int, length: int) -> Buffers | Coroutine[Any, Any, Buffers]:
        """The bytes [offset, offset + length)."""
        if self.failed:
            raise DiskFault("failed", self.failed)
        overlay = self.overlay
        if not overlay.chunks or not overlay.touches(offset, length):
            buffers = self.image.read(offset, length)
            return buffers if isinstance(buffers, list) else self._gather([buffers])
        parts: list[Buffers | Coroutine[Any, Any, Buffers]] = []
        for present, start, end in overlay.runs(offset, length):
            if present:
                data = overlay.read_now(start, end - start) if length <= INLINE_READ else None
                parts.append(self._read_overlay(start, end - start) if data is None else [data])
            else:
                parts.append(self.image.read(start, end - start))
        if all(isinstance(part, list) for part in parts):
            return [buffer for part in parts if isinstance(part, list) for buffer in part]
        return self._gather(parts)

    async def _gather(self, parts: list[Buffers | Coroutine[Any, Any, Buffers]]) -> Buffers:
        buffers: Buffers = []
        try:
            for part in parts:
                buffers += part if isinstance(part, list) else await part
        except Exception as error:
            for part in parts:
                if not isinstance(part, list):
                    part.close()  # no harm to those that have run
            raise DiskFault("read", str(error)) from error
        return buffers

    async def _read_overlay(self, offset: int, length: int) -> Buffers:
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._executor, self.overlay.read, offset, length)]

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> Coroutine[Any, Any, None] | None:
        """Write. None: it is done. `fua`: return only when it survives what a flush survives."""
        self._require_writable()
        sync = fua and self.durable
        if not (self._queued or self._slow or sync) and len(data) <= INLINE_WRITE:
            started = time.perf_counter()
            edges = self._edges(offset, len(data))
            fillings = self._edges_now(edges)
            if fillings is not None:
                start, pieces = _whole_pages(offset, data, edges, fillings)
                try:
                    self.overlay.write(start, pieces)
                except OSError as error:
                    raise self._write_fault(error, start, pieces) from error
                self._mark(offset, len(data))
                self._slow = time.perf_counter() - started > SLOW_WRITE
                return None
        self._queued += 1  # from here on, not only once the coroutine runs: the next write must not overtake
        return self._write_queued(offset, data, sync)

    async def _write_queued(self, offset: int, data: Buffer, sync: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with self._queue:
                self._require_writable()
                edges = self._edges(offset, len(data))
                fillings = [await self._gather([self._around(low, high)]) for low, high, _ in edges]
                start, pieces = _whole_pages(offset, data, edges, fillings)
                started = time.perf_counter()
                try:
                    await loop.run_in_executor(self._executor, self.overlay.write, start, pieces)
                except OSError as error:
                    raise self._write_fault(error, start, pieces) from error
                self._mark(offset, len(data))
                self._slow = time.perf_counter() - started > SLOW_WRITE
        finally:
            self._queued -= 1
        if sync:
            await self._sync()

    def flush(self) -> Coroutine[Any, Any, None] | None:
        """All writes that returned survive a power cut, if the disk is durable."""
        if self.failed:
            raise DiskFault("failed", self.failed)
        return self._sync() if self.durable else None

    async def _sync(self) -> None:
        # One at a time: the kernel tells an error to one caller only, and the other must not say yes before that.
        async with self._syncing:
            if not self.failed:
                try:
                    await asyncio.get_running_loop().run_in_executor(self._executor, self.overlay.sync)
                except OSError as error:
                    self.failed = f"{self.overlay.path} could not be synced: {error.strerror}"
                    self.on_failure(self.failed)
        if self.failed:
            raise DiskFault("failed", self.failed)

    async def fence(self) -> None:
        """No write lands from now on: those that have not begun fail, and one that is under way is waited for."""
        self.fenced = True
        async with self._queue:
            pass

    def _require_writable(self) -> None:
        if self.failed:
            raise DiskFault("failed", self.failed)
        if self.fenced:
            raise DiskFault("fenced", "a newer boot of this client has taken over")

    def _edges(self, offset: int, length: int) -> list[Edge]:
        """What a write leaves out of pages that are absent."""
        edges = []
        end = offset + length
        head, tail = offset & PAGE - 1, end & PAGE - 1
        if head and not self.overlay.present(offset >> PAGE_BITS):
            edges.append((offset - head, offset, offset))
        if tail and not self.overlay.present(end >> PAGE_BITS):
            stop = end - tail + PAGE
            edges.append((end, min(stop, self.size), stop))
        return edges

    def _around(self, low: int, high: int) -> Buffers | Coroutine[Any, Any, Buffers]:
        """The image's bytes of one edge."""
        return self.image.read(low, high - low) if high > low else []

    def _edges_now(self, edges: list[Edge]) -> list[Buffers] | None:
        """The image's bytes of all edges; None if some are not at hand."""
        fillings = []
        for low, high, _ in edges:
            filling = self._around(low, high)
            if not isinstance(filling, list):
                filling.close()
                return None
            fillings.append(filling)
        return fillings

    def _write_fault(self, error: OSError, start: int, pieces: Buffers) -> DiskFault:
        """What a failed write is told as. Pages that it did write count from now on, and not from the next opening."""
        with contextlib.suppress(OSError):
            self.overlay.recall(start, sum(map(len, pieces)))
        kind = "space" if error.errno in OUT_OF_SPACE else "write"
        return DiskFault(kind, f"{self.overlay.path}: {error.strerror}")

    def _mark(self, offset: int, length: int) -> None:
        self.overlay.mark(offset >> PAGE_BITS, -(-(offset + length) >> PAGE_BITS))


def _whole_pages(offset: int, data: Buffer, edges: list[Edge], fillings: list[Buffers]) -> tuple[int, Buffers]:
    """Where to write and what: the data, with the image's bytes around it."""
    start, pieces = offset, [data]
    for (low, high, stop), filling in zip(edges, fillings, strict=True):
        if low < offset:
            start, pieces = low, filling + pieces
        else:
            # The disk may end within its last page: what is beyond is zeros, so that the page is whole.
            pieces = [*pieces, *filling, bytes(stop - high)]
    return start, pieces
