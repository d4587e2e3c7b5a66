"""What commands print: tables and facts for people, JSON for programs, errors on stderr.

With `--json` a command writes one JSON document to stdout and nothing else there.

Much of what is printed came from others: notes, what a stranger's PC calls itself, files' names. A terminal obeys
control characters (ESC sets its title, moves its cursor, hides lines), so none of theirs reaches it: each is shown as
an escape.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH: Final = 200  # columns where no terminal says how many it has; names and paths stay whole
LAID_OUT_MOST: Final = 500  # rows that are fitted to the terminal; rich takes 1.5 ms for each, ten thousand take 16 s
_GAP: Final = 2  # blanks between columns
MIB: Final = 1024**2

# C0, DEL and C1, which terminals obey, and what turns the direction of writing, which hides what a line says.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CONTROL_BUT_LINES: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

AsJson = Annotated[bool, typer.Option("--json", help="Plain JSON on stdout.")]


def console() -> Console:
    """The console for people. Without a terminal: wide, and without colour."""
    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else PIPE_WIDTH, highlight=False, soft_wrap=not terminal)


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(safe_json(json.dumps(data, indent=2, ensure_ascii=False, default=str)) + "\n")


def safe_json(document: str) -> str:
    """The same JSON without a character that a terminal obeys. JSON itself escapes those below the blank alone."""
    return _CONTROL_BUT_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def shown(text: str, *, lines: bool = False) -> str:
    """`text` as it may be printed: control characters as escapes, and a new line as a blank unless `lines`."""
    plain = text if lines else text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    return (_CONTROL_BUT_LINES if lines else _CONTROL).sub(_escape, plain)


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """A table, or the line `empty` when there is no row."""
    cells = [[cell if isinstance(cell, Text) else text_of(cell) for cell in row] for row in rows]
    if not cells:
        console().print(empty)
    elif len(cells) > LAID_OUT_MOST:
        _print_plain([list(columns), *cells])
    else:
        _print_laid_out(columns, [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in cells])


def _print_laid_out(columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    """Columns fitted to the terminal, broken at blanks alone: an id or a path is there to be copied. Where they do not
    fit so, each row is one line, which the terminal breaks where it ends."""
    out = console()
    texts = [[column, *(cell.plain for cell in cells)] for column, *cells in zip(columns, *rows, strict=True)]
    widths = [max(map(cell_len, column)) for column in texts]
    least = [max(cell_len(word) for text in column for word in (*text.split(), "")) for column in texts]
    room = out.width - _GAP * len(widths)
    if sum(least) > room:
        out.width = sum(widths) + _GAP * len(widths)
    else:
        while sum(widths) > room:
            _, widest = max((width, n) for n, width in enumerate(widths) if width > least[n])
            widths[widest] -= 1
    table = Table(box=None, header_style="bold", padding=(0, _GAP, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, overflow="fold", width=width)
    for row in rows:
        table.add_row(*row)
    out.print(table, crop=False)


def _print_plain(lines: Sequence[Sequence[str | Text]]) -> None:
    """Columns as wide as their widest cell, without colours."""
    texts = [[cell.plain if isinstance(cell, Text) else cell for cell in line] for line in lines]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    out = []
    for line in texts:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        out.append("  ".join(padded).rstrip() + "\n")
    sys.stdout.write("".join(out))


def print_facts(facts: Mapping[str, Any]) -> None:
    """One thing: a name and a value per line; what is None is left out."""
    out = console()
    known = {name: value for name, value in facts.items() if value is not None and value != ""}
    width = max((len(name) for name in known), default=0)
    for name, value in known.items():
        out.print(Text.assemble((name.ljust(width), "bold"), "  ", text_of(value)))


def print_error(problem: str, remedy: str, lines: Sequence[str] = ()) -> None:
    """What is wrong, in detail where there is more to tell, and what to do, on stderr."""
    details = "".join(f"  {line}\n" for line in lines)
    sys.stderr.write(shown(f"error: {problem}\n{details}  what to do: {remedy}\n", lines=True))


def text_of(value: Any) -> str:
    """A value in words, as it may be printed."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(v) for v in value) or "-"
    return shown(str(value))


def size(count: int | None) -> str | None:
    """Bytes for people."""
    if count is None:
        return None
    if count >= 1024 * MIB:
        return f"{count / (1024 * MIB):.1f} GiB"
    return f"{count / MIB:.1f} MiB"


def moment(text: str | None) -> str | None:
    """A time of the API in this machine's time zone, to the second."""
    if not text:
        return None
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
