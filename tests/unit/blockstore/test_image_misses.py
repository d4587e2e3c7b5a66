"""Misses: the disk is read once for all who want a block, and an error goes to those who wanted what has it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bootlink_blockstore.cache import BLOCK, ENTRY_COST, USE, Cache
from bootlink_blockstore.image import Image
from bootlink_blockstore.library import LAYERS_LIMIT, Library
from bootlink_blockstore.readahead import JOBS
from bootlink_disks import DiskError, create_vhd_differencing, create_vhd_dynamic
from lab import boot_reads
from lab.blockstore import layer_plan, make_image
from lab.slow_disk import SlowDisk

SIZE = 256 * BLOCK
SESSIONS = 64


@contextlib.asynccontextmanager
async def library(budget: int = 64 << 20) -> AsyncIterator[Library]:
    with ThreadPoolExecutor(8) as demand, ThreadPoolExecutor(JOBS) as ahead:
        opened = Library(Cache(budget), demand, ahead)
        yield opened
        opened.shut()


async def read(image: Image, offset: int, length: int) -> bytes:
    result = image.read(offset, length)
    return b"".join(result if isinstance(result, list) else await result)


async def test_64_sessions_that_miss_one_block_read_it_once_and_it_counts_as_used(tmp_path: Path) -> None:
    data = make_image(tmp_path / "base.img", SIZE).read_bytes()
    async with library() as opened:
        image = await opened.open([layer_plan(tmp_path / "base.img")])
        with SlowDisk(0.02) as disk:
            answers = await asyncio.gather(*(read(image, n * 512, 4096) for n in range(SESSIONS - 8)))
        assert answers == [data[n * 512 :][:4096] for n in range(SESSIONS - 8)]
        assert disk.reads == [(0, BLOCK), (BLOCK, BLOCK)][: len(disk.reads)]
        assert disk.blocks[0] == 1
        assert image.layers[0].shelf.state[0] >= USE, "many wanted it at once, so it is no block of a scan"


async def test_overlapping_reads_of_several_blocks_read_each_block_once(tmp_path: Path) -> None:
    data = make_image(tmp_path / "base.img", SIZE).read_bytes()
    choice = random.Random(20261124)
    async with library() as opened:
        image = await opened.open([layer_plan(tmp_path / "base.img")])
        for _ in range(4):
            ranges = []
            for _ in range(SESSIONS):
                length = choice.randrange(1, 40 * BLOCK // 512) * 512
                ranges.append((choice.randrange((SIZE - length) // 512) * 512, length))
            with SlowDisk(0.002) as disk:
                answers = await asyncio.gather(*(read(image, *place) for place in ranges))
            for (offset, length), answer in zip(ranges, answers, strict=True):
                assert answer == data[offset : offset + length]
            assert max(disk.blocks.values(), default=1) == 1
        assert (
            image.layers[0].shelf.bytes_read
            == len(image.layers[0].shelf.blocks) * BLOCK + len(image.layers[0].shelf.marks) * BLOCK
        )


async def test_an_error_goes_to_all_who_wanted_the_block_and_to_nobody_else(tmp_path: Path) -> None:
    data = make_image(tmp_path / "base.img", SIZE).read_bytes()
    async with library() as opened:
        image = await opened.open([layer_plan(tmp_path / "base.img")])
        with SlowDisk(0.01, broken={5}) as disk:
            wide = [read(image, 0, 12 * BLOCK) for _ in range(4)]  # one read of 12 blocks; one of them is broken
            bad = [read(image, 5 * BLOCK, 512) for _ in range(8)]
            good = [(n, read(image, n * BLOCK, BLOCK)) for n in (0, 3, 6, 11) for _ in range(8)]
            outcomes = await asyncio.gather(*wide, *bad, return_exceptions=True)
            assert all(isinstance(outcome, OSError) for outcome in outcomes)
            for n, answer in good:
                assert await answer == data[n * BLOCK :][:BLOCK]
            shelf = image.layers[0].shelf
            assert 5 not in shelf, "nothing is held of what failed"
            assert not image.layers[0].flights
            disk.broken.clear()
            assert await read(image, 0, 12 * BLOCK) == data[: 12 * BLOCK], "the next read tries again"
        assert 5 in shelf


async def test_whoever_gives_up_waiting_takes_nothing_from_the_others(tmp_path: Path) -> None:
    data = make_image(tmp_path / "base.img", SIZE).read_bytes()
    async with library() as opened:
        image = await opened.open([layer_plan(tmp_path / "base.img")])
        with SlowDisk(0.05) as disk:
            first, second = (asyncio.ensure_future(read(image, 0, 4 * BLOCK)) for _ in range(2))
            await asyncio.sleep(0.01)
            first.cancel()
            assert await second == data[: 4 * BLOCK]
            assert max(disk.blocks.values()) == 1


async def test_two_versions_over_one_base_and_20_clients_hold_and_read_each_block_of_it_once(tmp_path: Path) -> None:
    base = create_vhd_dynamic(tmp_path / "base.vhd", make_image(tmp_path / "base.img", SIZE))
    choice = random.Random(4)
    versions = []
    for name in ("one", "two"):
        changes = [(block * BLOCK, choice.randbytes(BLOCK)) for block in sorted(choice.sample(range(256), 10))]
        versions.append(create_vhd_differencing(tmp_path / f"{name}.vhd", base, changes))
    async with library() as opened:
        stacks = [[layer_plan(version.path), layer_plan(base.path)] for version in versions]
        images = [await opened.open(stacks[client % 2]) for client in range(20)]
        assert len(set(map(id, images))) == 2
        with SlowDisk(0.001) as disk:
            answers = await asyncio.gather(*(read(image, 0, image.size) for image in images))
        assert answers[0] == answers[2] != answers[1] == answers[3]
        own = [set(image.layers[0].shelf.blocks) | set(image.layers[0].shelf.marks) for image in images[:2]]
        assert len(own[0]) <= 20, "a version's own sectors, and what shares a block with them"
        below = images[0].layers[1].shelf
        assert below is images[1].layers[1].shelf
        # Whole blocks of the disk, as the base VHD's own blocks begin between them.
        distinct = len(own[0]) + len(own[1]) + len(below.blocks) + len(below.marks)
        assert opened.cache.entries == distinct
        assert opened.cache.used == distinct * (BLOCK + ENTRY_COST)
        assert disk.bytes_read <= distinct * BLOCK
        read_before = disk.bytes_read
        assert await read(images[19], 0, SIZE) == answers[19][:SIZE]
        assert disk.bytes_read == read_before


async def test_a_boot_storm_on_a_cold_cache_reads_each_block_of_the_boot_once(tmp_path: Path) -> None:
    """64 clients replay what one recorded boot reads, each in its order and at its own pace."""
    boot = boot_reads.load()
    path = make_image(tmp_path / "base.img", boot.size)
    choice = random.Random(64)
    with path.open("rb") as file:
        async with library(256 << 20) as opened:
            image = await opened.open([layer_plan(path)])
            expected: dict[tuple[int, int], bytes] = {}
            for at in boot.reads:
                file.seek(at.offset)
                expected[at.offset, at.length] = file.read(at.length)

            async def client(pace: random.Random) -> None:
                for at in boot.reads:
                    hit = image.hit(at.offset, at.length)
                    answer = bytes(hit) if hit is not None else await read(image, at.offset, at.length)
                    assert answer == expected[at.offset, at.length]
                    if pace.random() < 0.05:
                        await asyncio.sleep(0)

            with SlowDisk(0.0005) as disk:
                async with asyncio.timeout(60):
                    await asyncio.gather(*(client(random.Random(choice.random())) for _ in range(SESSIONS)))
                while image.layers[0].flights:
                    await asyncio.sleep(0.001)
            wanted = boot.blocks(BLOCK)
            assert set(disk.blocks) >= wanted
            assert max(disk.blocks.values()) == 1
            assert len(disk.reads) < len(wanted), "several blocks at a time, for the boot reads in sequence"
            shelf = image.layers[0].shelf
            assert shelf.bytes_read == disk.bytes_read
            assert shelf.evicted == 0


async def test_an_image_of_more_layers_than_can_be_told_apart_is_refused(tmp_path: Path) -> None:
    plan = layer_plan(make_image(tmp_path / "base.img", BLOCK))
    async with library() as opened:
        with pytest.raises(DiskError, match=str(LAYERS_LIMIT)):
            await opened.open([plan] * (LAYERS_LIMIT + 1))
        assert opened.layers == []
