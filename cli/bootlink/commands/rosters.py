"""`bootlink client import|export`: all clients as one file."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from bootlink import api
from bootlink.commands.clients import app
from bootlink.errors import CommandError
from bootlink.output import AsJson, print_facts, print_json

STDIN: Final = Path("-")
_SUFFIXES: Final = {".csv": "csv", ".yaml": "yaml", ".yml": "yaml"}


class Format(StrEnum):
    """How the file is written."""

    csv = "csv"
    yaml = "yaml"


Form = Annotated[Format | None, typer.Option("--format", help="Unset: as the file's name ends.")]


@app.command("import")
def import_clients(
    file: Annotated[Path, typer.Argument(help="CSV or YAML; - is standard input.", metavar="FILE")],
    form: Form = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add and change many clients, and their own links, from one file: all of them, or none.

    The columns: mac, name, group, address, disabled, note; and of the link: image, channel, version, policy, chap. One
    that is not there leaves that of every client as it is; an empty cell takes it away.
    """
    told = _format(file, form)
    try:
        text = sys.stdin.read() if file == STDIN else file.read_text("utf-8-sig")
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}", "correct its name") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is not written in UTF-8", "save it so; spreadsheets ask when saving CSV") from error
    answer = api.from_environment().post("roster", body={"format": told, "text": text, "dry_run": dry_run})
    if as_json:
        print_json(answer)
        return
    would = "would be " if dry_run else ""
    print_facts({f"{would}{what}": answer[what] for what in ("added", "changed", "unchanged")})


@app.command("export")
def export_clients(
    file: Annotated[Path, typer.Argument(help="Where to write; - is standard output.", metavar="[FILE]")] = STDIN,
    form: Form = None,
) -> None:
    """Write all clients and their own links to a file that can be imported again."""
    text = api.from_environment().text("roster", format=_format(file, form or (Format.csv if file == STDIN else None)))
    if file == STDIN:
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, "utf-8", newline="")
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror}", "choose another place") from error


def _format(file: Path, form: Format | None) -> str:
    if form is not None:
        return form.value
    told = _SUFFIXES.get(file.suffix.lower())
    if told is None:
        raise typer.BadParameter(f"{file} ends neither in .csv nor in .yaml: say --format csv or --format yaml")
    return told
