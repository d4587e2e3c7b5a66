"""Run the rigs. See the package's text."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import structlog

from soak.page import Result, render, write
from soak.table import RIGS, Rig


def run(rig: Rig, seed: int, scale: float) -> Result:
    """One rig in a folder of its own."""
    count = max(1, round(rig.count * scale))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"bootlink-soak-{rig.name}-") as folder:
        figures = rig.run(count, seed, Path(folder))
    return Result(rig, count, time.monotonic() - started, figures)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("rigs", nargs="*", choices=[*(rig.name for rig in RIGS), []], help="only these")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--scale", type=float, default=1.0, help="of the full counts")
    chosen = parser.parse_args(arguments)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of what is sent to a process that was killed
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    results = []
    for rig in RIGS:
        if not chosen.rigs or rig.name in chosen.rigs:
            print(f"{rig.name}: {rig.shows}, seed {chosen.seed}", flush=True)
            result = run(rig, chosen.seed, chosen.scale)
            results.append(result)
            print(f"  {result.count:,} in {result.seconds:.0f} s: {result.figures}", flush=True)
    if not chosen.rigs and chosen.scale >= 1:
        write(render(results, chosen.seed, datetime.now(UTC).date()))
    return 0


sys.exit(main(sys.argv[1:]))
