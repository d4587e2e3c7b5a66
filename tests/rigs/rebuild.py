"""How long a restart takes to find out what a client wrote: the map is rebuilt from the file's extents.

The worst case is a file in which no two pages lie side by side: then each page is an extent of its own. The usual one
is measured beside it: the same number of pages in runs of 1 MiB. Both maps must be what was written.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from bootlink_blockstore.overlay import Overlay
from bootlink_blockstore.pagemap import PAGE, PRESENT
from rigs.figures import Figures, Violation

RUN: Final = (1 << 20) // PAGE
GIB: Final = (1 << 30) // PAGE


def _timed(count: int, run: int, path: Path) -> float:
    """Seconds to reopen an overlay of `count` pages in runs of `run`, with a run's length between them."""
    size = 2 * (count + run) * PAGE
    overlay = Overlay.create(path, size)
    data = b"x" * (run * PAGE)
    firsts = range(0, 2 * count, 2 * run)
    for first in firsts:
        overlay.write(first * PAGE, [data])
    os.fsync(overlay.fd)
    overlay.close()
    started = time.perf_counter()
    again = Overlay.reopen(path, size)
    took = time.perf_counter() - started
    again.close()
    if again.pages != len(firsts) * run or any(
        (state == PRESENT) != (start // PAGE % (2 * run) < run) for state, start, _ in again.runs(0, 2 * count * PAGE)
    ):
        raise Violation(f"the map of {count} pages in runs of {run} is not what was written")
    return took


def run(count: int, _seed: int, folder: Path) -> Figures:
    """`count` pages, twice."""
    worst = _timed(count, 1, folder / "worst.overlay")
    usual = _timed(count, RUN, folder / "usual.overlay")
    return {
        "pages": count,
        "seconds per GiB written, no two pages side by side": round(worst * GIB / count, 2),
        "seconds per GiB written, in runs of 1 MiB": round(usual * GIB / count, 3),
    }
