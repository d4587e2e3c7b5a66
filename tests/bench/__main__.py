"""`python -m bench [ONLY]`: measure, and write docs/performance.md. ONLY names measures, separated by commas; then
nothing is written, and what was found is printed."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import dhcp, fairness, idle, machine, power_on, reads, registry, replacement, report, storm, tftp, writes
from bench.report import Section

MEASURES: Final[dict[str, Callable[[Path], Section]]] = {
    "reads": reads.random_reads,
    "sequential": reads.sequential_reads,
    "writes": writes.random_writes,
    "fairness": fairness.hits_beside_others,
    "storm": storm.boot_storm,
    "replacement": replacement.virus_scans,
    "idle": idle.idle_sessions,
    "registry": registry.registry,
    "dhcp": dhcp.exchanges,
    "tftp": tftp.transfers,
    "power-on": power_on.room,
}


def main() -> None:
    only = [name for name in "".join(sys.argv[1:2]).split(",") if name]
    unknown = [name for name in only if name not in MEASURES]
    if unknown:
        sys.exit(f"there is no measure {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    machine.CACHE.mkdir(parents=True, exist_ok=True)
    load = machine.load_average()
    began = time.monotonic()
    sections = []
    for name in only or MEASURES:
        print(f"{name} ... ", end="", file=sys.stderr, flush=True)
        before = time.monotonic()
        with tempfile.TemporaryDirectory(dir=machine.CACHE) as folder:
            sections.append(MEASURES[name](Path(folder)))
        print(f"{time.monotonic() - before:.0f} s", file=sys.stderr)
    page = report.page(sections, load, time.monotonic() - began)
    if only:
        print(page)
    else:
        report.PAGE.write_text(page)
        print(f"written: {report.PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
