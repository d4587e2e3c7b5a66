"""The clients as a table, in CSV or YAML: text in, rows out, and the other way round. Pure.

CSV: a header that names columns in any order, then a row for each client; the comma separates, or the semicolon where
the header has no comma, as spreadsheets write it in half of Europe. A byte order mark is passed over. YAML: a list of
mappings of the same names.

    mac, name, group, address, disabled, note     the client
    image, channel, version, policy, chap, boot   its own link for LUN 0; boot: how it starts (see `starts.written`)
    disks                                         its own links for further LUNs (see `further_disks`)

A column that is not there leaves that of every client as it is; an empty cell takes it away (a name it leaves, or takes
the next of the enrolment pattern). In YAML, nothing, `~` and `null` are empty.

A spreadsheet runs a cell that begins with = + - @ as a formula, whoever wrote the note in it. Such a cell gets an
apostrophe before it in a CSV file, which makes it text to a spreadsheet; reading takes that away again.

YAML is composed to nodes and never constructed: all scalars are text, because 52:54:00:12:34:56 without quotes is a
number to YAML 1.1, and an alias can make no more of a few lines than the lines that it names.

All problems are found, not just the first: whoever imports 300 PCs corrects them in one go.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from bootlink_events import Chap, Mac, Start
from bootlink_registry import further_disks, starts
from bootlink_registry.catalogue import Link
from bootlink_registry.names import ClientAddress, Name, Note
from bootlink_registry.problems import Problem, invalid, listed

ROWS_LIMIT: Final = 20_000  # clients of one file; twice what one registry is made for
Format = Literal["csv", "yaml"]

COLUMNS: Final = (
    *("mac", "name", "group", "address", "disabled", "note"),
    *("image", "channel", "version", "policy", "chap", "boot"),
    "disks",
)
LINK_COLUMNS: Final = frozenset({"channel", "version", "policy", "chap", "boot"})  # say how `image` is linked
_NULLABLE: Final = frozenset({"group", "address", "image", "channel", "version", "boot"})
_YAML_NOTHING: Final = frozenset({"", "~", "null"})
_FORMULA: Final = re.compile(r"'*[=+@\t\r\uff0b\uff0d\uff1d\uff20-]")  # or one that was made text before
_REMEDY: Final = f"the columns are {', '.join(COLUMNS)}; `bootlink client export` writes such a file"


class RosterRow(BaseModel):
    """One client, as a file wants it. What the file does not name is not among `model_fields_set`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mac: Mac
    name: Name | None = None
    group: Name | None = None
    address: ClientAddress | None = None
    disabled: bool = False
    note: Note = ""
    image: Name | None = None
    channel: Name | None = None
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    policy: Literal["discard", "keep"] = "discard"
    chap: Chap = "off"
    boot: Annotated[Start | None, BeforeValidator(lambda text: text and starts.read(text))] = None
    disks: str = ""

    @field_validator("disabled", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lower() not in ("yes", "no", "true", "false", "1", "0"):
            raise ValueError(f"{value!r} is neither yes nor no")
        return value

    @model_validator(mode="after")
    def _says_what_is_linked(self) -> RosterRow:
        if self.image is None and (self.channel is not None or self.version is not None):
            raise ValueError("it names a channel or a version, and no image")
        if self.channel is not None and self.version is not None:
            raise ValueError("it names a channel and a version; name one of them")
        return self

    @model_validator(mode="after")
    def _names_disks(self) -> RosterRow:
        try:
            self.further()
        except ValueError as error:
            raise ValueError(f"disks: {error}") from error
        return self

    def further(self) -> tuple[Link, ...]:
        """The links of its own for further disks."""
        return further_disks.read(self.mac, self.disks)


@dataclass(frozen=True, slots=True)
class Line:
    """A client and the line of the file that it begins on."""

    number: int
    row: RosterRow


@dataclass(frozen=True, slots=True, order=True)
class Wrong:
    """What is wrong on a line."""

    line: int
    problem: str


def read(text: str, form: Format) -> tuple[list[Line], list[Wrong]]:
    """The clients of a file, and all that is wrong with its rows. Problem if it is no table at all."""
    raw, wrong = _csv_rows(text) if form == "csv" else _yaml_rows(text)
    if len(raw) > ROWS_LIMIT:
        raise invalid(f"the file names more than {ROWS_LIMIT} clients", "import it in parts")
    lines = []
    for number, fields in raw:
        try:
            lines.append(Line(number, RosterRow.model_validate(_meant(fields))))
        except ValidationError as error:
            wrong += [Wrong(number, _told(one)) for one in error.errors()]
    return lines, sorted(wrong)


def _meant(fields: Mapping[str, str]) -> dict[str, Any]:
    """The fields as the model takes them: an empty one is None where that means something, or else its default."""
    meant: dict[str, Any] = {}
    for name, value in fields.items():
        if value or name in ("note", "disks"):
            meant[name] = value
        elif name in _NULLABLE:
            meant[name] = None
        elif name == "disabled":
            meant[name] = False
        elif name == "mac":
            meant[name] = ""
    return meant


def _told(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{where}: it is not there"
    return f"{where}: {message}" if where else message


Raw = tuple[list[tuple[int, dict[str, str]]], list[Wrong]]


def _csv_rows(text: str) -> Raw:
    text = text.removeprefix("\ufeff")
    first = text.partition("\n")[0]
    delimiter = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found: list[tuple[int, dict[str, str]]] = []
    wrong: list[Wrong] = []
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        _check_columns(header)
        while True:
            number = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return found, wrong
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                wrong.append(Wrong(number, f"it has {len(cells)} cells, and the header has {len(header)}"))
                continue
            found.append((number, dict(zip(header, map(_meant_cell, cells), strict=True))))
    except csv.Error as error:
        raise invalid(f"line {reader.line_num}: this is no CSV: {error}", _REMEDY) from error


def _check_columns(header: Sequence[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    strange = sorted(set(header) - set(COLUMNS))
    if strange or twice:
        what = f"no column is called {listed(map(repr, strange), len(strange))}" if strange else f"twice: {twice[0]}"
        raise invalid(f"the first line names the columns, and {what}", _REMEDY)
    if "mac" not in header:
        raise invalid("the first line names the columns, and mac is not among them", _REMEDY)
    if "image" not in header and LINK_COLUMNS & set(header):
        raise invalid(f"the column {min(LINK_COLUMNS & set(header))} says how an image is linked, and none is", _REMEDY)


def _yaml_rows(text: str) -> Raw:
    try:
        root = yaml.compose(text, Loader=yaml.CBaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise invalid(f"this is no YAML: {' '.join(str(error).split())}", _REMEDY) from error
    if root is None:
        return [], []
    if not isinstance(root, yaml.SequenceNode):
        raise invalid("this is no list of clients", f"write each as `- mac: ...`; {_REMEDY}")
    found: list[tuple[int, dict[str, str]]] = []
    wrong: list[Wrong] = []
    for node in root.value:
        number = node.start_mark.line + 1
        fields, why = _yaml_fields(node)
        if why:
            wrong.append(Wrong(number, why))
        else:
            found.append((number, fields))
    return found, wrong


def _yaml_fields(node: Any) -> tuple[dict[str, str], str]:
    """The fields of one client; or what is wrong with it."""
    if not isinstance(node, yaml.MappingNode):
        return {}, "it is no mapping of names to values"
    fields: dict[str, str] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            return {}, f"{getattr(key, 'value', '?')}: it is no single value"
        if key.value in fields:
            return {}, f"{key.value}: it is there twice"
        if key.value not in COLUMNS:
            return {}, f"{key.value!r} is nothing that a client has"
        plain = not value.style  # without quotes
        fields[key.value] = "" if plain and value.value in _YAML_NOTHING else value.value
    if "image" not in fields and LINK_COLUMNS & fields.keys():
        return {}, f"{min(LINK_COLUMNS & fields.keys())}: it says how an image is linked, and none is named"
    return fields, ""


# Writing


def write(rows: Iterable[Mapping[str, Any]], form: Format) -> str:
    """A file that `read` reads as these rows; each holds all COLUMNS. What is None is empty."""
    return _write_csv(rows) if form == "csv" else _write_yaml(rows)


def _write_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_inert(_cell(row[name])) for name in COLUMNS])
    return out.getvalue()


def _inert(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _meant_cell(cell: str) -> str:
    """What `_inert` made this of."""
    plain = cell.strip()
    return plain[1:] if plain.startswith("'") and _FORMULA.match(plain) else plain


def _write_yaml(rows: Iterable[Mapping[str, Any]]) -> str:
    # An empty own link is told by an empty image alone: the other columns would have nothing to say.
    shown = [
        {name: _cell(row[name]) for name in COLUMNS if row["image"] or row["boot"] or name not in LINK_COLUMNS}
        for row in rows
    ]
    return yaml.dump(shown, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True) if shown else ""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def refuse(wrong: Sequence[Wrong]) -> Problem:
    """The answer to a file that is wrong: every line of it is named."""
    lines = len({one.line for one in wrong})
    return Problem(
        422,
        f"{lines} {'line' if lines == 1 else 'lines'} of the file cannot be used; the first: "
        f"line {wrong[0].line}: {wrong[0].problem}",
        "correct them all and import the file again; nothing was changed",
        lines=[{"line": one.line, "problem": one.problem} for one in wrong],
    )
