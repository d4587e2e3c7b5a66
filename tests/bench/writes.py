"""Random 4 KiB writes: into overlays here, into a raw file by tgt; both through the page cache of one file system."""

from __future__ import annotations

from pathlib import Path

from bench import servers
from bench.load import Work, measured, middle
from bench.report import Goal, Section, table, yes

DISK = 128 << 20
CELLS = ((1, 1), (1, 32), (8, 32))  # clients, depth
GOAL_DEPTH = 32
ROUNDS = 5
TIMES_TGT = 1.5
SIZE = 4096


def random_writes(folder: Path) -> Section:
    image = servers.make_disk(folder / "disk.raw", DISK)
    other = servers.make_disk(folder / "other.raw", DISK)  # tgt writes into its own
    rows, ratios = [], []
    with servers.store(folder / "store", image) as ours, servers.tgt(folder / "tgt", other) as tgt:
        for clients, depth in CELLS:
            work = Work("rand", SIZE, depth, DISK // 2, seconds=0.5, writes=True)
            rounds = [[measured(s.pid, s.logins(clients), work) for s in (ours, tgt)] for _ in range(ROUNDS)]
            here, there = (middle([samples[n] for samples in rounds]) for n in range(2))
            ratio = here.rate / there.rate
            ratios += [ratio] * (depth == GOAL_DEPTH)
            rows.append(
                (
                    f"{clients} x {depth}",
                    *(f"{sample.rate:,.0f}{'†' if sample.client_limited else ''}" for sample in (here, there)),
                    f"{ratio:.1f} x",
                    yes(ratio >= TIMES_TGT) if depth == GOAL_DEPTH else "",
                    *(f"{sample.cost:.1f}" for sample in (here, there)),
                    *(f"{sample.p99:,.0f}" for sample in (here, there)),
                )
            )
    head = ("clients x depth", "Bootlink op/s", "tgt", "to tgt", f"≥ {TIMES_TGT:g} x", "Bootlink CPU µs", "tgt")
    return Section(
        "Random writes of 4 KiB",
        table((*head, "Bootlink p99 µs", "tgt"), rows) + "\n† the client was the limit.\n",
        (
            Goal(
                f"random 4 KiB writes at depth {GOAL_DEPTH}: {TIMES_TGT:g} x tgt's rate",
                min(ratios) >= TIMES_TGT,
                f"{min(ratios):.1f} to {max(ratios):.1f} x",
            ),
        ),
    )
