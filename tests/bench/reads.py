"""Cached reads, at random and in sequence, of one client and of many: Bootlink, tgt and the bare loop in turns."""

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
ROUNDS = 5
SECONDS = 0.3
TIMES_TGT = 2.0
TIMES_TGT_SEQUENTIAL = 3.0
TIMES_LOOP = 2.0
SATURATED = 0.9  # share of its core from which a server counts as the limit


def random_reads(folder: Path) -> Section:
    cells = [(size, clients, depth) for size in SIZES for clients in CLIENTS for depth in DEPTHS]
    found = _in_turns(folder, [(clients, Work("rand", size, depth)) for size, clients, depth in cells])
    rows, rates, costs = [], [], []
    for (size, clients, depth), (ours, tgt, loop) in zip(cells, found, strict=True):
        fast, lean = ours.rate / tgt.rate, ours.cost / loop.cost
        waits = tgt.server_cpu / tgt.seconds < SATURATED
        rates.append((fast >= TIMES_TGT or waits, fast, f"{size >> 10} KiB, {clients} clients, depth {depth}"))
        costs.append((lean <= TIMES_LOOP, lean, f"{size >> 10} KiB, {clients} clients, depth {depth}"))
        rows.append(
            (
                f"{size >> 10} KiB, {clients} x {depth}",
                *(f"{sample.rate:,.0f}{'†' if sample.client_limited else ''}" for sample in (ours, tgt, loop)),
                f"{fast:.1f} x",
                "waits" if waits and fast < TIMES_TGT else yes(fast >= TIMES_TGT),
                *(f"{sample.cost:.1f}" for sample in (ours, tgt, loop)),
                f"{lean:.1f} x",
                yes(lean <= TIMES_LOOP),
                *(f"{sample.p99:,.0f}" for sample in (ours, tgt)),
            )
        )
    head = ["size, clients x depth", "Bootlink op/s", "tgt", "loop", "to tgt", f"≥ {TIMES_TGT:g} x", "Bootlink CPU µs"]
    head += ["tgt", "loop", "to loop", f"≤ {TIMES_LOOP:g} x", "Bootlink p99 µs", "tgt"]
    text = table(head, rows) + (
        "\n† the client was the limit. *waits*: tgt's core was not busy, so it waited for the client, and the "
        "round trip, not tgt, sets its rate.\n"
    )
    worst_rate, worst_cost = min(rates), max(costs, key=lambda cost: cost[1])
    good = (sum(rate[0] for rate in rates), sum(cost[0] for cost in costs))
    return Section(
        "Cached random reads",
        text,
        (
            Goal(
                f"random reads: {TIMES_TGT:g} x tgt's rate where tgt does not wait for the client",
                good[0] == len(cells),
                f"{good[0]} of {len(cells)}; least {worst_rate[1]:.1f} x ({worst_rate[2]})",
            ),
            Goal(
                f"random reads: CPU per operation within {TIMES_LOOP:g} x of the bare loop",
                good[1] == len(cells),
                f"{good[1]} of {len(cells)}; most {worst_cost[1]:.1f} x ({worst_cost[2]})",
            ),
        ),
    )


def sequential_reads(folder: Path) -> Section:
    found = _in_turns(folder, [(clients, Work("seq", size, depth)) for size, clients, depth in SEQUENTIAL])
    rows, ratios = [], []
    for (size, clients, depth), (ours, tgt, loop) in zip(SEQUENTIAL, found, strict=True):
        ratios.append(ours.rate / tgt.rate)
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
                f"{min(ratios):.1f} to {max(ratios):.1f} x",
            ),
        ),
    )


def _in_turns(folder: Path, work: list[tuple[int, Work]]) -> list[list[Sample]]:
    """For each work, what each of the three servers gave; everything is in memory before."""
    image = servers.make_disk(folder / "disk.raw", DISK)
    with ExitStack() as stack:
        all_three = [
            stack.enter_context(servers.store(folder / "store", image)),
            stack.enter_context(servers.tgt(folder / "tgt", image)),
            stack.enter_context(servers.loop(folder / "loop", image)),
        ]
        fill = Work("seq", 32768, 8, seconds=1.0)
        for server in all_three:
            measured(server.pid, server.logins(1), fill)
        found = []
        for clients, each in work:
            rounds = [
                [measured(server.pid, server.logins(clients), _timed(each)) for server in all_three]
                for _ in range(ROUNDS)
            ]
            found.append([middle([samples[n] for samples in rounds]) for n in range(len(all_three))])
    return found


def _timed(work: Work) -> Work:
    return Work(work.mode, work.size, work.depth, REGION, SECONDS)
