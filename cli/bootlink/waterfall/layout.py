"""Stages on a time axis: which rows there are, in which order, and where each lies.

A boot is a row of short stages (an address, a file, a login) and of disk sessions that stay open while the PC works
by itself. Only stages, and the time in which a session really read or wrote, count as busy; what lies between is a
gap and gets a row of its own, also where a session is open around it.

The axis begins with the first stage. It ends with the last stage or with a session's last I/O, but a session may
lengthen it by half: an operating system that has been running for days must not squeeze its boot into one column.
Whatever goes on beyond the end is marked as going on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from bootlink.waterfall.stages import Stage

GAP_SHORTEST: Final = 0.05  # seconds; below it, a pause is the network's and the PC's ordinary round trip
GAP_SHARE: Final = 0.01  # of the axis; a shorter gap is not visible on it
SESSION_STRETCH: Final = 1.5  # times the boot without its sessions: how long a session may make the axis

RowKind = Literal["stage", "session", "failure", "gap"]


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the axis, in seconds from its beginning."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `busy` is the part of a session in which it did I/O; `goes_on` that it is longer than the axis."""

    kind: RowKind
    who: str
    what: str
    span: Span
    note: str = ""
    busy: Span | None = None
    goes_on: bool = False
    still_open: bool = False


@dataclass(frozen=True, slots=True)
class Waterfall:
    """A boot, laid out."""

    rows: tuple[Row, ...]
    axis: float
    """Seconds that the axis is long; more than 0."""
    total: float
    """Seconds from the first stage to the operating system's login, else to the last thing that was seen."""
    reached: str
    """What `total` leads to, in words."""
    idle: float
    """Seconds of `total` in which nobody asked the servers for anything."""


def lay_out(stages: Sequence[Stage]) -> Waterfall:
    """Lay out the stages of one boot, in whatever order they come. Without stages: a waterfall without rows."""
    if not stages:
        return Waterfall(rows=(), axis=1.0, total=0.0, reached="nothing was recorded", idle=0.0)
    ordered = sorted(stages, key=lambda s: (s.started, s.kind == "session", s.ended))
    zero = ordered[0].started

    def at(moment: datetime) -> float:
        return (moment - zero).total_seconds()

    rows = [_row(stage, at) for stage in ordered]
    axis = _axis(rows)
    rows = [replace(row, goes_on=row.span.end > axis) for row in rows]
    total, reached = _total(ordered, zero, axis)
    gaps = _gaps(rows, axis)
    idle = sum(min(gap.span.end, total) - gap.span.start for gap in gaps if gap.span.start < total)
    return Waterfall(rows=tuple(_woven(rows, gaps)), axis=axis, total=total, reached=reached, idle=idle)


def _row(stage: Stage, at: Callable[[datetime], float]) -> Row:
    span = Span(at(stage.started), max(at(stage.started), at(stage.ended)))
    busy = Span(at(stage.busy[0]), max(at(stage.busy[0]), at(stage.busy[1]))) if stage.busy else None
    return Row(
        kind=stage.kind,
        who=stage.who,
        what=stage.what,
        span=span,
        note=stage.note,
        busy=busy,
        still_open=stage.still_open,
    )


def _axis(rows: Sequence[Row]) -> float:
    sessions = [row for row in rows if row.kind == "session"]
    boot = max([row.span.end for row in rows if row.kind != "session"] + [row.span.start for row in sessions])
    if boot <= 0:  # nothing took any time but a session: the axis is the session's
        return max(row.span.end for row in rows) or GAP_SHORTEST
    last_io = max((row.busy.end for row in sessions if row.busy), default=0.0)
    return max(boot, min(last_io, SESSION_STRETCH * boot))


def _total(stages: Sequence[Stage], zero: datetime, axis: float) -> tuple[float, str]:
    failures = [s for s in stages if s.kind == "failure"]
    logins = [s for s in stages if s.reaches_system]
    if logins:
        return (min(s.ended for s in logins) - zero).total_seconds(), "to the operating system's login"
    if failures:
        return (failures[-1].ended - zero).total_seconds(), "until it failed"
    return axis, "to the last that was seen"


def _gaps(rows: Sequence[Row], axis: float) -> list[Row]:
    """The parts of the axis in which no stage ran and no session did I/O."""
    shortest = max(GAP_SHORTEST, GAP_SHARE * axis)
    gaps = []
    reached = 0.0
    for start, end in sorted(_busy(rows)):
        if start - reached >= shortest:
            gaps.append(Row("gap", "", "idle: no request from the PC", Span(reached, start)))
        reached = max(reached, end)
    return gaps


def _busy(rows: Sequence[Row]) -> list[tuple[float, float]]:
    busy = []
    for row in rows:
        if row.kind != "session":
            busy.append((row.span.start, row.span.end))
        elif row.busy is not None:
            busy.append((row.busy.start, row.busy.end))
    return busy


def _woven(rows: Sequence[Row], gaps: Sequence[Row]) -> list[Row]:
    """Rows and gaps in order of time; what begins where a gap begins comes before it."""
    return sorted([*rows, *gaps], key=lambda row: (row.span.start, row.kind == "gap"))
