"""Images against a model: whatever is read at once, by whom, over which disks, the bytes are right or an error is due.

Three stacks share a base. Clients read at random, in sequence and over each other, from layers that are slow, in part
in the page cache, and now and then broken, through caches from tiny to ample. In every round: each answer is the
model's bytes, or an error while something is broken; then nothing is on its way any more, and the books are right.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from bootlink_blockstore import reading
from bootlink_blockstore.cache import BLOCK, ENTRY_COST, Cache
from bootlink_blockstore.image import Image
from bootlink_blockstore.library import Library
from bootlink_blockstore.readahead import JOBS, limit_in_flight
from bootlink_disks import ImageInfo, create_vhd_differencing, create_vhd_dynamic
from lab.blockstore import digest, layer_plan, make_image
from lab.disks import apply_changes
from rigs.figures import Figures, Violation

BLOCKS: Final = 96
SIZE: Final = BLOCKS * BLOCK
BUDGETS: Final = (3 * (BLOCK + ENTRY_COST), 40 * (BLOCK + ENTRY_COST), 64 << 20)
CLIENTS: Final = 12
READS: Final = 12  # of a client in a round
BREAK_EVERY: Final = 3  # rounds
PATIENCE: Final = 60.0  # seconds for a round, which takes a tenth of one
PAGE: Final = 4096
_PREADV: Final = os.preadv


class Moody:
    """A disk that has a mood per read: in the page cache or not, and broken for some pages of a file."""

    def __init__(self, choice: random.Random) -> None:
        self._choice = choice
        self.warm = 0.5
        self.broken: set[tuple[int, int]] = set()  # file descriptor and page of the file

    def preadv(self, fd: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
        length = sum(map(len, buffers))
        touched = {(fd, page) for page in range(offset // PAGE, (offset + length - 1) // PAGE + 1)}
        if flags & os.RWF_NOWAIT and (touched & self.broken or self._choice.random() > self.warm):
            raise BlockingIOError(errno.EAGAIN, "not in the page cache")
        if touched & self.broken:
            raise OSError(errno.EIO, "Input/output error")
        return _PREADV(fd, buffers, offset)


def run(count: int, seed: int, folder: Path) -> Figures:
    """`count` rounds, a share with each cache."""
    return asyncio.run(reads(count, seed, folder))


async def reads(count: int, seed: int, folder: Path) -> Figures:
    """The same, in the caller's event loop."""
    choice = random.Random(seed)
    stacks, models = _stacks(folder, choice)
    before = {info.path: digest(info.path) for stack in stacks for info in stack}
    mood = Moody(choice)
    done = errors = 0
    reading.preadv = mood.preadv  # type: ignore[assignment]
    try:
        for number, budget in enumerate(BUDGETS):
            with ThreadPoolExecutor(4) as demand, ThreadPoolExecutor(JOBS) as ahead:
                library = Library(Cache(budget), demand, ahead)
                images = [await library.open([layer_plan(info.path) for info in stack]) for stack in stacks]
                for turn in range(len(range(number, count, len(BUDGETS)))):
                    _change(mood, library, choice, broken=turn % BREAK_EVERY == BREAK_EVERY - 1)
                    async with asyncio.timeout(PATIENCE):
                        errors += await _round(images, models, choice, mood)
                        while any(layer.flights for layer in library.layers):
                            await asyncio.sleep(0.001)
                    done += CLIENTS * READS
                    _require_books(library, f"seed {seed}, budget {budget}, round {turn}")
                library.shut()
    finally:
        reading.preadv = _PREADV
    if {path: digest(path) for path in before} != before:
        raise Violation(f"a layer was changed; seed {seed}")
    return {"reads": done, "reads that met a broken page": errors}


def _stacks(folder: Path, choice: random.Random) -> tuple[list[list[ImageInfo]], list[bytes]]:
    """Images, each top first, and what each reads as."""
    raw = make_image(folder / "base.img", SIZE)
    stacks, models = [[create_vhd_dynamic(folder / "base.vhd", raw)]], [raw.read_bytes()]
    for name, under in (("one", 0), ("two", 0), ("three", 1)):
        places = sorted(choice.sample(range(0, SIZE // 512 - 8, 8), 60))
        changes = [(at * 512, choice.randbytes(PAGE)) for at in places]
        model = bytearray(models[under])
        apply_changes(model, changes)
        stacks.append([create_vhd_differencing(folder / f"{name}.vhd", stacks[under][0], changes), *stacks[under]])
        models.append(bytes(model))
    return stacks, models


def _change(mood: Moody, library: Library, choice: random.Random, *, broken: bool) -> None:
    mood.warm = choice.choice([0.0, 0.5, 1.0])
    mood.broken.clear()
    if broken:
        layer = choice.choice(library.layers)
        pages = layer.open.info.file_size // PAGE
        mood.broken.update((layer.open.fd, choice.randrange(pages)) for _ in range(20))


async def _round(images: list[Image], models: list[bytes], choice: random.Random, mood: Moody) -> int:
    """All clients at once; returns how many reads ended in an error."""
    which = [choice.randrange(len(images)) for _ in range(CLIENTS)]
    failed = await asyncio.gather(
        *(_client(images[n], models[n], random.Random(choice.random()), bool(mood.broken)) for n in which)
    )
    return sum(failed)


async def _client(image: Image, model: bytes, choice: random.Random, broken: bool) -> int:
    failed = 0
    position = choice.randrange(BLOCKS) * BLOCK
    for _ in range(READS):
        length = choice.choice([512, PAGE, BLOCK, 3 * BLOCK, 20 * BLOCK])
        if choice.random() < 0.5:
            position = choice.randrange(SIZE // 512) * 512
        offset = min(position, SIZE - length)
        view = image.hit(offset, length)
        views = image.hit_blocks(offset, length) if view is None else [view]
        try:
            if views is None:
                result = image.read(offset, length)
                views = result if isinstance(result, list) else await result
        except OSError as error:
            failed += 1
            if not broken:
                raise Violation(f"a read of sound layers failed: {error}") from error
        else:
            if b"".join(views) != model[offset : offset + length]:
                raise Violation(f"{length} bytes at {offset} are not the image's")
        position = offset + length if offset + length < SIZE else 0
        if choice.random() < 0.3:
            await asyncio.sleep(0)
    return failed


def _require_books(library: Library, when: str) -> None:
    cache = library.cache
    if not sum(layer.shelf.bytes_held for layer in library.layers) == cache.used <= cache.budget:
        raise Violation(f"{cache.used} bytes are held of {cache.budget}; {when}")
    if library.readers.free != limit_in_flight(cache.budget):
        raise Violation(f"what may be read ahead has become less; {when}")
