"""What a virus scan leaves of the blocks that PCs boot from: the cache's replacement beside LRU, in a replay."""

from __future__ import annotations

import random
from pathlib import Path

from bench.report import Goal, Section, table
from bootlink_blockstore.cache import BLOCK
from lab import boot_reads
from lab.replay import Seen, made_up_boot, uses_of, virus_scan

ROOM = 20
MIB = (1 << 20) // BLOCK  # blocks


def virus_scans(_folder: Path) -> Section:
    boot = boot_reads.load()
    working = len(boot.blocks(BLOCK))
    made_up = made_up_boot(256 * MIB, 8192 * MIB, 60_000, random.Random(20261124))
    stories = {
        "recorded boot, cache of 1.5 working sets": virus_scan(
            uses_of(boot), room=ROOM, blocks=working * 3 // 2, disk=boot.size // BLOCK
        ),
        "256 MiB scattered over 8 GiB, cache of 320 MiB": virus_scan(
            made_up, room=ROOM, blocks=320 * MIB, disk=8192 * MIB
        ),
    }
    rows = [
        (
            f"{story}, {seen.policy}",
            *(f"{100 * ratio:.1f} %" for ratio in (seen.warm, seen.during, seen.after)),
            f"{seen.again / 2**20:.1f}",
        )
        for story, both in stories.items()
        for seen in both
    ]
    text = (
        f"{ROOM} PCs boot; then one PC reads the whole disk from front to back in 4 KiB steps, with read-ahead, while "
        "four boots of other PCs begin. A replay of block numbers (`tests/lab/replay.py`), so these are no timings.\n\n"
    )
    head = ["reads, replacement", "boots' hits before", "during the scan", "first boot after it", "MiB it read again"]
    return Section("Replacement under a scan", text + table(head, rows), (_goal(stories),))


def _goal(stories: dict[str, list[Seen]]) -> Goal:
    ours, lru = ([both[which] for both in stories.values()] for which in (0, 1))
    return Goal(
        "a virus scan leaves what PCs boot from in the cache, where LRU drops it",
        all(seen.after >= 0.95 * seen.warm for seen in ours) and all(seen.after < seen.warm for seen in lru),
        "; ".join(
            f"{o.again / 2**20:.1f} MiB to be read again, with LRU {t.again / 2**20:.1f}"
            for o, t in zip(ours, lru, strict=True)
        ),
    )
