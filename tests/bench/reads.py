"""Cached reads, at random and in sequence, of one client and of many: Bootlink, tgt and two bare loops in turns."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench import servers
from bench.load import Sample, Work, measured, middle
from bench.report import Goal, Section, table, yes

DISK = 128 << 20
REGION = 64 << 20
SIZES = (4096, 32768)
CLIENTS = (1, 8, 32)
DEPTHS = (1, 4, 32)
SEQUENTIAL = ((65536, 1, 8), (65536, 8, 8), (262144, 1, 8), (262144, 8, 8))  # size, clients, depth
ROUNDS = 4
SECONDS = 0.3
TIMES_TGT = 2.0
TIMES_TGT_SEQUENTIAL = 3.0
TIMES_LOOP = 2.0


def random_reads(folder: Path) -> Section:
    cells = [(size, clients, depth) for size in SIZES for clients in CLIENTS for depth in DEPTHS]
    found = _in_turns(folder, [(clients, Work("rand", size, depth)) for size, clients, depth in cells])
    rows, rates, costs, floors = [], [], [], []
    for (size, clients, depth), (ours, tgt, loop, bare) in zip(cells, found, strict=True):
        fast, lean = ours.rate / tgt.rate, ours.cost / loop.cost
        waits = fast < TIMES_TGT and not tgt.server_limited
        rates.append((fast >= TIMES_TGT, waits, fast, f"{size >> 10} KiB, {clients} clients, depth {depth}"))
        floors.append(bare.cost / loop.cost)
        costs.append((lean <= TIMES_LOOP, lean, f"{size >> 10} KiB, {clients} clients, depth {depth}"))
        rows.append(
            (
                f"{size >> 10} KiB, {clients} x {depth}",
                *(f"{sample.rate:,.0f}{'†' if sample.client_limited else ''}" for sample in (ours, tgt, loop)),
                f"{fast:.1f} x",
                "waits" if waits else yes(fast >= TIMES_TGT),
                *(f"{sample.cost:.1f}" for sample in (ours, tgt, loop, bare)),
                f"{lean:.1f} x",
                yes(lean <= TIMES_LOOP),
                *(f"{sample.p99:,.0f}" for sample in (ours, tgt)),
            )
        )
    head = ["size, clients x depth", "Bootlink op/s", "tgt", "loop", "to tgt", f"≥ {TIMES_TGT:g} x", "Bootlink CPU µs"]
    head += ["tgt", "loop", "uvloop", "to loop", f"≤ {TIMES_LOOP:g} x", "Bootlink p99 µs", "tgt"]
    text = table(head, rows) + (
        "\n† the client was the limit. *waits*: tgt's core was not busy, so it waited for the client, and the "
        "round trip, not tgt, sets its rate.\n"
    )
    reached, waiting = sum(rate[0] for rate in rates), sum(rate[1] for rate in rates)
    _, _, least, where = min(rates, key=lambda rate: (rate[1], rate[2]))
    lean_cells = sum(cost[0] for cost in costs)
    _, most, worst = max(costs, key=lambda cost: cost[1])
    return Section(
        "Cached random reads",
        text,
        (
            Goal(
                f"random reads: {TIMES_TGT:g} x tgt's rate where tgt does not wait for the client",
                reached + waiting == len(cells),
                f"{reached} of the {len(cells) - waiting} cells in which it does not; least {least:.1f} x ({where})",
            ),
            Goal(
                f"random reads: CPU per operation within {TIMES_LOOP:g} x of the bare loop",
                lean_cells == len(cells),
                f"{lean_cells} of {len(cells)}; most {most:.1f} x ({worst}); "
                f"bare uvloop takes {min(floors):.1f} to {max(floors):.1f} x",
            ),
        ),
    )


def sequential_reads(folder: Path) -> Section:
    found = _in_turns(folder, [(clients, Work("seq", size, depth)) for size, clients, depth in SEQUENTIAL])
    rows, ratios, bare = [], [], []
    for (size, clients, depth), (ours, tgt, loop, _) in zip(SEQUENTIAL, found, strict=True):
        ratios.append(ours.rate / tgt.rate)
        bare.append(loop.rate / tgt.rate)
        rows.append(
            (
                f"{size >> 10} KiB, {clients} x {depth}",
                *(
                    f"{sample.rate * size / 1e6:,.0f}{'†' if sample.client_limited else ''}"
                    for sample in (ours, tgt, loop)
                ),
                f"{ratios[-1]:.1f} x",
                yes(ratios[-1] >= TIMES_TGT_SEQUENTIAL),
                *(f"{sample.cost:.1f}" for sample in (ours, tgt, loop)),
                f"{tgt.cost / ours.cost:.1f} x",
            )
        )
    head = ["size, clients x depth", "Bootlink MB/s", "tgt", "loop", "to tgt", f"≥ {TIMES_TGT_SEQUENTIAL:g} x"]
    head += ["Bootlink CPU µs", "tgt", "loop", "tgt's CPU to ours"]
    return Section(
        "Cached sequential reads",
        table(head, rows) + "\n† the client was the limit.\n",
        (
            Goal(
                f"sequential reads: {TIMES_TGT_SEQUENTIAL:g} x tgt's rate",
                min(ratios) >= TIMES_TGT_SEQUENTIAL,
                f"{min(ratios):.1f} to {max(ratios):.1f} x; the bare loop, which copies as much, "
                f"{min(bare):.1f} to {max(bare):.1f} x",
            ),
        ),
    )


def _in_turns(folder: Path, work: list[tuple[int, Work]]) -> list[list[Sample]]:
    """For each work, what each of the four servers gave; everything is in memory before."""
    image = servers.make_disk(folder / "disk.raw", DISK)
    with ExitStack() as stack:
        all_four = [
            stack.enter_context(servers.store(folder / "store", image)),
            stack.enter_context(servers.tgt(folder / "tgt", image)),
            stack.enter_context(servers.loop(folder / "loop", image)),
            stack.enter_context(servers.bare(folder / "bare", image)),
        ]
        fill = Work("seq", 32768, 8, seconds=1.0)
        for server in all_four:
            measured(server.pid, server.logins(1), fill)
        found = []
        for clients, each in work:
            rounds = [
                [measured(server.pid, server.logins(clients), _timed(each)) for server in all_four]
                for _ in range(ROUNDS)
            ]
            found.append([middle([samples[n] for samples in rounds]) for n in range(len(all_four))])
    return found


def _timed(work: Work) -> Work:
    return Work(work.mode, work.size, work.depth, REGION, SECONDS)
