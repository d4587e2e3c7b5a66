"""Images: stacks of immutable layers, read through the RAM cache and shared by all clients.

Theory of operation. An image is a stack of layers, top first. Each block (32 KiB) belongs to the topmost layer that
says anything about it, and is cached under that layer's key: a block that only the base holds is cached once, however
many versions and clients stand on it. Whose a block is, is found by the layers' maps when it is first read, and kept
as one byte per block where there is more than one layer.

A read is one of

    hit      all blocks are in the cache: a list of views, at once, no copy
    warm     `preadv` with RWF_NOWAIT found the bytes in the page cache: put into the cache, then as a hit
    miss     a coroutine: the blocks are read in a thread. Whoever wants a block that is on its way waits for that one

So the event loop never waits for a disk, and concurrent misses on one block read it once.

`Library` holds the open layers by their id. A layer stays open after its last client left, with its blocks, since the
next boot of a room asks for the same; the longest unused goes first. A layer's file is checked against its plan at
every attachment, not only when it is opened; and where it is another file by then, or was touched at all, it is opened
anew and nothing that was read of the former one is served to newcomers (a damaged file that was restored looks by size
and time as it did before).

Deliberately not here: writes (an image is immutable), and read-ahead (the kernel's serves for the first touch).
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Final

from bootlink_blockstore.cache import BLOCK, BLOCK_BITS, ZEROS, Cache
from bootlink_disks import DiskError, Kind, OpenLayer, open_layer, require_chain
from bootlink_events import LayerPlan

Buffer = bytes | memoryview
Buffers = list[Buffer]

SLOT_BITS: Final = 40  # of a cache key: 2^40 blocks of 32 KiB per layer are more than any format holds
MASK: Final = BLOCK - 1
INLINE_BLOCKS: Final = 8  # blocks that one read may copy from the page cache on the event loop: about 80 µs
RUN_BLOCKS: Final = 32  # blocks that one thread reads at once (1 MiB), so that a large miss uses several threads
IDLE_LAYERS: Final = 64  # layers that stay open without a client; each costs a descriptor and its map
UNKNOWN: Final = 0  # in Image._owners

Stamp = tuple[int, int, int]  # device, inode and time of change: these very bytes, as far as can be told
Extent = tuple["Layer | None", int, int]  # where bytes live: layer and offset in its file, or None for zeros; length


class Layer:
    """One open layer. `base` is the key of its block 0."""

    __slots__ = ("base", "id", "nowait", "open", "stamp", "users")

    def __init__(self, plan_id: str, slot: int, opened: OpenLayer, stamp: Stamp) -> None:
        self.id = plan_id
        self.stamp = stamp
        self.base = slot << SLOT_BITS
        self.open = opened
        self.users = 0
        self.nowait = True  # until its file system says that it knows no RWF_NOWAIT


class Image:
    """A stack of layers as one read-only disk of `size` bytes."""

    __slots__ = ("_base", "_cache", "_entries", "_executor", "_flights", "_owners", "_scratch", "layers", "size")

    def __init__(self, layers: Sequence[Layer], cache: Cache, flights: Flights, executor: Executor) -> None:
        self.layers = tuple(layers)
        self.size = layers[0].open.size
        self._cache = cache
        self._entries = cache.entries
        self._flights = flights
        self._executor = executor
        self._base = layers[0].base
        self._owners = bytearray(-(-self.size >> BLOCK_BITS)) if len(layers) > 1 else None
        self._scratch = bytearray(BLOCK)

    def hit(self, offset: int, length: int) -> memoryview | None:
        """The bytes, if they lie in one block and that is in the cache."""
        at = offset & MASK
        end = at + length
        if end > BLOCK:
            return None
        block = offset >> BLOCK_BITS
        entry = self._entries.get(self._base + block if self._owners is None else self._key(block))
        if entry is None:
            return None
        entry.touch(at)
        return entry.view[at:end]

    def read(self, offset: int, length: int) -> Buffers | Coroutine[Any, Any, Buffers]:
        """The bytes [offset, offset + length), at once where possible. OSError or DiskError if a layer fails."""
        buffers: Buffers = []
        inline = INLINE_BLOCKS
        position, end = offset, offset + length
        while position < end:
            block, at = position >> BLOCK_BITS, position & MASK
            stop = min(BLOCK, at + end - position)
            entry = self._entries.get(self._key(block))
            if entry is None:
                inline -= 1
                data = self._read_now(block) if inline >= 0 else None
                if data is None:
                    return self._miss(offset, length)
                entry = self._cache.put(self._key(block), data, at)
            else:
                entry.touch(at)
            buffers.append(entry.view[at:stop])
            position += stop - at
        return buffers

    def zeros(self, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
        """The range as runs (zeros by the layers' maps?, start, end) in bytes, in order, without reading anything."""
        for layer, _, size in _resolve(self.layers, 0, offset, length)[0]:
            yield layer is None, offset, offset + size
            offset += size

    def _key(self, block: int) -> int:
        owners = self._owners
        if owners is None:
            return self._base + block
        owner = owners[block]
        if owner == UNKNOWN:
            self._extents(block)
            owner = owners[block]
        return self.layers[owner - 1].base + block

    def _extents(self, block: int) -> list[Extent]:
        """Where the bytes of a block live, in order; and note whose it is."""
        start = block << BLOCK_BITS
        extents, top = _resolve(self.layers, 0, start, min(BLOCK, self.size - start))
        if self._owners is not None:
            self._owners[block] = top + 1
        return extents

    def _read_now(self, block: int) -> bytes | None:
        """The block, if that takes no waiting: zeros, or bytes in the page cache."""
        filled = 0
        scratch = memoryview(self._scratch)
        extents = self._extents(block)
        if all(layer is None for layer, _, _ in extents):
            return ZEROS
        for layer, file_offset, length in extents:
            part = scratch[filled : filled + length]
            if layer is None:
                part[:] = ZEROS[:length]
            else:
                if not layer.nowait:
                    return None
                try:
                    if os.preadv(layer.open.fd, [part], file_offset, os.RWF_NOWAIT) != length:
                        return None
                except BlockingIOError:
                    return None
                except OSError as error:
                    if error.errno == errno.EOPNOTSUPP:
                        layer.nowait = False
                    return None  # a real error comes again in the thread, and is told there
            filled += length
        return bytes(scratch[:filled])

    async def _miss(self, offset: int, length: int) -> Buffers:
        """The same read, with the missing blocks read in threads."""
        first, last = offset >> BLOCK_BITS, offset + length - 1 >> BLOCK_BITS
        views: dict[int, memoryview] = {}
        waits: list[asyncio.Future[dict[int, bytes]]] = []
        run: list[int] = []
        for block in range(first, last + 1):
            entry = self._entries.get(self._key(block))
            flight = self._flights.get(self._key(block))
            if entry is None and flight is None:
                run.append(block)
                if len(run) < RUN_BLOCKS and block < last:
                    continue
            if run:
                waits.append(self._depart(run, offset))
                run = []
            if entry is not None:
                entry.touch(max(0, offset - (block << BLOCK_BITS)))
                views[self._key(block)] = entry.view
            elif flight is not None:
                waits.append(flight)
        # Shielded: others may wait for the same flight, whatever becomes of this read.
        for landed in [await asyncio.shield(wait) for wait in waits]:
            for key, data in landed.items():
                views[key] = memoryview(data)
        buffers: Buffers = []
        for block in range(first, last + 1):
            start = block << BLOCK_BITS
            buffers.append(views[self._key(block)][max(0, offset - start) : offset + length - start])
        return buffers

    def _depart(self, blocks: list[int], offset: int) -> asyncio.Future[dict[int, bytes]]:
        """Read blocks in a thread, and put them into the cache when they are there."""
        jobs = [(self._key(block), self._extents(block)) for block in blocks]
        at = {self._key(block): max(0, offset - (block << BLOCK_BITS)) for block in blocks}
        flight = asyncio.get_running_loop().run_in_executor(self._executor, _read_blocks, jobs)
        self._flights.update(dict.fromkeys(at, flight))

        def landed(done: asyncio.Future[dict[int, bytes]]) -> None:
            for key in at:
                self._flights.pop(key, None)
            if not done.cancelled() and done.exception() is None:
                for key, data in done.result().items():
                    self._cache.put(key, data, at[key])

        flight.add_done_callback(landed)
        return flight


Flights = dict[int, "asyncio.Future[dict[int, bytes]]"]


def _resolve(layers: Sequence[Layer], depth: int, offset: int, length: int) -> tuple[list[Extent], int]:
    """Extents of a range by the layers from `depth` down, and the index of the topmost layer that says anything."""
    layer = layers[depth]
    last = depth == len(layers) - 1
    extents: list[Extent] = []
    top = len(layers) - 1
    inside = max(0, min(length, layer.open.size - offset))
    position = offset
    for kind, file_offset, size in layer.open.locate(offset, inside) if inside else ():
        if kind is Kind.ABSENT and not last:
            below, under = _resolve(layers, depth + 1, position, size)
            extents += below
            top = min(top, under)
        else:
            extents.append((layer, file_offset, size) if kind is Kind.DATA else (None, 0, size))
            top = depth
        position += size
    if inside < length:
        extents.append((None, 0, length - inside))  # a parent may be smaller than its child: the rest is zeros
    return extents, top


def _read_blocks(jobs: list[tuple[int, list[Extent]]]) -> dict[int, bytes]:
    """In a thread: the blocks of these extents, by key."""
    blocks = {}
    for key, extents in jobs:
        parts = [_read_extent(layer, start, size) for layer, start, size in extents]
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        blocks[key] = ZEROS if data == ZEROS else data
    return blocks


def _read_extent(layer: Layer | None, file_offset: int, length: int) -> bytes:
    if layer is None:
        return ZEROS if length == BLOCK else bytes(length)
    data = os.pread(layer.open.fd, length, file_offset)
    while len(data) < length:
        more = os.pread(layer.open.fd, length - len(data), file_offset + len(data))
        if not more:
            raise DiskError(f"{layer.open.info.path}: the file has become shorter", "restore it from a copy")
        data += more
    return data


class Library:
    """The layers that are open, and the images that stand on them."""

    def __init__(self, cache: Cache, executor: Executor) -> None:
        self.cache = cache
        self._executor = executor
        self._layers: dict[str, Layer] = {}  # in the order of their last use
        self._former: list[Layer] = []  # whose file is another by now; for those that still use them
        self._flights: Flights = {}
        self._slots = 0
        self._lock = asyncio.Lock()

    @property
    def layers(self) -> list[Layer]:
        return list(self._layers.values())

    async def open(self, plans: Sequence[LayerPlan]) -> Image:
        """The image with these layers, top first. DiskError if a file is not what its plan says. `close` it."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            layers = []
            for plan in plans:
                held = self._layers.pop(plan.id, None)
                if held is not None:
                    self._layers[plan.id] = held
                    stamp = await loop.run_in_executor(self._executor, _require_unchanged, plan)
                    if stamp != held.stamp:
                        self._former.append(self._layers.pop(plan.id))
                        held = None
                if held is None:
                    opened, stamp = await loop.run_in_executor(self._executor, _open, plan)
                    held = self._layers[plan.id] = Layer(plan.id, self._slots, opened, stamp)
                    self._slots += 1
                layers.append(held)
            require_chain([layer.open.info for layer in layers])
            for layer in layers:
                layer.users += 1
            self._close_idle(IDLE_LAYERS)
        return Image(layers, self.cache, self._flights, self._executor)

    def close(self, image: Image) -> None:
        """One user of the image less. Its layers stay open for the next."""
        for layer in image.layers:
            layer.users -= 1

    def shut(self) -> None:
        """Close every layer. Only when nothing reads any more."""
        for layer in (*self._layers.values(), *self._former):
            layer.open.close()
        self._layers.clear()
        self._former.clear()

    def _close_idle(self, keep: int) -> None:
        idle = [layer for layer in self._layers.values() if layer.users == 0]
        for layer in idle[: max(0, len(idle) - keep)]:
            if self._close_layer(layer):
                del self._layers[layer.id]
        self._former = [layer for layer in self._former if layer.users or not self._close_layer(layer)]

    def _close_layer(self, layer: Layer) -> bool:
        """Close a layer that nobody uses, and forget its blocks. False while one of them is still being read."""
        if any(layer.base <= key < layer.base + (1 << SLOT_BITS) for key in self._flights):
            return False
        self.cache.forget(layer.base, layer.base + (1 << SLOT_BITS))
        layer.open.close()
        return True


def _open(plan: LayerPlan) -> tuple[OpenLayer, Stamp]:
    opened = open_layer(
        plan.path, plan.format, virtual_size=plan.virtual_size, file_size=plan.file_size, mtime_ns=plan.mtime_ns
    )
    return opened, _stamp(os.fstat(opened.fd))


def _stamp(state: os.stat_result) -> Stamp:
    return state.st_dev, state.st_ino, state.st_ctime_ns


def _require_unchanged(plan: LayerPlan) -> Stamp:
    try:
        now = os.stat(plan.path)  # noqa: PTH116  (one system call, in a thread)
    except OSError as error:
        raise DiskError(f"{plan.path}: {error.strerror}", "restore the file") from error
    if (now.st_size, now.st_mtime_ns) != (plan.file_size, plan.mtime_ns):
        raise DiskError(
            f"{plan.path}: the file was changed after it was added",
            "restore the file as it was, or add the changed one as a new version",
        )
    return _stamp(now)
