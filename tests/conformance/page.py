"""The generated blocks of docs/conformance.md: the figures of a run, and what does not simply pass."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterator
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Final

from conformance.expected import DEFECTS, SKIPS
from conformance.tool import CRASHED, FAILED, PASSED, SKIPPED, Verdict

PAGE: Final = Path(__file__).parents[2] / "docs" / "conformance.md"
FIGURES: Final = ("<!-- figures: written by `make conformance` -->", "<!-- end of figures -->")
EXCEPTIONS: Final = ("<!-- exceptions: written by `make conformance` -->", "<!-- end of exceptions -->")
ORDER: Final = (PASSED, SKIPPED, FAILED, CRASHED)

Verdicts = dict[str, Verdict]


def figures(runs: dict[str, tuple[Verdicts, Verdicts]], versions: str, day: date) -> str:
    """The table of a run: target -> verdicts (each alone, all in one process)."""
    rows = [
        f"| {target} | {form} | {' | '.join(str(count) for count in _counts(verdicts))} |"
        for target, pair in runs.items()
        for form, verdicts in zip(("each test alone", "all in one process"), pair, strict=True)
    ]
    return "\n".join(
        (
            FIGURES[0],
            "",
            f"Run on {day.isoformat()}: {versions}, Linux {platform.release()}, {os.cpu_count()} cores.",
            "",
            "| target | run | passed | skipped | failed | crashed |",
            "|---|---|---:|---:|---:|---:|",
            *rows,
            "",
            *_failures(runs),
            FIGURES[1],
        )
    )


def _counts(verdicts: Verdicts) -> list[int]:
    held = Counter(verdict.what for verdict in verdicts.values())
    return [held[what] for what in ORDER]


def _failures(runs: dict[str, tuple[Verdicts, Verdicts]]) -> Iterator[str]:
    for target, (alone, whole) in runs.items():
        for form, verdicts in (("alone", alone), ("in one process", whole)):
            bad = [name for name, verdict in verdicts.items() if verdict.what in (FAILED, CRASHED)]
            yield f"- {target}, {form}, failed or crashed: {', '.join(bad) or 'none'}."
    yield ""


def exceptions() -> str:
    """The skips with their reasons, and the defects of the tool."""
    lines = [EXCEPTIONS[0], "", "| skipped | why |", "|---|---|"]
    for why, names in groupby(sorted(SKIPS, key=lambda name: (SKIPS[name], name)), key=lambda name: SKIPS[name]):
        lines.append(f"| {', '.join(names)} | {why} |")
    lines += ["", f"In all {len(SKIPS)} of 230.", "", "| fails | how | why | shown by |", "|---|---|---|---|"]
    for name, defect in DEFECTS.items():
        how = "alone and in a whole run" if defect.whole else "alone only"
        lines.append(f"| {name} | {how} | {defect.why} | `{defect.proof}` |")
    return "\n".join((*lines, "", EXCEPTIONS[1]))


def figures_are_there() -> bool:
    """Whether a run has been written into the page."""
    return "| Bootlink | each test alone |" in PAGE.read_text()


def write(*blocks: str) -> None:
    """Put each block in the place of the former one."""
    text = PAGE.read_text()
    for block in blocks:
        begin, end = block.splitlines()[0], block.splitlines()[-1]
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = before + block + after
    PAGE.write_text(text)
