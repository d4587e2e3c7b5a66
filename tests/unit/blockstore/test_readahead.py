"""Reading ahead: when, how far, and when not. Counted in reads of the disk, never in seconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bootlink_blockstore.cache import BLOCK, Cache
from bootlink_blockstore.image import Image
from bootlink_blockstore.library import Library
from bootlink_blockstore.readahead import (
    JOB_BLOCKS,
    JOBS,
    PATIENCE,
    STREAMS,
    WINDOW_LEAST,
    WINDOW_MOST,
    Streams,
    Window,
    limit_in_flight,
    most,
)
from bootlink_blockstore.reading import Layer, Readers
from bootlink_disks import Kind
from bootlink_disks.layer import Run
from lab.blockstore import layer_plan, make_image
from lab.slow_disk import SlowDisk

SIZE = 512 * BLOCK


@contextlib.asynccontextmanager
async def image_over(path: Path, *, budget: int = 256 << 20, ahead: bool = True) -> AsyncIterator[Image]:
    with ThreadPoolExecutor(8) as demand, ThreadPoolExecutor(JOBS) as pool:
        library = Library(Cache(budget), demand, pool if ahead else None)
        yield await library.open([layer_plan(path)])
        library.shut()


async def read(image: Image, offset: int, length: int) -> tuple[bytes, bool]:
    """The bytes, and whether they had to be waited for."""
    view = image.hit(offset, length)
    if view is not None:
        return bytes(view), False
    result = image.read(offset, length)
    if isinstance(result, list):
        return b"".join(result), False
    return b"".join(await result), True


async def stream(image: Image, start: int, blocks: int, step: int) -> int:
    """Read in sequence; how often that had to wait. Between reads the disk has time to answer what is on its way."""
    waits = 0
    for at in range(start * BLOCK, (start + blocks) * BLOCK, step):
        waits += (await read(image, at, step))[1]
        async with asyncio.timeout(20):
            while any(layer.flights for layer in image.layers):
                await asyncio.sleep(0)
    return waits


@pytest.mark.parametrize("step", [4096, BLOCK, 4 * BLOCK])
async def test_a_sequential_reader_of_a_slow_disk_waits_twice_and_never_again(tmp_path: Path, step: int) -> None:
    path = make_image(tmp_path / "base.img", SIZE)
    for ahead in (False, True):
        async with image_over(path, ahead=ahead) as image:
            with SlowDisk() as disk:
                waits = await stream(image, 0, 256, step)
            assert waits == (2 if ahead else 256 // max(1, step // BLOCK))
            assert max(disk.blocks.values()) == 1
            assert len(disk.reads) <= (32 if ahead else 256), "long reads instead of many"
            assert image.layers[0].shelf.wasted == 0
            assert sum(disk.blocks.values()) <= 256 + 2 * WINDOW_MOST


async def test_random_reads_are_not_read_ahead_of(tmp_path: Path) -> None:
    path = make_image(tmp_path / "base.img", SIZE)
    async with image_over(path) as image:
        with SlowDisk() as disk:
            for number in range(100):
                await stream(image, number * 37 % 101 * 5, 1, 4096)
        assert len(disk.reads) == 100
        assert image.layers[0].shelf.ahead == 0


async def test_a_tiny_cache_reads_nothing_ahead(tmp_path: Path) -> None:
    path = make_image(tmp_path / "base.img", SIZE)
    async with image_over(path, budget=4 << 20) as image:
        with SlowDisk() as disk:
            await stream(image, 0, 64, BLOCK)
        assert len(disk.reads) == 64
    assert most(4 << 20) == 0
    assert most(64 << 20) * BLOCK * 64 <= 64 << 20
    for budget in (1 << 20, 16 << 20, 1 << 30):
        assert limit_in_flight(budget) * BLOCK * 16 <= budget


async def test_many_streams_keep_within_what_may_be_in_flight_and_readers_have_their_own_threads(
    tmp_path: Path,
) -> None:
    path = make_image(tmp_path / "base.img", SIZE)
    async with image_over(path) as image:
        with SlowDisk(0.01) as disk:
            most_ahead = 0

            async def watch() -> None:
                nonlocal most_ahead
                while True:
                    readers = image._readers
                    most_ahead = max(most_ahead, limit_in_flight(256 << 20) - readers.free)
                    await asyncio.sleep(0)

            watching = asyncio.create_task(watch())
            async with asyncio.timeout(30):
                await asyncio.gather(*(stream(image, n * 64, 60, BLOCK) for n in range(8)))
            watching.cancel()
            assert 0 < most_ahead <= JOBS * JOB_BLOCKS
            assert disk.at_once <= 8 + JOBS
            assert max(disk.blocks.values()) == 1
        assert image._readers.free == limit_in_flight(256 << 20)


async def test_a_read_ahead_that_fails_is_told_to_nobody_who_did_not_want_that_block(tmp_path: Path) -> None:
    path = make_image(tmp_path / "base.img", SIZE)
    data = path.read_bytes()
    async with image_over(path) as image:
        with SlowDisk(broken={40}) as disk:
            await stream(image, 0, 40, BLOCK)
            with pytest.raises(OSError, match="Input/output"):
                await read(image, 40 * BLOCK, 4096)
            assert (await read(image, 41 * BLOCK, BLOCK))[0] == data[41 * BLOCK :][:BLOCK]
            disk.broken.clear()
            assert (await read(image, 40 * BLOCK, BLOCK))[0] == data[40 * BLOCK :][:BLOCK]


async def test_reading_ahead_goes_through_a_stack_and_passes_over_what_is_held(tmp_path: Path) -> None:
    """Every fourth block is the top's; the base's were read by another version before."""
    size = 128 * BLOCK
    base, top = make_image(tmp_path / "base", size), make_image(tmp_path / "top", size, seed=2)

    def own(offset: int, length: int) -> list[Run]:
        block = offset // BLOCK
        return [Run(Kind.DATA, offset, length) if block % 4 == 0 else Run(Kind.ABSENT, 0, length)]

    with ThreadPoolExecutor(8) as demand, ThreadPoolExecutor(JOBS) as pool:
        cache = Cache(256 << 20)
        library = Library(cache, demand, pool)
        below = (await library.open([layer_plan(base)])).layers[0]
        with top.open("rb") as file:
            opened: Any = SimpleNamespace(fd=file.fileno(), size=size, locate=own)
            layer = Layer("top", cache.shelf(128), opened, (0, 0, 0))
            readers = Readers(demand, pool, limit_in_flight(cache.budget))
            stacked, alone = Image([layer, below], cache, readers), Image([below], cache, readers)
            with SlowDisk() as disk:
                await stream(alone, 0, 64, BLOCK)
                held = disk.bytes_read
                assert await stream(stacked, 0, 128, BLOCK) <= 20
                assert max(disk.blocks.values()) <= 2, "once in each file"
                assert disk.bytes_read - held <= (16 + 64 + WINDOW_MOST) * BLOCK
            a, b = base.read_bytes(), top.read_bytes()
            whole, _ = await read(stacked, 0, size)
            for block in range(128):
                expected = (b if block % 4 == 0 else a)[block * BLOCK :][:BLOCK]
                assert whole[block * BLOCK :][:BLOCK] == expected
        library.shut()


# The machine alone


def test_the_window_doubles_to_its_limit_and_waste_halves_it() -> None:
    streams = Streams(WINDOW_MOST)
    assert streams.missed(10, 11, 0) is None
    window = streams.missed(11, 12, 0)
    sizes = []
    for _ in range(7):
        assert window is not None
        sizes.append(window.size)
        streams.launched(window, window.start + window.size, window.start + window.size // 2)
        window = streams.reached(window.start + window.size // 2, 0)
    assert sizes == [4, 8, 16, 32, 64, 64, 64]
    assert window is not None
    streams.launched(window, window.start + window.size, window.start)
    assert streams.reached(window.start, wasted=9) == Window(window.start + window.size, WINDOW_MOST // 2)


def test_where_reading_ahead_was_in_vain_a_stream_has_to_be_long() -> None:
    streams = Streams(WINDOW_LEAST)
    wasted = 0
    block = 0
    for _ in range(4):  # pairs of neighbours, and nothing after them
        streams.missed(block, block + 1, wasted)
        window = streams.missed(block + 1, block + 2, wasted)
        if window is not None:
            streams.launched(window, block + 2 + window.size, None)
            wasted += window.size
        block += 1000
    assert wasted == WINDOW_LEAST
    ahead = [streams.missed(block + n, block + n + 1, wasted + n) for n in range(PATIENCE)]
    assert ahead[-1] is not None
    assert not any(ahead[:-1])


def test_streams_and_marks_are_bounded() -> None:
    streams = Streams(WINDOW_MOST)
    for n in range(10 * STREAMS):
        streams.missed(n * 100, n * 100 + 1, 0)
        window = streams.missed(n * 100 + 1, n * 100 + 2, 0)
        assert window is not None
        streams.launched(window, window.start + 4, window.start + 2)
    assert len(streams._edges) == len(streams._marks) == STREAMS
