"""A laid-out waterfall as lines, for any width, and readable without colour.

      start      took  who         stage                             0 s                          14.8 s
     +0.000     0.012  dhcp        address 10.77.0.50 to firmware    █
     +0.012     1.990              idle: no request from the PC       ····
     +9.310    12.044  blockstore  firmware's disk session                          ━━▓▓▓▓▓━━━━━━━━━▶
                                   812 reads, 23.4 MiB, first read +9.402

`█` a stage, `▓` a session's I/O, `━` a session that is open, `·` nobody asks, `▶` goes on, `x` failed.
"""

from __future__ import annotations

from typing import Final

from rich.text import Text

from bootlink.waterfall.layout import Row, Span, Waterfall

WIDTH_LEAST: Final = 72  # columns; below it the bar has no room and lines wrap
_TIME = 9
_WHO = 10
_GAP = "  "
_BAR_LEAST = 16
_WHAT_MOST = 36

BLOCK, IO, OPEN, IDLE, GOES_ON, FAILED = "█", "▓", "━", "·", "▶", "x"
_STYLES = {"stage": "cyan", "session": "blue", "gap": "bright_black", "failure": "bold red"}


def lines(waterfall: Waterfall, *, width: int = 100) -> list[str]:
    """The waterfall as plain lines, none longer than `width` (but never narrower than WIDTH_LEAST)."""
    return [text.plain.rstrip() for text in styled(waterfall, width=width)]


def styled(waterfall: Waterfall, *, width: int = 100) -> list[Text]:
    """The same lines with colour for terminals that have it."""
    width = max(width, WIDTH_LEAST)
    left = 2 * (_TIME + len(_GAP)) + _WHO + len(_GAP)
    what = min(_WHAT_MOST, width - left - len(_GAP) - _BAR_LEAST)
    bar = width - left - what - len(_GAP)
    text = [Text(_columns("start", "took", "who", "stage", what) + _scale(waterfall.axis, bar), style="bold")]
    for row in waterfall.rows:
        style = _STYLES[row.kind]
        took = "" if row.still_open else _seconds(row.span.seconds)
        line = Text(_columns(f"+{_seconds(row.span.start)}", took, row.who, row.what, what))
        if row.kind in ("gap", "failure"):
            line.stylize(style)
        line.append(_bar(row, waterfall.axis, bar), style=style)
        text.append(line)
        for part in _wrapped(row.note, width - left):
            text.append(Text(" " * left + part, style="bright_black"))
    idle = f"; {_spoken(waterfall.idle)} of it idle" if waterfall.idle else ""
    text.append(Text(f"{_spoken(waterfall.total)} {waterfall.reached}{idle}", style="bold"))
    return text


def _columns(start: str, took: str, who: str, stage: str, what: int) -> str:
    cells = (start.rjust(_TIME), took.rjust(_TIME), _cut(who, _WHO).ljust(_WHO), _cut(stage, what).ljust(what), "")
    return _GAP.join(cells)


def _bar(row: Row, axis: float, width: int) -> str:
    cells = [" "] * width
    glyph = {"stage": BLOCK, "session": OPEN, "gap": IDLE, "failure": FAILED}[row.kind]
    span = Span(row.span.start, axis) if row.still_open else row.span
    _fill(cells, span, axis, glyph)
    if row.busy is not None:
        _fill(cells, row.busy, axis, IO)
    if row.goes_on or row.still_open:
        cells[-1] = GOES_ON
    return "".join(cells)


def _fill(cells: list[str], span: Span, axis: float, glyph: str) -> None:
    """Draw a span. What happened gets a cell, however short it was; what lies beyond the axis is cut."""
    width = len(cells)
    first = min(int(span.start / axis * width), width - 1)
    last = max(first + 1, min(round(span.end / axis * width), width))
    for cell in range(first, last):
        cells[cell] = glyph


def _scale(axis: float, width: int) -> str:
    end = _spoken(axis)
    return "0 s" + end.rjust(width - 3)


def _seconds(seconds: float) -> str:
    """At most eight characters, with as many digits as still mean something."""
    if seconds < 1000:
        return f"{seconds:.3f}"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 100:
        return f"{hours}h{minutes:02}m"
    return f"{hours // 24}d{hours % 24:02}h"


def _spoken(seconds: float) -> str:
    """With its unit."""
    return f"{_seconds(seconds)} s" if seconds < 1000 else _seconds(seconds)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _wrapped(note: str, width: int) -> list[str]:
    """`note` in lines of at most `width`, broken between words."""
    result: list[str] = []
    for word in note.split():
        if result and len(result[-1]) + 1 + len(word) <= width:
            result[-1] += f" {word}"
        else:
            result.append(_cut(word, width))
    return result
