"""Images: stacks of immutable layers, read through the RAM cache and shared by all clients.

Theory of operation. An image is a stack of layers, top first. Each block (32 KiB) belongs to the topmost layer that
says anything about it, and is cached on that layer's shelf: a block that only the base holds is cached once, however
many versions and clients stand on it. Whose a block is, is found by the layers' maps when it is first read, and kept
as one byte per block where there is more than one layer.

A read is one of

    hit      all blocks are in the cache: a list of slices, at once
    mark     a block that was read ahead and stands apart (see `readahead`): as a hit, and more is read ahead
    warm     `preadv` with RWF_NOWAIT found the bytes in the page cache: put into the cache, then as a hit
    miss     a coroutine: the blocks are read in a thread. Whoever wants a block that is on its way waits for that one

So the event loop never waits for a disk, and concurrent misses on one block read it once. What a read finds by waiting
for another's counts as a use of the block, as a hit does. A read that fails leaves nothing in the cache; all who
waited for the block that failed are told, and the next read tries again.

Deliberately not here: writes (an image is immutable), which layers are open (`library`), how files are read
(`reading`), what goes from the cache (`cache`) and how far to read ahead (`readahead`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Final

from bootlink_blockstore import readahead
from bootlink_blockstore.cache import BLOCK, BLOCK_BITS, LAST, PIECE_BITS, SPENT, USE, ZEROS, Cache, Shelf
from bootlink_blockstore.readahead import JOB_BLOCKS, WINDOW_LEAST, Streams, Window
from bootlink_blockstore.reading import RUN_BLOCKS, Extent, Flight, Job, Layer, Readers, read_now, resolve

Buffer = bytes | memoryview
Buffers = list[Buffer]

MASK: Final = BLOCK - 1
COPIED: Final = 4_096  # bytes: copying so few is cheaper than the two objects of a view
INLINE_BLOCKS: Final = 8  # blocks that one read may copy from the page cache on the event loop: about 80 µs
HELD_LOOK: Final = 16  # held blocks behind a miss that a sequence may go through (512 KiB)
LOCATED_LIMIT: Final = 64  # blocks whose places are known and not yet asked for: those of a long read
LOOK_UPS: Final = 128  # in layers' maps for one window: with stacks of differencing disks each takes some 10 µs
UNKNOWN: Final = 0  # in Image._owners


class Image:
    """A stack of layers as one read-only disk of `size` bytes, for any number of clients."""

    __slots__ = (
        "_blocks",
        "_cache",
        "_located",
        "_owners",
        "_readers",
        "_scratch",
        "_shelf",
        "_shelves",
        "_streams",
        "layers",
        "size",
    )

    def __init__(self, layers: Sequence[Layer], cache: Cache, readers: Readers) -> None:
        self.layers = tuple(layers)
        self.size = layers[0].open.size
        self._blocks = -(-self.size >> BLOCK_BITS)
        self._cache = cache
        self._readers = readers
        self._streams = Streams(readahead.most(cache.budget))
        # A block whose owner is not known is looked for on a shelf that stays empty.
        self._shelves = (Shelf(0, 0), *(layer.shelf for layer in layers))
        self._shelf = layers[0].shelf
        self._owners = bytearray(self._blocks) if len(layers) > 1 else None
        self._located: dict[int, list[Extent]] = {}
        self._scratch = memoryview(bytearray(BLOCK))

    def hit(self, offset: int, length: int) -> Buffer | None:
        """The bytes, if they lie in one block and that is in the cache."""
        at = offset & MASK
        end = at + length
        if end > BLOCK:
            return None
        block = offset >> BLOCK_BITS
        owners = self._owners
        shelf = self._shelf if owners is None else self._shelves[owners[block]]
        data = shelf.blocks.get(block)
        if data is None:
            return None
        # What `Shelf.touch` does: a call would cost as much again.
        shelf.hits += 1
        where = (at >> PIECE_BITS) + 1
        state = shelf.state
        known = state[block]
        if where <= known & LAST and known < SPENT:
            known += USE
        state[block] = known & SPENT | where
        if length <= COPIED:
            return data[at:end]
        return data if length == BLOCK else memoryview(data)[at:end]

    def hit_blocks(self, offset: int, length: int) -> Buffers | None:
        """The bytes, if all blocks that they lie in are in the cache."""
        first, last = offset >> BLOCK_BITS, offset + length - 1 >> BLOCK_BITS
        owners = self._owners
        found, shelves = [], []
        for block in range(first, last + 1):
            shelf = self._shelf if owners is None else self._shelves[owners[block]]
            data = shelf.blocks.get(block)
            if data is None:
                return None
            found.append(data)
            shelves.append(shelf)
        at = start = offset & MASK
        for block, shelf in enumerate(shelves, first):
            shelf.hits += 1
            shelf.touch(block, start)
            start = 0
        return _cut(found, at, length)

    def read(self, offset: int, length: int) -> Buffers | Coroutine[Any, Any, Buffers]:
        """The bytes [offset, offset + length), at once where possible. OSError or DiskError if a layer fails."""
        first, last = offset >> BLOCK_BITS, offset + length - 1 >> BLOCK_BITS
        at = offset & MASK
        found: list[bytes] = []
        held: list[int] = []
        inline = INLINE_BLOCKS
        for block in range(first, last + 1):
            data = self._held(block)
            if data is not None:
                held.append(block)
            else:
                inline -= 1
                data = self._warm(block, at if block == first else 0) if inline >= 0 else None
                if data is None:
                    return self._miss(offset, length, frozenset(range(first, block)).difference(held))
            found.append(data)
        # Only now that nothing is missing: `_miss` looks at all of them again, and one read is one use.
        for block in held:
            self._use(block, at if block == first else 0)
        return _cut(found, at, length)

    def _held(self, block: int) -> bytes | None:
        """The block, if it is in the cache."""
        shelf = self._layer(block).shelf
        data = shelf.blocks.get(block)
        if data is None and block in shelf.marks:
            data = shelf.claim(block)
            window = self._streams.reached(block, self._wasted())
            if window is not None:
                self._read_ahead(window)
        return data

    def _use(self, block: int, at: int) -> None:
        shelf = self._layer(block).shelf
        shelf.hits += 1
        shelf.touch(block, at)

    def zeros(self, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
        """The range as runs (zeros by the layers' maps?, start, end) in bytes, in order, without reading anything."""
        for layer, _, size in resolve(self.layers, 0, offset, length)[0]:
            yield layer is None, offset, offset + size
            offset += size

    def _layer(self, block: int) -> Layer:
        """Whose the block is."""
        owners = self._owners
        if owners is None:
            return self.layers[0]
        if owners[block] == UNKNOWN:
            if len(self._located) >= LOCATED_LIMIT:
                self._located.clear()
            self._located[block] = self._locate(block)
        return self.layers[owners[block] - 1]

    def _extents(self, block: int) -> list[Extent]:
        """Where the bytes of a block live, in order. Whoever asked whose it is asks this next, so that is at hand."""
        return self._located.pop(block, None) or self._locate(block)

    def _locate(self, block: int) -> list[Extent]:
        """Where they live, by the layers' maps; and note whose the block is."""
        start = block << BLOCK_BITS
        extents, top = resolve(self.layers, 0, start, min(BLOCK, self.size - start))
        if self._owners is not None:
            self._owners[block] = top + 1
        return extents

    def _warm(self, block: int, at: int) -> bytes | None:
        """The block, if that takes no waiting; it is in the cache then."""
        layer = self._layer(block)
        if block in layer.flights:
            return None
        data = read_now(self._extents(block), self._scratch)
        if data is None:
            return None
        self._streams.passed(block)
        layer.shelf.misses += 1
        return self._land(layer, block, data, at)

    async def _miss(self, offset: int, length: int, fresh: frozenset[int]) -> Buffers:
        """The same read, with the missing blocks read in threads. `fresh`: blocks that it has brought in already."""
        first, last = offset >> BLOCK_BITS, offset + length - 1 >> BLOCK_BITS
        at = offset & MASK
        found: dict[int, bytes] = {}
        missed: set[int] = set()
        # Another round only where a read of others ended before it came to a block of ours: see `read_blocks`.
        while len(found) <= last - first:
            absent: list[int] = []
            # By flight: what of it is ours. Its other blocks may be another layer's in this stack.
            waits: dict[Flight, list[int]] = {}
            for block in range(first, last + 1):
                if block in found:
                    continue
                data = self._held(block)
                layer = self._layer(block)
                if data is not None:
                    found[block] = data
                    if block not in fresh and block not in missed:
                        self._use(block, at if block == first else 0)
                    continue
                if block not in missed:
                    missed.add(block)
                    layer.shelf.misses += 1
                if block in layer.flights:
                    waits.setdefault(layer.flights[block], []).append(block)
                else:
                    absent.append(block)
            own = {self._depart(run, first, at): run for run in _runs(absent)}
            if absent:
                window = self._streams.missed(absent[0], self._next_absent(last + 1), self._wasted())
                if window is not None:
                    self._read_ahead(window)
            for flight, blocks in (own | waits).items():
                # Shielded: others may wait for the same flight, whatever becomes of this read.
                landed = await asyncio.shield(flight)
                for block in blocks:
                    if block in landed.failed:
                        raise landed.failed[block].with_traceback(None)
                    if block in landed.blocks:
                        found[block] = landed.blocks[block]
                        if flight not in own and self._held(block) is not None:
                            self._layer(block).shelf.touch(block, at if block == first else 0)
            if len(found) <= last - first:
                await asyncio.sleep(0)  # a read that has just ended is taken out of `flights` by a callback
        return _cut([found[block] for block in range(first, last + 1)], at, length)

    def _next_absent(self, block: int) -> int:
        """The first block from this one on that is not held, as far as is worth a look."""
        for number in range(block, min(block + HELD_LOOK, self._blocks)):
            if number not in self._layer(number).shelf:
                return number
        return block

    def _depart(self, blocks: list[int], first: int, at: int) -> Flight:
        """Read blocks in a thread, and put them into the cache when they are there."""
        flight = self._readers.wanted([(block, self._extents(block)) for block in blocks])
        self._fly(flight, blocks)
        flight.add_done_callback(partial(self._landed, blocks, first, at))
        return flight

    def _read_ahead(self, window: Window) -> None:
        """Read what is absent of the window, as far as threads are free."""
        size = min(window.size, max(WINDOW_LEAST, LOOK_UPS // len(self.layers)))
        block, stop = window.start, min(window.start + size, self._blocks)
        launched: list[int] = []
        while block < stop:
            jobs: list[Job] = []
            begin = block
            while block < stop and len(jobs) < JOB_BLOCKS:
                layer = self._layer(block)
                if block not in layer.shelf and block not in layer.flights:
                    jobs.append((block, self._extents(block)))
                elif jobs:
                    break
                block += 1
            if not jobs:
                break
            flight = self._readers.ahead(jobs)
            if flight is None:
                block = begin
                break
            blocks = [number for number, _ in jobs]
            self._fly(flight, blocks)
            flight.add_done_callback(partial(self._landed, blocks, -1, 0))
            launched += blocks
        self._streams.launched(window, block, launched[len(launched) // 2] if launched else None)

    def _fly(self, flight: Flight, blocks: list[int]) -> None:
        for block in blocks:
            self._layer(block).flights[block] = flight

    def _landed(self, blocks: list[int], first: int, at: int, flight: Flight) -> None:
        """Put what was read into the cache. `first` is the block where its reader begins, at `at`; -1: read ahead."""
        for block in blocks:
            self._layer(block).flights.pop(block, None)
        if flight.cancelled() or flight.exception() is not None:
            return
        for block, data in flight.result().blocks.items():
            layer = self._layer(block)
            if first < 0:
                layer.shelf.ahead += 1
                self._land(layer, block, data, -1, marked=self._streams.marks(block))
            else:
                self._land(layer, block, data, at if block == first else 0)

    def _land(self, layer: Layer, block: int, data: bytes, at: int, *, marked: bool = False) -> bytes:
        if data is not ZEROS:
            layer.shelf.bytes_read += len(data)
        return self._cache.put(layer.shelf, block, data, at, marked=marked)

    def _wasted(self) -> int:
        return sum(layer.shelf.wasted for layer in self.layers)


def _cut(blocks: list[bytes], at: int, length: int) -> Buffers:
    """`length` bytes from byte `at` of the first block on."""
    buffers: Buffers = []
    for data in blocks:
        stop = min(BLOCK, at + length)
        buffers.append(data if stop - at == len(data) else memoryview(data)[at:stop])
        length -= stop - at
        at = 0
    return buffers


def _runs(blocks: list[int]) -> list[list[int]]:
    """Neighbours together, at most RUN_BLOCKS of them."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and runs[-1][-1] == block - 1 and len(runs[-1]) < RUN_BLOCKS:
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs
