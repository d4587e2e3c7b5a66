"""docs/performance.md, from what the measures found. Nothing in it is written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import machine

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
HEAD = """\
# Performance

Written by `make bench`; do not edit. Everything here was measured in one run: the block store with all that it does in
production, tgt as Debian brings it, and a bare epoll loop in C (`tests/bench/loop.c`) that answers the same reads from
memory and does nothing else; *uvloop* is the same in Python (`tests/bench/bare.py`), the floor of what the block store
is made with. One core serves and another one asks, over loopback. Figures are medians of rounds in
which the servers took turns. *CPU* is the server's time on its core, user and system, per operation. DHCP and TFTP are
measured beside Kea and tftpd-hpa over a virtual cable between two network namespaces.
"""


@dataclass(frozen=True)
class Goal:
    """What was to be reached, and what was seen."""

    what: str
    met: bool
    seen: str


@dataclass(frozen=True)
class Section:
    """What one measure found. `text` is Markdown."""

    title: str
    text: str
    goals: tuple[Goal, ...] = ()


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def yes(met: bool) -> str:
    return "yes" if met else "**no**"


def page(sections: Sequence[Section], load: str, seconds: float) -> str:
    """The whole page. `load` is the machine's before the first measure."""
    facts = [*machine.described(), ("measured", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, in {seconds:.0f} s")]
    facts.append(("load average before", load))
    goals = [(goal.what, yes(goal.met), goal.seen) for section in sections for goal in section.goals]
    parts = [HEAD, table(("machine", ""), facts), "## Goals\n", table(("goal", "met", "seen"), goals)]
    for section in sections:
        parts += [f"## {section.title}\n", section.text]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)
