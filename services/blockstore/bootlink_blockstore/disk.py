"""One client's disk: its overlay over a shared image.

Theory of operation. A read goes page by page to the overlay, where the client wrote, and to the image elsewhere. A
client that has written nothing near is answered from the image's cache by one call (`hit`).

A write goes to the overlay alone. A page that is written in part, and that is not there yet, is made whole first with
bytes of the image around it (copy-up), or with zeros where the client gave the page back, and goes to the file in the
same system call.

Giving back (UNMAP) makes a range read as zeros, whatever the image has below: its whole pages are marked and then
punched out of the overlay; what it takes of a page at its ends is written as zeros. Nothing happens where zeros are
read already, by what was given back before or by the layers' maps.

All writes of one disk, and all that it gives back, happen in the order they came, so that two writes into one page
cannot undo each other. There are two ways:

    inline   a small write that needs no waiting: `pwritev` into the page cache on the event loop takes 2 to 5 µs
    queued   everything else: behind all earlier ones. Taken when a copy-up misses the cache, when the write is large,
             and as long as the last one was slow (the kernel throttles writers when its disk cannot follow). What is
             given back always goes this way, and so does `update`, which reads before it writes

In the queue, what is large, or was slow lately, is written by a thread, and the rest by the event loop: so one fast
write in the thread empties the queue at once, and brings the inline way back also for a client that always has some on
their way. How long a write took is looked at where it runs; how long the event loop took to hear of it says nothing.

While anything is queued, nothing goes inline. Reads never wait for writes.

Promises (DESIGN, section 4). A write that returned survives the death of this process: it is in the page cache. A
flush that returned survives a power cut, where the disk is `durable` (policy keep); a discard disk is gone at the next
boot anyway, and flushes at no cost. A power cut never brings the image back under a page that was written or given
back: on a durable disk the marks are synced before anything is punched. After a failed sync the disk is failed for
good: the kernel may have dropped what it could not write, and would say yes the next time. A fenced disk (a newer boot
took over) takes no write.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Executor
from typing import Any, Final

from bootlink_blockstore.cache import BLOCK, ZEROS
from bootlink_blockstore.image import Buffer, Buffers, Image
from bootlink_blockstore.overlay import Overlay
from bootlink_blockstore.pagemap import ABSENT, CHUNK, PAGE, PAGE_BITS, PRESENT, ZEROED, PageMap
from bootlink_blockstore.pressure import Allowance

INLINE_READ: Final = 131_072  # bytes of the overlay that one read may copy from the page cache on the event loop
INLINE_WRITE: Final = 65_536  # bytes; copying more into the page cache would hold the event loop for over 20 µs
SLOW_WRITE: Final = 0.001  # seconds; two hundred times what a 4 KiB write into the page cache takes
OUT_OF_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


Edge = tuple[int, int, int, int]  # start, end within the disk, end of the page or start of the data; the page's state
Change = Callable[[bytes], bytes | None]


class DiskFault(Exception):
    """The disk cannot do it. `kind` is read, write, space, fenced or failed."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ClientDisk:
    """One client's disk. Offsets and lengths are bytes, multiples of 512 and within `size`; callers see to that.

    `read` gives buffers, `write`, `zero` and `flush` give None, or each a coroutine that must be awaited. DiskFault if
    it cannot be.
    """

    def __init__(
        self,
        image: Image,
        overlay: Overlay,
        executor: Executor,
        *,
        durable: bool,
        allowance: Allowance | None = None,  # shared by all disks of a client
    ) -> None:
        self.image = image
        self.overlay = overlay
        self.size = image.size
        self.durable = durable
        self.failed = ""
        # Told once, when the disk has failed for good. What it gives is awaited before a flush is answered.
        self.on_failure: Callable[[str], Awaitable[None] | None] = lambda _why: None
        self.fenced = False
        self.changes = 0  # writes and trims so far: the same number later means that nothing was written in between
        self.dirty: PageMap | None = None  # where somebody wants to know: the pages that changed since this was set
        # Called when a flush leaves nothing unflushed, before any further write (see `settled`).
        self.on_settled: Callable[[], None] = lambda: None
        self._flushed = -1 if overlay.chunks else 0  # `changes` when the last flush began; what was there is not known
        self._executor = executor
        self._queue: deque[tuple[Coroutine[Any, Any, None], asyncio.Future[None]]] = deque()  # the first is under way
        self._worker: asyncio.Task[None] | None = None  # while there is a queue
        self._syncing = asyncio.Lock()
        self._slow = False
        self._allowance = Allowance() if allowance is None else allowance
        self._counted = 0  # pages that the allowance knows of
        self._account()

    @property
    def settled(self) -> bool:
        """Was everything that was written flushed since, and is nothing on its way? Then the bytes are those that a
        power cut would leave, of which a file system knows how to begin again."""
        return self._flushed == self.changes and not self._queue

    def hit(self, offset: int, length: int) -> Buffer | None:
        """The bytes, where the client did not write and one cached block holds them; None if it is less simple."""
        if (self.overlay.chunks and self.overlay.touches(offset, length)) or self.failed:
            return None
        return self.image.hit(offset, length)

    def hit_blocks(self, offset: int, length: int) -> Buffers | None:
        """The same where several cached blocks hold them."""
        if (self.overlay.chunks and self.overlay.touches(offset, length)) or self.failed:
            return None
        return self.image.hit_blocks(offset, length)

    def read(self, offset: int, length: int) -> Buffers | Coroutine[Any, Any, Buffers]:
        """The bytes [offset, offset + length)."""
        if self.failed:
            raise DiskFault("failed", self.failed)
        overlay = self.overlay
        if not overlay.chunks or not overlay.touches(offset, length):
            buffers = self.image.read(offset, length)
            return buffers if isinstance(buffers, list) else self._gather([buffers])
        parts: list[Buffers | Coroutine[Any, Any, Buffers]] = []
        for state, start, end in overlay.runs(offset, length):
            if state == ZEROED:
                parts.append(_zeros(end - start))
            elif state == PRESENT:
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

    def write_now(self, offset: int, data: Buffer) -> bool:
        """Write whole pages, if that needs no waiting. False: `write` does it all again, or says what is wrong."""
        length = len(data)
        if self._queue or self._slow or self.failed or self.fenced or (offset | length) & PAGE - 1:
            return False
        if length > INLINE_WRITE or not self._allowance.fits(length >> PAGE_BITS):  # `write` looks closer
            return False
        started = time.perf_counter()
        if not self.overlay.write_now(offset, data):
            return False
        self._mark(offset, length)
        self._slow = time.perf_counter() - started > SLOW_WRITE
        return True

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> Coroutine[Any, Any, None] | None:
        """Write. None: it is done. `fua`: return only when it survives what a flush survives."""
        self._require_writable()
        sync = fua and self.durable
        if not (self._queue or self._slow or sync) and len(data) <= INLINE_WRITE:
            started = time.perf_counter()
            edges = self._edges(offset, len(data))
            fillings = self._edges_now(edges)
            if fillings is not None:
                self._require_room(offset, len(data))
                start, pieces = _whole_pages(offset, data, edges, fillings)
                try:
                    self.overlay.write(start, pieces)
                except OSError as error:
                    raise self._write_fault(error, start, sum(map(len, pieces))) from error
                self._mark(offset, len(data))
                self._slow = time.perf_counter() - started > SLOW_WRITE
                return None
        return self._queue_up(self._put(offset, data), sync=sync)

    def zero(self, offset: int, length: int) -> Coroutine[Any, Any, None] | None:
        """The range reads as zeros from now on, and its whole pages give their space back. None: it did so already."""
        self._require_writable()
        if not self._queue and length <= CHUNK << PAGE_BITS and self._reads_zeros(offset, length):
            return None
        return self._queue_up(self._zero(offset, length))

    def update(self, offset: int, length: int, change: Change, *, fua: bool = False) -> Coroutine[Any, Any, None]:
        """Read, change and write as one step among the writes of this disk.

        `change` gets the bytes and gives as many, or None to leave them as they are. What it raises is passed on.
        """
        self._require_writable()
        return self._queue_up(self._update(offset, length, change), sync=fua and self.durable)

    def mapped(self, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
        """The range as runs (mapped?, start, end) in bytes, in order, without reading anything; neighbours differ.

        Not mapped is what the client gave back, and what it did not touch where the layers' maps say zeros.
        """
        held: tuple[bool, int, int] | None = None
        for state, start, end in self.overlay.runs(offset, length):
            plain = ((not zeros, low, high) for zeros, low, high in self.image.zeros(start, end - start))
            for run in plain if state == ABSENT else [(state == PRESENT, start, end)]:
                if held is not None and held[0] == run[0]:
                    held = (held[0], held[1], run[2])
                else:
                    if held is not None:
                        yield held
                    held = run
        if held is not None:
            yield held

    def _queue_up(self, doing: Coroutine[Any, Any, None], *, sync: bool = False) -> Coroutine[Any, Any, None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._queue.append((doing, done))  # now, not only once the coroutine runs: the next write must not overtake
        if self._worker is None:
            self._worker = loop.create_task(self._work(), name=f"writes {self.overlay.path.name}")
        return self._queued_up(done, sync)

    async def _queued_up(self, done: asyncio.Future[None], sync: bool) -> None:
        """One that waits until it was done in its turn, and syncs, if it must, outside of the queue."""
        await done
        if sync:
            await self._sync()

    async def _work(self) -> None:
        """Do what is in the queue, one after the other, until it is empty."""
        while self._queue:
            doing, done = self._queue[0]
            try:
                self._require_writable()
                await doing
            except Exception as error:
                if not done.cancelled():
                    done.set_exception(error)
            else:
                if not done.cancelled():
                    done.set_result(None)
            doing.close()  # no harm to one that has run
            self._queue.popleft()
        self._worker = None

    # In the queue, one at a time

    async def _put(self, offset: int, data: Buffer) -> None:
        edges = self._edges(offset, len(data))
        fillings = [await self._gather([self._around(edge)]) for edge in edges]
        start, pieces = _whole_pages(offset, data, edges, fillings)
        self._require_room(offset, len(data))
        growth = self._growth(offset, len(data))
        self._allowance.promise(growth)
        try:
            if self._slow or len(data) > INLINE_WRITE:
                await self._in_thread(self._write_timed, start, pieces)
            else:
                self._write_timed(start, pieces)
        except OSError as error:
            raise self._write_fault(error, start, sum(map(len, pieces))) from error
        finally:
            self._allowance.promise(-growth)
        self._mark(offset, len(data))

    def _write_timed(self, start: int, pieces: Buffers) -> None:
        """Write, and note whether that was slow. On the event loop or in the thread of the one write under way."""
        started = time.perf_counter()
        self.overlay.write(start, pieces)
        self._slow = time.perf_counter() - started > SLOW_WRITE

    async def _update(self, offset: int, length: int, change: Change) -> None:
        held = self.read(offset, length)
        data = change(b"".join(held if isinstance(held, list) else await held))
        if data is not None:
            await self._put(offset, data)

    async def _zero(self, offset: int, length: int) -> None:
        stop = offset + length
        first = -(-offset >> PAGE_BITS)
        end = -(-stop >> PAGE_BITS) if stop == self.size else stop >> PAGE_BITS  # the last page may be a part of one
        parts = [(offset, stop)] if first >= end else [(offset, first << PAGE_BITS), (end << PAGE_BITS, stop)]
        if first < end:  # before the rest, as this makes room for it
            await self._zero_pages(first, end)
        for low, high in parts:
            if low < high and not self._reads_zeros(low, high - low):
                await self._put(low, bytes(high - low))

    async def _zero_pages(self, first: int, end: int) -> None:
        """Mark, sync the marks if the disk is durable, and punch: in pieces, so that no thread is held for long."""
        held: list[tuple[int, int]] = []
        for piece in range(first, end, CHUNK):
            for low, high in self._not_zeros(piece, min(end, piece + CHUNK)):
                await self._give_back(self.overlay.mark_zeros, low, high)
                self.overlay.mask(low, high)
                self._changed(low, high)
                if self.overlay.count(low, high, PRESENT):
                    held.append((low, high))
            await asyncio.sleep(0)
        if held and self.durable:
            await self._sync(self.overlay.sync_marks)
        for low, high in held:
            await self._give_back(self.overlay.punch, low, high)
            self.overlay.mark(low, high, ZEROED)
            self._changed(low, high)
            self._account()

    async def _give_back(self, work: Callable[[int, int], None], first: int, end: int) -> None:
        try:
            await self._in_thread(work, first, end)
        except OSError as error:
            raise self._write_fault(error, first << PAGE_BITS, end - first << PAGE_BITS) from error

    def _not_zeros(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """What must be done about pages first..end, in few pieces: pages that read as zeros already may be in them."""
        start = first << PAGE_BITS
        low = first
        if self.overlay.count(first, end, ZEROED) == end - first:
            return
        for zeros, run, stop in self.image.zeros(start, min(self.size, end << PAGE_BITS) - start):
            if zeros:
                inside = max(low, -(-run >> PAGE_BITS))
                until = end if stop == self.size else stop >> PAGE_BITS
                if inside < until and not self.overlay.count(inside, until, PRESENT):
                    if low < inside:
                        yield low, inside
                    low = until
        if low < end:
            yield low, end

    def _reads_zeros(self, offset: int, length: int) -> bool:
        """Whether nothing but zeros can be read of a range, as far as the maps say."""
        return not any(mapped for mapped, _, _ in self.mapped(offset, length))

    def flush(self, *, queued: bool = False) -> Coroutine[Any, Any, None] | None:
        """All writes that returned survive a power cut, if the disk is durable; or also those that are `queued`."""
        if self.failed:
            raise DiskFault("failed", self.failed)
        if not self.durable:
            if not self._queue:
                self._now_flushed(self.changes)
            return None
        return self._queue_up(asyncio.sleep(0), sync=True) if queued and self._queue else self._sync()

    async def _sync(self, work: Callable[[], None] | None = None) -> None:
        # One at a time: the kernel tells an error to one caller only, and the other must not say yes before that.
        async with self._syncing:
            if not self.failed:
                changes = self.changes
                try:
                    await self._in_thread(work or self.overlay.sync)
                except OSError as error:
                    noting = self._fail(f"{self.overlay.path} could not be synced: {error.strerror}")
                    if noting is not None:
                        await noting  # who dies now must not come back and believe the kernel's next yes
                else:
                    if work is None:
                        self._now_flushed(changes)
        if self.failed:
            raise DiskFault("failed", self.failed)

    def _now_flushed(self, changes: int) -> None:
        self._flushed = changes
        if self.settled:
            self.on_settled()

    async def fence(self) -> None:
        """No write lands from now on: those that have not begun fail, and what is under way is waited for."""
        self.fenced = True
        if self._worker is not None:
            await asyncio.wait((self._worker,))
        async with self._syncing:
            pass

    def _require_writable(self) -> None:
        if self.failed:
            raise DiskFault("failed", self.failed)
        if self.fenced:
            raise DiskFault("fenced", "a newer boot of this client has taken over")

    def _fail(self, why: str) -> Awaitable[None] | None:
        if self.failed:  # the first cause stands, and was told: a write may end in an error after a sync has
            return None
        self.failed = why
        return self.on_failure(why)

    def _edges(self, offset: int, length: int) -> list[Edge]:
        """What a write leaves out of pages that are not present."""
        edges = []
        end = offset + length
        head, tail = offset & PAGE - 1, end & PAGE - 1
        if head and (state := self.overlay.state(offset >> PAGE_BITS)) != PRESENT:
            edges.append((offset - head, offset, offset, state))
        if tail and (state := self.overlay.state(end >> PAGE_BITS)) != PRESENT:
            stop = end - tail + PAGE
            edges.append((end, min(stop, self.size), stop, state))
        return edges

    def _around(self, edge: Edge) -> Buffers | Coroutine[Any, Any, Buffers]:
        """The bytes of one edge: the image's, or zeros where the client gave the page back."""
        low, high, _, state = edge
        if high <= low:
            return []
        return _zeros(high - low) if state == ZEROED else self.image.read(low, high - low)

    def _edges_now(self, edges: list[Edge]) -> list[Buffers] | None:
        """The bytes of all edges; None if some are not at hand."""
        fillings = []
        for edge in edges:
            filling = self._around(edge)
            if not isinstance(filling, list):
                filling.close()
                return None
            fillings.append(filling)
        return fillings

    def _write_fault(self, error: OSError, start: int, length: int) -> DiskFault:
        """What a failure is told as. What did happen to pages counts from now on, and not from the next opening."""
        try:
            self.overlay.recall(start, length)
        except (OSError, ValueError) as worse:
            # Which pages are there is not known any more, and a wrong answer would be the image's bytes.
            self._fail(f"{self.overlay.path} cannot be made out after an error ({error.strerror}): {worse}")
        self._changed(start >> PAGE_BITS, -(-(start + length) >> PAGE_BITS))
        self._account()
        kind = "space" if error.errno in OUT_OF_SPACE else "write"
        return DiskFault(kind, f"{self.overlay.path}: {error.strerror}")

    async def _in_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    def _require_room(self, offset: int, length: int) -> None:
        """DiskFault if the client may not have as many pages as a write adds."""
        allowance = self._allowance
        if allowance.fits(-(-(offset + length) >> PAGE_BITS) - (offset >> PAGE_BITS)):  # whatever is there already
            return
        growth = self._growth(offset, length)
        if growth and not allowance.fits(growth):
            allowance.refuse()
            raise DiskFault("space", f"the write-back has reached its limit of {allowance.limit} bytes")

    def _growth(self, offset: int, length: int) -> int:
        """How many pages a write adds."""
        first, end = offset >> PAGE_BITS, -(-(offset + length) >> PAGE_BITS)
        return end - first - self.overlay.count(first, end, PRESENT)

    def _mark(self, offset: int, length: int) -> None:
        first, end = offset >> PAGE_BITS, -(-(offset + length) >> PAGE_BITS)
        self.overlay.mark(first, end)
        self.changes += 1
        if self.dirty is not None:
            self.dirty.mark(first, end)
        self._account()

    def _changed(self, first: int, end: int) -> None:
        self.changes += 1
        if self.dirty is not None:
            self.dirty.mark(first, end)

    def _account(self) -> None:
        """Tell the allowance what has changed."""
        pages = self.overlay.pages
        if pages != self._counted:
            change, self._counted = pages - self._counted, pages
            self._allowance.changed(change)


def _zeros(length: int) -> Buffers:
    """So many bytes of zeros, as views of one block of them."""
    whole, rest = divmod(length, BLOCK)
    return [ZEROS] * whole + ([memoryview(ZEROS)[:rest]] if rest else [])


def _whole_pages(offset: int, data: Buffer, edges: list[Edge], fillings: list[Buffers]) -> tuple[int, Buffers]:
    """Where to write and what: the data, with the image's bytes around it."""
    start, pieces = offset, [data]
    for (low, high, stop, _), filling in zip(edges, fillings, strict=True):
        if low < offset:
            start, pieces = low, filling + pieces
        else:
            # The disk may end within its last page: what is beyond is zeros, so that the page is whole.
            pieces = [*pieces, *filling, bytes(stop - high)]
    return start, pieces
