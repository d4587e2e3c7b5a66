"""What one client's hits are delayed by others: who writes flat out, who misses on a slow disk, who takes nothing.

The image's disk, or the write-backs', is made slow by `slow.c`: each system call on it takes DELAY_MS longer. The
reader has one read outstanding, of blocks that are cached; its 99th percentile is looked at while each of the others is
at it. It goes before them on the client's core, or it would wait for them there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import servers
from bench.load import Load, Sample, Work, measured
from bench.machine import built
from bench.report import Goal, Section, table
from bench.servers import Server
from lab.blockstore import digest

DISK = 256 << 20
HOT = 16 << 20
CACHE = 64 << 20  # a fourth of the disk, so that who reads all of it misses mostly
DELAY_MS = 50
SHARE = 10  # a tenth of the disk's delay: one that passes through to hits shows at once
CROWD = 5  # clients, where one alone would not show
ROUNDS = 3
SECONDS = 2.0
LONGER = SECONDS + 1.0  # the others begin before the reader, and end after it

READER = Work("rand", 4096, 1, HOT, SECONDS, 0.3)
FILL = Work("seq", 32768, 32, HOT, 6.0, 0.0)
WRITER = Work("rand", 4096, 32, DISK, LONGER, 0.0, writes=True)
MISSER = Work("rand", 32768, 8, DISK, LONGER, 0.0)
GREEDY = Work("rand", 32768, 32, HOT, LONGER, 0.0)
DEAF = Work("deaf", 262144, 32, HOT, LONGER, 0.0)


@dataclass(frozen=True, slots=True)
class Case:
    """One row: who else is there, and what is slow meanwhile."""

    slow: str  # a key of SLOW
    others: str
    works: tuple[tuple[Work, int], ...] = ()  # what they do, and how many of them
    judged: bool = True  # of what the goal speaks of: writers, misses and slow clients
    fresh: bool = False  # by clients that have written nothing yet


CASES: Final = (
    Case("image", "nobody"),
    Case("image", "one who writes 4 KiB flat out", ((WRITER, 1),)),
    Case("image", f"{CROWD} who miss on a slow image", ((MISSER, CROWD),)),
    Case("image", f"one who writes flat out, and {CROWD} who miss on a slow image", ((WRITER, 1), (MISSER, CROWD))),
    Case("image", f"{CROWD} who do not take what they asked for", ((DEAF, CROWD),)),
    Case("overlay", f"{CROWD} who write 4 KiB flat out on a slow disk", ((WRITER, CROWD),)),
    Case("image", f"{CROWD} who write 4 KiB flat out", ((WRITER, CROWD),), judged=False),
    Case("image", f"{CROWD} who read 32 KiB flat out", ((GREEDY, CROWD),), judged=False, fresh=True),
    Case(
        "image",
        f"{CROWD} who read 32 KiB flat out, where they wrote 4 KiB here and there",
        ((GREEDY, CROWD),),
        judged=False,
    ),
)
WRITERS, FRESH = 10, 30  # the first of the clients who write in some case, and of those who never do
SLOW = {"image": "image.raw", "overlay": ".overlay"}  # part of the path of what is slow


def hits_beside_others(folder: Path) -> Section:
    image = servers.make_disk(folder / "image.raw", DISK)
    before = digest(image)
    found: dict[Case, Sample] = {}
    for slow, part in SLOW.items():
        environment = {
            "SLOW_PATH": part,
            "SLOW_MS": str(DELAY_MS),
            "LD_PRELOAD": str(built("slow", "-shared", "-fPIC")),
        }
        with servers.store(folder / f"{slow}-slow", image, cache=CACHE, environment=environment) as server:
            measured(server.pid, server.logins(1), FILL)
            for case in CASES:
                if case.slow == slow:
                    samples = [_beside(server, case) for _ in range(ROUNDS)]
                    found[case] = sorted(samples, key=lambda sample: sample.p99)[ROUNDS // 2]
    if digest(image) != before:
        raise RuntimeError("the golden image was changed")
    limit, worst = DELAY_MS * 1000 / SHARE, max(found[case].p99 for case in CASES if case.judged)
    text = (
        f"One client reads cached blocks of 4 KiB, one at a time, beside others. What is slow takes {DELAY_MS} ms more "
        "for each system call. Below the line are those who ask for all that one core can do: they share it.\n\n"
    )
    rows = [
        (case.others, *(f"{figure:,.0f}" for figure in (sample.rate, sample.p50, sample.p99, sample.longest)))
        for case, sample in ((case, found[case]) for case in sorted(CASES, key=lambda case: not case.judged))
    ]
    rows.insert(sum(case.judged for case in CASES), ("—", "", "", "", ""))
    return Section(
        "Hits beside others",
        text + table(("beside others", "reads per s", "p50 µs", "p99 µs", "longest µs"), rows),
        (
            Goal(
                "no write, miss or slow client delays others' hits: p99 within a tenth of a slow disk's delay",
                worst <= limit,
                f"at most {worst / 1000:.1f} ms of {limit / 1000:g} ms",
            ),
        ),
    )


def _beside(server: Server, case: Case) -> Sample:
    """What the reader sees."""
    first = FRESH if case.fresh else WRITERS
    running = [
        Load(server.pid, server.logins(count, first + 10 * n), work) for n, (work, count) in enumerate(case.works)
    ]
    sample = Load(server.pid, server.logins(1), READER, ahead=True).result()
    for load in running:
        load.result()
    return sample
