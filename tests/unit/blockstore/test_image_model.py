"""Images against a model: whatever is read at once, by whom, over which disks, the bytes are right or an error is due.

Three stacks share a base. Clients read at random, in sequence and over each other, from layers that are slow, in part
in the page cache, and now and then broken, through caches from tiny to ample. After every round: each answer is the
model's bytes, or an error where a broken block was asked for; nothing is on its way for ever; the budget holds.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bootlink_blockstore import reading
from bootlink_blockstore.cache import BLOCK, ENTRY_COST, Cache
from bootlink_blockstore.image import Image, Library
from bootlink_blockstore.readahead import JOBS, limit_in_flight
from bootlink_disks import create_vhd_differencing, create_vhd_dynamic
from lab.blockstore import digest, layer_plan, make_image
from lab.disks import apply_changes

BLOCKS = 96
SIZE = BLOCKS * BLOCK
ROUNDS = 12
CLIENTS = 12
READS = 12  # of a client in a round
_PREADV = os.preadv


class Moody:
    """A disk that has a mood per read: in the page cache or not, slow or not, and broken for some blocks of a file."""

    def __init__(self, choice: random.Random) -> None:
        self.choice = choice
        self.warm = 0.5
        self.broken: set[tuple[int, int]] = set()  # file descriptor and block of the file

    def preadv(self, fd: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
        length = sum(map(len, buffers))
        touched = {(fd, block) for block in range(offset // 4096, (offset + length - 1) // 4096 + 1)}
        if flags & os.RWF_NOWAIT and (touched & self.broken or self.choice.random() > self.warm):
            raise BlockingIOError(errno.EAGAIN, "not in the page cache")
        if touched & self.broken:
            raise OSError(errno.EIO, "Input/output error")
        return _PREADV(fd, buffers, offset)


async def client(image: Image, model: bytes, choice: random.Random, broken: bool) -> int:
    """Read; returns how many reads ended in an error."""
    failed = 0
    position = choice.randrange(BLOCKS) * BLOCK
    for _ in range(READS):
        length = choice.choice([512, 4096, BLOCK, 3 * BLOCK, 20 * BLOCK])
        if choice.random() < 0.5:
            position = choice.randrange(SIZE // 512) * 512
        offset = min(position, SIZE - length)
        view = image.hit(offset, length)
        views = image.hit_blocks(offset, length) if view is None else [view]
        try:
            if views is None:
                result = image.read(offset, length)
                views = result if isinstance(result, list) else await result
        except OSError:
            failed += 1
            assert broken
        else:
            assert b"".join(views) == model[offset : offset + length], (offset, length)
        position = offset + length if offset + length < SIZE else 0
        if choice.random() < 0.3:
            await asyncio.sleep(0)
    return failed


@pytest.mark.parametrize("seed", [20261124, 20261125])
async def test_every_byte_is_right_whatever_is_read_at_once_evicted_or_broken(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = random.Random(seed)
    raw = make_image(tmp_path / "base.img", SIZE)
    base = create_vhd_dynamic(tmp_path / "base.vhd", raw)
    stacks, models = [[base]], [raw.read_bytes()]
    for name, under in (("one", 0), ("two", 0), ("three", 1)):
        changes = [(at * 512, choice.randbytes(4096)) for at in sorted(choice.sample(range(0, SIZE // 512 - 8, 8), 60))]
        model = bytearray(models[under])
        apply_changes(model, changes)
        stacks.append([create_vhd_differencing(tmp_path / f"{name}.vhd", stacks[under][0], changes), *stacks[under]])
        models.append(bytes(model))
    before = {info.path: digest(info.path) for stack in stacks for info in stack}
    mood = Moody(choice)
    monkeypatch.setattr(reading, "preadv", mood.preadv)
    errors = 0
    for budget in (3 * (BLOCK + ENTRY_COST), 40 * (BLOCK + ENTRY_COST), 64 << 20):
        with ThreadPoolExecutor(4) as demand, ThreadPoolExecutor(JOBS) as ahead:
            library = Library(Cache(budget), demand, ahead)
            images = [await library.open([layer_plan(info.path) for info in stack]) for stack in stacks]
            for number in range(ROUNDS):
                mood.warm = choice.choice([0.0, 0.5, 1.0])
                mood.broken.clear()
                if number % 3 == 2:
                    layer = choice.choice(library.layers)
                    pages = layer.open.info.file_size // 4096
                    mood.broken.update((layer.open.fd, choice.randrange(pages)) for _ in range(20))
                async with asyncio.timeout(30):
                    which = [choice.randrange(len(images)) for _ in range(CLIENTS)]
                    errors += sum(
                        await asyncio.gather(
                            *(
                                client(images[n], models[n], random.Random(choice.random()), bool(mood.broken))
                                for n in which
                            )
                        )
                    )
                    while any(layer.flights for layer in library.layers):
                        await asyncio.sleep(0.001)
                assert library.cache.used <= library.cache.budget
                assert library.cache.used == sum(layer.shelf.bytes_held for layer in library.layers)
            assert library._readers.free == limit_in_flight(library.cache.budget)
            library.shut()
    assert errors, "no read met a broken block, so nothing was shown of them"
    assert {path: digest(path) for path in before} == before
