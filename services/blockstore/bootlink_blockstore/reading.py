"""Reading blocks of layers from their files: at once where the page cache has them, in threads elsewhere.

Theory of operation. A block is made of extents: places in layer files, and zeros. `read_now` never waits: `preadv` with
RWF_NOWAIT gives what is in the page cache. `read_blocks` runs in a thread and may wait; neighbours in a file are one
read. Where a read fails, its blocks are tried one by one up to the first that fails, so that whoever waits for another
block of the same read gets that, or reads it again: an error is told to those who wanted the block that has it.

`Readers` are two pools of threads. What somebody waits for has one to itself, so that reading ahead never delays it by
standing in its queue; and reading ahead has no queue: a job begins when a thread is free for it, or is not begun.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from bootlink_blockstore.cache import BLOCK, ZEROS, Shelf
from bootlink_blockstore.readahead import JOB_BLOCKS, JOBS
from bootlink_disks import DiskError, Kind, OpenLayer
from bootlink_runtime import Distribution

Stamp = tuple[int, int, int]  # device, inode and time of change: these very bytes, as far as can be told
Extent = tuple["Layer | None", int, int]  # where bytes live: layer and offset in its file, or None for zeros; length
Job = tuple[int, list[Extent]]  # a block's number and its extents

RUN_BLOCKS: Final = 16  # blocks that one thread reads at once (512 KiB), so that a large miss uses several threads

_threads = threading.local()

preadv = os.preadv  # the one place where layers are read; tests put a slow or a broken disk here


@dataclass(slots=True)
class Landed:
    """What became of a read of several blocks; those in neither were not tried."""

    blocks: dict[int, bytes] = field(default_factory=dict)
    failed: dict[int, Exception] = field(default_factory=dict)


Flight = asyncio.Future[Landed]


class Layer:
    """One open layer, with its shelf in the cache."""

    __slots__ = ("below", "flights", "id", "nowait", "open", "shelf", "stamp", "users")

    def __init__(self, plan_id: str, shelf: Shelf, opened: OpenLayer, stamp: Stamp, below: Layer | None = None) -> None:
        self.id = plan_id
        self.shelf = shelf
        self.open = opened
        self.stamp = stamp
        self.below = below  # the layer that it stands on: its blocks may have bytes of that one in them
        self.users = 0
        self.flights: dict[int, Flight] = {}  # blocks that are on their way
        self.nowait = True  # until its file system says that it knows no RWF_NOWAIT

    def stands_on(self, other: Layer) -> bool:
        """Whether a read of this layer's blocks may read from the other one's file: its own, or one below."""
        layer: Layer | None = self
        while layer is not None and layer is not other:
            layer = layer.below
        return layer is other


class Readers:
    """The threads. `ahead` may be None: then nothing is read ahead."""

    def __init__(self, demand: Executor, ahead: Executor | None = None, limit: int = 0) -> None:
        """`limit`: blocks that may be read ahead at once."""
        self.demand = demand
        self.free = limit if ahead is not None else 0
        self.waits = Distribution()  # seconds that somebody waited for a read
        self._ahead = ahead
        self._jobs = JOBS

    def wanted(self, jobs: list[Job]) -> Flight:
        began = perf_counter()
        flight = asyncio.get_running_loop().run_in_executor(self.demand, read_blocks, jobs)
        flight.add_done_callback(lambda _: self.waits.record(perf_counter() - began))
        return flight

    def ahead(self, jobs: list[Job]) -> Flight | None:
        """None if no thread is free, or too much is on its way."""
        if self._ahead is None or not self._jobs or len(jobs) > self.free:
            return None
        self._jobs -= 1
        self.free -= len(jobs)
        flight = asyncio.get_running_loop().run_in_executor(self._ahead, read_blocks, jobs)
        flight.add_done_callback(lambda _: self._returned(len(jobs)))
        return flight

    def _returned(self, blocks: int) -> None:
        self._jobs += 1
        self.free += blocks


def resolve(layers: Sequence[Layer], depth: int, offset: int, length: int) -> tuple[list[Extent], int]:
    """Extents of a range by the layers from `depth` down, and the index of the topmost layer that says anything."""
    layer = layers[depth]
    last = depth == len(layers) - 1
    extents: list[Extent] = []
    top = len(layers) - 1
    inside = max(0, min(length, layer.open.size - offset))
    position = offset
    for kind, file_offset, size in layer.open.locate(offset, inside) if inside else ():
        if kind is Kind.ABSENT and not last:
            below, under = resolve(layers, depth + 1, position, size)
            extents += below
            top = min(top, under)
        else:
            extents.append((layer, file_offset, size) if kind is Kind.DATA else (None, 0, size))
            top = depth
        position += size
    if inside < length:
        # A parent may be smaller than its child: the rest is zeros, for the child alone; so the block is the child's.
        extents.append((None, 0, length - inside))
        top = min(top, max(0, depth - 1))
    return extents, top


def read_now(extents: list[Extent], scratch: memoryview) -> bytes | None:
    """The block, if that takes no waiting: zeros, or bytes in the page cache. `scratch` has room for a block."""
    if all(layer is None for layer, _, _ in extents):
        return _zeros(sum(length for _, _, length in extents))
    filled = 0
    for layer, file_offset, length in extents:
        part = scratch[filled : filled + length]
        if layer is None:
            part[:] = ZEROS[:length]
        elif not layer.nowait:
            return None
        else:
            try:
                if preadv(layer.open.fd, [part], file_offset, os.RWF_NOWAIT) != length:
                    return None
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.EOPNOTSUPP:
                    layer.nowait = False
                return None  # a real error comes again in the thread, and is told there
        filled += length
    return _shared(bytes(scratch[:filled]))


def read_blocks(jobs: list[Job]) -> Landed:
    """In a thread: the blocks of these jobs, in order; at most max(RUN_BLOCKS, JOB_BLOCKS)."""
    landed = Landed()
    try:
        _read(jobs, landed)
    except (OSError, DiskError) as error:
        if len(jobs) == 1:
            landed.failed[jobs[0][0]] = error
            return landed
        for job in jobs:
            try:
                _read([job], landed)
            except (OSError, DiskError) as its_own:
                landed.failed[job[0]] = its_own
                break  # a dead disk takes long for each answer
    return landed


def _read(jobs: list[Job], landed: Landed) -> None:
    """One read per stretch of a file, then cut into blocks."""
    stretches: list[tuple[Layer, int, int, int]] = []  # layer, offset in its file, offset in `whole`, length
    whole, total = _scratch(), 0
    for _, extents in jobs:
        for layer, file_offset, length in extents:
            if layer is None:
                whole[total : total + length] = ZEROS[:length]
            else:
                stretch = (layer, file_offset, total, length)
                if stretches:
                    former, start, at, size = stretches[-1]
                    if former is layer and start + size == file_offset and at + size == total:
                        stretches.pop()
                        stretch = (layer, start, at, size + length)
                stretches.append(stretch)
            total += length
    for layer, file_offset, at, length in stretches:
        _fill(layer, whole[at : at + length], file_offset)
    at = 0
    for block, extents in jobs:
        length = sum(length for _, _, length in extents)
        landed.blocks[block] = _shared(bytes(whole[at : at + length]))
        at += length


def _fill(layer: Layer, part: memoryview, file_offset: int) -> None:
    filled = 0
    while filled < len(part):
        count = preadv(layer.open.fd, [part[filled:]], file_offset + filled)
        if not count:
            raise DiskError(f"{layer.open.info.path}: the file has become shorter", "restore it from a copy")
        filled += count


def _scratch() -> memoryview:
    """A buffer of this thread's own, for as many blocks as it reads at once. Buffers that come and go leave gaps."""
    if not hasattr(_threads, "buffer"):
        _threads.buffer = memoryview(bytearray(max(RUN_BLOCKS, JOB_BLOCKS) * BLOCK))
    buffer: memoryview = _threads.buffer
    return buffer


def _shared(data: bytes) -> bytes:
    """Blocks of zeros are one object."""
    return ZEROS if data == ZEROS else data


def _zeros(length: int) -> bytes:
    return ZEROS if length == BLOCK else bytes(length)
