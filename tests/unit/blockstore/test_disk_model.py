"""A client's disk against a bytearray: random writes, reads, flushes and trims, alone and at once, over reopenings.

The disk is the real one, over a raw image or a dynamic VHD with blocks of all kinds, with a cache that may hold one
block only. What is tried is what a client may not notice: who waits for a thread, what was evicted, which page is
half written or half given back, and that the process died. Faults on the way are tried by name in `test_disk`.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_blockstore import disk as module
from bootlink_blockstore.cache import BLOCK, ENTRY_COST, Cache
from bootlink_blockstore.disk import ClientDisk
from bootlink_blockstore.library import Library
from bootlink_blockstore.overlay import Overlay
from lab.blockstore import digest, layer_plan
from lab.disks import dynamic_vhd

SECTOR = 512
ONE_MORE = bytes((*range(1, 256), 0))
SIZES = [(300 << 10) + 1536, 256 << 10, 1024]  # ends within a page and a block; at both; is smaller than a page
VHD_BLOCKS = [4096, 32768, 65536]


@dataclass(frozen=True)
class Write:
    sector: int
    sectors: int
    fua: bool


@dataclass(frozen=True)
class Zero:
    """Given back: what UNMAP does."""

    sector: int
    sectors: int


@dataclass(frozen=True)
class Update:
    """Each byte one more than it was: what COMPARE AND WRITE and ORWRITE do."""

    sector: int
    sectors: int
    fua: bool


@dataclass(frozen=True)
class Read:
    sector: int
    sectors: int


class Event(Enum):
    FLUSH = auto()
    REOPEN = auto()  # the boot is closed, and resumed
    CRASH = auto()  # the process dies: nothing is closed, and the next finds the file as it is
    CHILL = auto()  # from here on the layer's bytes come from a thread


Step = Write | Zero | Update | Read | Event


def ranges(size: int) -> st.SearchStrategy[tuple[int, int]]:
    """Sectors: mostly few, and often at the edges of pages and blocks, where trouble lives."""
    last = size // SECTOR - 1
    edges = [n for n in (0, 1, 7, 8, 9, 63, 64, 65, 511, 512, last - 1, last) if 0 <= n <= last]
    return st.tuples(
        st.one_of(st.sampled_from(edges), st.integers(0, last)), st.one_of(st.integers(1, 18), st.integers(1, 300))
    ).map(lambda pair: (pair[0], min(pair[1], last + 1 - pair[0])))


def steps(size: int) -> st.SearchStrategy[list[list[Step]]]:
    """Steps, some of them at once."""
    write = st.builds(lambda where, fua: Write(where[0], where[1], fua), ranges(size), st.booleans())
    read = ranges(size).map(lambda where: Read(*where))
    zero = ranges(size).map(lambda where: Zero(*where))
    update = st.builds(lambda where, fua: Update(where[0], where[1], fua), ranges(size), st.booleans())
    at_once: st.SearchStrategy[list[Step]] = st.lists(
        st.one_of(write, write, zero, update, read, st.just(Event.FLUSH)), max_size=6
    )
    alone: st.SearchStrategy[list[Step]] = st.sampled_from([Event.REOPEN, Event.CRASH, Event.CHILL]).map(
        lambda step: [step]
    )
    return st.lists(st.one_of(at_once, at_once, alone), max_size=12)


def make_layer(folder: Path, size: int, vhd_block: int | None) -> tuple[Path, bytes]:
    """The layer's file, and the bytes of its disk: noise, zeros that are stored, and holes."""
    random = Random(size)
    if vhd_block is None:
        data = b"\xeb" + random.randbytes(509) + b"\x55\xaa" + random.randbytes(size - SECTOR)
        (folder / "base.img").write_bytes(data)
        return folder / "base.img", data
    content = bytearray(size)
    blocks = []
    numbers = list(range(-(-size // vhd_block)))
    random.shuffle(numbers)  # their order in the file is not that of the disk
    for number in numbers:
        if number % 3 == 1:
            continue
        block = bytes(vhd_block) if number % 3 == 2 else random.randbytes(vhd_block)
        blocks.append((number, block))
        start = number * vhd_block
        content[start : start + vhd_block] = block[: size - start]
    (folder / "base.vhd").write_bytes(dynamic_vhd(size, vhd_block, blocks))
    return folder / "base.vhd", bytes(content)


class Bench:
    """The disk, the model, and the steps."""

    def __init__(self, disk: ClientDisk, model: bytearray, executor: ThreadPoolExecutor) -> None:
        self.disk = disk
        self.model = model
        self._executor = executor
        self._stamp = 0

    async def run(self, group: list[Step]) -> None:
        if group in ([Event.REOPEN], [Event.CRASH]):
            await self._reopen(crash=group[0] is Event.CRASH)
        elif group == [Event.CHILL]:
            self.disk.image.layers[0].nowait = False
        else:
            await self._at_once(group)
        assert await self._read(0, len(self.model)) == self.model
        for mapped, start, end in self.disk.mapped(0, len(self.model)):
            assert mapped or not any(self.model[start:end]), "what is not mapped reads as zeros"

    async def _read(self, offset: int, length: int) -> bytes:
        hit = self.disk.hit(offset, length)
        if hit is not None:
            return bytes(hit)
        result = self.disk.read(offset, length)
        return b"".join(result if isinstance(result, list) else await result)

    async def _at_once(self, group: list[Step]) -> None:
        """All start before any ends. Writes hold in their order; a read sees each sector before or after each."""
        before = bytes(self.model)
        seen: list[tuple[int, asyncio.Task[bytes]]] = []
        running = []
        states = [before]
        for step in group:
            if isinstance(step, Write):
                self._stamp = self._stamp % 255 + 1
                offset, data = step.sector * SECTOR, bytes([self._stamp]) * (step.sectors * SECTOR)
                waiting = self.disk.write(offset, data, fua=step.fua)
                if waiting is not None:
                    running.append(asyncio.create_task(waiting))
                self.model[offset : offset + len(data)] = data
                states.append(bytes(self.model))
            elif isinstance(step, Zero):
                offset, length = step.sector * SECTOR, step.sectors * SECTOR
                zeroing = self.disk.zero(offset, length)
                if zeroing is not None:
                    running.append(asyncio.create_task(zeroing))
                self.model[offset : offset + length] = bytes(length)
                states.append(bytes(self.model))
            elif isinstance(step, Update):
                offset, length = step.sector * SECTOR, step.sectors * SECTOR
                updating = self.disk.update(offset, length, lambda held: held.translate(ONE_MORE), fua=step.fua)
                running.append(asyncio.create_task(updating))
                self.model[offset : offset + length] = self.model[offset : offset + length].translate(ONE_MORE)
                states.append(bytes(self.model))
            elif isinstance(step, Read):
                offset, length = step.sector * SECTOR, step.sectors * SECTOR
                seen.append((offset, asyncio.create_task(self._read(offset, length))))
            elif (flushing := self.disk.flush()) is not None:
                running.append(asyncio.create_task(flushing))
        await asyncio.gather(*running)
        for offset, reading in seen:
            data = await reading
            for at in range(0, len(data), SECTOR):
                sector = data[at : at + SECTOR]
                assert any(sector == state[offset + at : offset + at + SECTOR] for state in states)

    async def _reopen(self, *, crash: bool) -> None:
        disk = self.disk
        if not crash:
            await disk.fence()
            disk.overlay.close()
        overlay = await asyncio.to_thread(Overlay.reopen, disk.overlay.path, disk.size)
        assert {n: bytes(c) for n, c in overlay.chunks.items()} == {n: bytes(c) for n, c in disk.overlay.chunks.items()}
        disk.overlay.close()
        self.disk = ClientDisk(disk.image, overlay, self._executor, durable=disk.durable)


@pytest.mark.parametrize("vhd_block", [None, *VHD_BLOCKS])
@settings(max_examples=25)
@given(st.data())
async def test_a_disk_is_a_bytearray_whatever_waits_is_evicted_or_dies(
    tmp_path_factory: pytest.TempPathFactory, vhd_block: int | None, data: st.DataObject
) -> None:
    size = data.draw(st.sampled_from(SIZES))
    inline = data.draw(st.sampled_from([0, 8192, module.INLINE_WRITE]))
    budget = data.draw(st.sampled_from([BLOCK + ENTRY_COST, 4 * BLOCK, 64 << 20]))
    durable = data.draw(st.booleans())
    plan = data.draw(steps(size))
    folder = tmp_path_factory.mktemp("model")
    base, content = make_layer(folder, size, vhd_block)
    before = digest(base)
    with ThreadPoolExecutor(4) as executor, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "INLINE_WRITE", inline)
        library = Library(Cache(budget), executor)
        image = await library.open([layer_plan(base)])
        overlay = Overlay.create(folder / "overlay", size)
        bench = Bench(ClientDisk(image, overlay, executor, durable=durable), bytearray(content), executor)
        for group in plan:
            await bench.run(group)
            assert library.cache.used <= max(budget, BLOCK + ENTRY_COST)
        bench.disk.overlay.close()
        library.shut()
    assert digest(base) == before, "the image's bytes have changed"
    for file in ("overlay", "overlay.zeros"):
        os.unlink(folder / file)  # noqa: PTH108
