"""What commands print: tables and facts for people, JSON for programs, errors on stderr.

With `--json` a command writes one JSON document to stdout and nothing else there.

Much of what is printed came from others: notes, what a stranger's PC calls itself, files' names. A terminal obeys
control characters (ESC sets its title, moves its cursor, hides lines), so none of theirs reaches it: each is shown as
an escape.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeGuard

import typer

if TYPE_CHECKING:  # loaded by what lays out for people: most of what programs ask for needs none of it
    from rich.console import Console
    from rich.text import Text

PIPE_WIDTH: Final = 200  # columns where no terminal says how many it has; names and paths stay whole
LAID_OUT_MOST: Final = 500  # rows that are fitted to the terminal, or indented as JSON; rich takes 1.5 ms for each
_GAP: Final = 2  # blanks between columns
MIB: Final = 1024**2
PROBLEM: Final = "error: "
REMEDY: Final = "what to do: "
NOTHING: Final = "-"  # in a cell where there is none

# C0, DEL and C1, which terminals obey, and what turns the direction of writing, which hides what a line says.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CONTROL_BUT_LINES: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

AsJson = Annotated[bool, typer.Option("--json", help="Plain JSON on stdout.")]


def console() -> Console:
    """The console for people. Without a terminal: wide, and without colour."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else PIPE_WIDTH, highlight=False, soft_wrap=not terminal)


def print_json(data: Any) -> None:
    """One JSON document on stdout; of a long listing each item is one line."""
    if isinstance(data, list) and len(data) > LAID_OUT_MOST:
        document = "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False, default=str) for item in data) + "\n]"
    else:
        document = json.dumps(data, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write(safe_json(document) + "\n")


def safe_json(document: str) -> str:
    """The same JSON without a character that a terminal obeys. JSON itself escapes those below the blank alone."""
    return _CONTROL_BUT_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def shown(text: str, *, lines: bool = False) -> str:
    """`text` as it may be printed: control characters as escapes, and a new line as a blank unless `lines`."""
    if text.isascii() and text.isprintable():
        return text
    plain = text if lines else text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    return (_CONTROL_BUT_LINES if lines else _CONTROL).sub(_escape, plain)


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """A table, or the line `empty` when there is no row. A column that says nothing in any row is left out."""
    cells = [[cell if _is_text(cell) else text_of(cell) for cell in row] for row in rows]
    telling = [any(row[n] not in (NOTHING, "") for row in cells) for n in range(len(columns))]
    columns = list(itertools.compress(columns, telling))
    cells = [list(itertools.compress(row, telling)) for row in cells]
    if not cells:
        console().print(empty)
    elif len(cells) > LAID_OUT_MOST:
        _print_plain([columns, *cells])
    else:
        _print_laid_out(columns, cells)


def _is_text(cell: Any) -> TypeGuard[Text]:
    """Whether a cell has colours. Nothing is one unless somebody has loaded rich's texts."""
    texts = sys.modules.get("rich.text")
    return texts is not None and isinstance(cell, texts.Text)


def _print_laid_out(columns: Sequence[str], cells: Sequence[Sequence[str | Text]]) -> None:
    """Columns fitted to the terminal, broken at blanks alone: an id or a path is there to be copied. Where they do not
    fit so, each row is one line, which the terminal breaks where it ends."""
    from rich.console import ConsoleDimensions
    from rich.table import Table
    from rich.text import Text

    out = console()
    rows = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in cells]
    texts = [[column, *(cell.plain for cell in cells)] for column, *cells in zip(columns, *rows, strict=True)]
    widths = [max(map(_width, column)) for column in texts]
    least = [max(_width(word) for text in column for word in (*text.split(), "")) for column in texts]
    gaps = _GAP * (len(widths) - 1)
    room = out.width - gaps
    if sum(least) > room:
        # The height, too: rich believes neither of a terminal that is called dumb, unless it is told both.
        out.size = ConsoleDimensions(sum(widths) + gaps, out.height)
    else:
        while sum(widths) > room:
            _, widest = max((width, n) for n, width in enumerate(widths) if width > least[n])
            widths[widest] -= 1
    table = Table(box=None, header_style="bold", padding=(0, _GAP, 0, 0), pad_edge=False)
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, overflow="fold", width=width)
    for row in rows:
        table.add_row(*row)
    out.print(table, crop=False)


def _print_plain(lines: Sequence[Sequence[str | Text]]) -> None:
    """Columns as wide as their widest cell, without colours."""
    texts = [[cell.plain if _is_text(cell) else cell for cell in line] for line in lines]
    columns = []
    for column in zip(*texts, strict=True):
        widths = [_width(cell) for cell in column]
        widest = max(widths)
        columns.append([cell + " " * (widest - width) for cell, width in zip(column, widths, strict=True)])
    sys.stdout.write("".join(f"{'  '.join(line).rstrip()}\n" for line in zip(*columns, strict=True)))


def _width(text: str) -> int:
    """Columns of a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def print_facts(facts: Mapping[str, Any]) -> None:
    """One thing: a name and a value per line; what is None is left out. A value that is too long for its line goes on
    below its own beginning; but an id or a path of that length stays whole, as it is there to be copied."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    known = {name: value for name, value in facts.items() if value is not None and value != ""}
    width = max((len(name) for name in known), default=0)
    for name, value in known.items():
        text = text_of(value)
        room = out.width - width - _GAP
        if not out.is_terminal or _width(text) <= room or max(map(_width, text.split()), default=0) > room:
            out.print(Text.assemble((name.ljust(width), "bold"), " " * _GAP, text), soft_wrap=True)
            continue
        line = Table.grid(padding=(0, _GAP, 0, 0))
        line.add_column(width=width, style="bold")
        line.add_column(width=room)
        line.add_row(Text(name), Text(text))
        out.print(line)


def print_error(problem: str, remedy: str, lines: Sequence[str] = ()) -> None:
    """What is wrong, in detail where there is more to tell, and what to do, on stderr."""
    details = "".join(f"  {line}\n" for line in lines)
    sys.stderr.write(shown(f"{PROBLEM}{problem}\n{details}  {REMEDY}{remedy}\n", lines=True))


def text_of(value: Any) -> str:
    """A value in words, as it may be printed."""
    if type(value) is str:
        return shown(value)
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(v) for v in value) or NOTHING
    return shown(str(value))


def size(count: int | None) -> str | None:
    """Bytes for people."""
    if count is None:
        return None
    if count >= 1024 * MIB:
        return f"{count / (1024 * MIB):.1f} GiB"
    return f"{count / MIB:.1f} MiB" if count >= MIB / 10 or not count else f"{count / 1024:.1f} KiB"


def moment(text: str | None) -> str | None:
    """A time of the API in this machine's time zone, to the second."""
    return _local(text, "%Y-%m-%d %H:%M:%S")


def minute(text: str | None) -> str | None:
    """The same to the minute, for listings."""
    return _local(text, "%Y-%m-%d %H:%M")


def _local(text: str | None, form: str) -> str | None:
    return datetime.fromisoformat(text).astimezone().strftime(form) if text else None
