"""The generated block of docs/guarantees.md."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from rigs.figures import Figures
from soak.table import Rig

PAGE: Final = Path(__file__).parents[2] / "docs" / "guarantees.md"
BEGIN: Final = "<!-- what follows is written by `make soak` -->"
END: Final = "<!-- what was written by `make soak` ends here -->"


@dataclass(frozen=True)
class Result:
    """One rig's run."""

    rig: Rig
    count: int
    seconds: float
    figures: Figures


def render(results: list[Result], seed: int, day: date) -> str:
    """The block, markers included."""
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    rows = [
        f"| {r.rig.name} | {r.rig.shows} | {r.count:,} | {_words(r.figures)} | {r.seconds:,.0f} s |" for r in results
    ]
    return "\n".join(
        (
            BEGIN,
            "",
            f"Last run: {day.isoformat()}, seed {seed}, on {machine}. No violation.",
            "",
            "| rig | what it does | runs | figures | took |",
            "|---|---|---:|---|---:|",
            *rows,
            "",
            END,
        )
    )


def _words(figures: Figures) -> str:
    return "; ".join(f"{name}: {value if isinstance(value, str) else f'{value:,}'}" for name, value in figures.items())


def write(block: str, page: Path = PAGE) -> None:
    """Put the block in the place of the former one."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + block + after)
