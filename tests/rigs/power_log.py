"""Power cuts of an overlay, from the logs of disks below it that our code knows nothing of.

`crash_states` records what our code asks of the file system, inside our own process. Here the overlay and its marks are
files of QEMU's FUSE export, and QEMU writes down what reaches their disks: each write, each discard, and a flush for
each sync. What it wrote down is what is replayed; from our own record comes only in which order the two disks were
asked, and whatever reached a disk without being in that record is a violation by itself.

Each of `count` replays is a random workload of its own, cut at random moments. States are made by the rules of `files`
and judged as those of `crash_states`.
"""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Final

from bootlink_blockstore.cache import Cache
from bootlink_blockstore.disk import ClientDisk
from bootlink_blockstore.library import Library
from bootlink_blockstore.overlay import Overlay
from bootlink_blockstore.pagemap import PAGE
from lab.blockstore import digest, layer_plan, make_image
from lab.fuse import DISCARD, FLUSH, Entry, Log, exported
from rigs.crash_states import Expectation, Workload, compose, judge
from rigs.figures import Figures, Violation
from rigs.files import Call, Disk, put, recording, states

SIZE: Final = 512 * PAGE  # the file of marks is one byte per page, and a disk at least one sector
NAMES: Final = {"live.overlay": SIZE, "live.zeros": SIZE // PAGE}
CUTS: Final = 24  # moments of one log
EXTRA: Final = 4  # states of one moment beyond "nothing" and "all"


async def _record(seed: int, folder: Path, base: Path) -> tuple[list[list[Call]], Expectation]:
    """Run one workload. What reached the disks by each of our calls, and what is promised."""
    random, image = Random(seed), base.read_bytes()
    counts: list[tuple[int, ...]] = []
    with exported(folder, NAMES) as logs, recording(folder) as log, ThreadPoolExecutor(2) as executor:
        log.after = lambda: counts.append(tuple(disk.now for disk in logs))
        library = Library(Cache(1 << 20), executor)
        opened = await library.open([layer_plan(base)])
        # Whoever opens these files finds them there: their names last, and they are as long as they must be.
        disk = ClientDisk(opened, Overlay.reopen(folder / "live.overlay", SIZE), executor, durable=True)
        begin = log.now
        work = Workload(random, image, log)
        work.expected.admitted = begin
        for _ in range(3):
            await work.run(disk)
        await disk.fence()
        disk.overlay.close()
        library.shut()
        return _by_call(logs, counts), work.expected


def _by_call(logs: list[Log], counts: list[tuple[int, ...]]) -> list[list[Call]]:
    calls, done = [], [0] * len(logs)
    entries = [log.entries() for log in logs]
    for now in counts:
        reached: list[Call] = []
        for number, until in enumerate(now):
            reached += [_call(number, entry) for entry in entries[number][done[number] : until]]
            done[number] = until
        calls.append(reached)
    for number, found in enumerate(entries):
        if any(not entry.flags & FLUSH for entry in found[done[number] :]):
            raise Violation("something was written that our own record does not know")
    return calls


def _call(file: int, entry: Entry) -> Call:
    if entry.flags & FLUSH:
        return ("sync", file)
    if entry.flags & DISCARD:
        return ("punch", file, entry.offset, entry.length)
    return ("write", file, entry.offset, entry.data)


def _beginning() -> Disk:
    disk = Disk()
    for number, (name, size) in enumerate(NAMES.items()):
        disk.apply(("name", name, number))
        disk.apply(("size", number, size))
        disk.apply(("sync", number))
    disk.apply(("sync", "."))
    disk.apply(("sync", ""))
    return disk


def _replay(seed: int, folder: Path, base: Path) -> tuple[int, int]:
    """One log: how many states were tried, and how many entries it has."""
    folder.mkdir()
    calls, expected = asyncio.run(_record(seed, folder, base))
    image, random, tried = base.read_bytes(), Random(seed), 0
    disk = _beginning()
    cuts = set(random.sample(range(len(calls) + 1), min(CUTS, len(calls) + 1)))
    for moment in range(len(calls) + 1):
        for left in states(disk, random, EXTRA) if moment in cuts else ():
            root = folder / "cut"
            root.mkdir()
            put(left, root)
            try:
                overlay = Overlay.reopen(root / "live.overlay", SIZE)
                try:
                    judge(expected, moment, compose(overlay, image), image)
                finally:
                    overlay.close()
            except (Violation, OSError, ValueError) as error:
                raise Violation(f"seed {seed}, cut after call {moment}: {error}") from error
            shutil.rmtree(root)
            tried += 1
        if moment < len(calls):
            for call in calls[moment]:
                disk.apply(call)
    return tried, sum(map(len, calls))


def run(count: int, seed: int, folder: Path) -> Figures:
    """`count` logs."""
    base = make_image(folder / "base.img", SIZE)
    before, tried, entries = digest(base), 0, 0
    for number in range(count):
        states_tried, logged = _replay(seed + number, folder / f"log{number}", base)
        tried, entries = tried + states_tried, entries + logged
        shutil.rmtree(folder / f"log{number}")
    if digest(base) != before:
        raise Violation(f"seed {seed}: the image's bytes have changed")
    return {"replays": count, "entries logged": entries, "states": tried, "violations": 0}
