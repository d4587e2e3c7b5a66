"""`bootlink events`: what happened, as it was told; stored events, and new ones as they come."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer
from rich.cells import cell_len
from rich.text import Text

from bootlink.output import console, safe_json, shown
from bootlink.settings import CommandSettings
from bootlink_events import ALL_EVENTS, PREFIX, CloudEvent, EventFilter, FilterError, Severity, parse_filter, takes_any
from bootlink_runtime import Bus, Health, connect_once, follow_numbered, logger

_AGO: Final = re.compile(r"(\d+)([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
SEQUENCE_DIGITS: Final = 16  # more than any stream reaches
_WHAT, _WHOSE = 20, 18  # columns
_BELOW: Final = 14  # columns before what goes on in the next line: below the event's name
_KEY_TOKEN: Final = 3  # what, which, and whose: `boot.started.52-54-00-12-34-56`


def events(
    go_on: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events as they come.")] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="Only these: 'type=boot.failed,writeback client=pc-07 severity>=warning data.image=win11'. All terms "
            "of one --filter hold; of several, any.",
            metavar="TERMS",
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="Only these: boot, boot.failed, boot.*.52-54-00-12-34-56 ...", metavar="WHAT"),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="From this time: 10m, 2h, 3d ago, or 2026-11-23T06:00Z.", metavar="TIME"),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(
            min=0, help="After this `sequence`, which --json tells of each: to go on there.", metavar="NUMBER"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One CloudEvent in JSON per line on stdout.")] = False,
) -> None:
    """Show stored events; with --follow the new ones, from now on, or from --since or --after."""
    if since is not None and after is not None:
        raise typer.BadParameter("--since and --after both say where to begin; give one of them")
    begin = parse_since(since, now=datetime.now(UTC)) if since else None
    if go_on and begin is None and after is None:
        begin = datetime.now(UTC)
    wanted = Wanted(subject_of(subject), filters_of(filters or ()))
    asyncio.run(_show(wanted, begin, after or 0, go_on=go_on, as_json=as_json))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events to show: what NATS sends, and what of that is taken."""

    said: str  # by --subject
    filters: tuple[EventFilter, ...]

    @property
    def subject(self) -> str:
        """What --subject says; else, of a single filter, what it can be narrowed to."""
        return self.filters[0].subject if self.said == ALL_EVENTS and len(self.filters) == 1 else self.said


async def _show(wanted: Wanted, begin: datetime | None, after: int, *, go_on: bool, as_json: bool) -> None:
    settings = CommandSettings.from_environment()
    url, access = settings.nats_url, settings.nats_access()
    # A bus never gives up; a command says at once that none is there.
    probe = await connect_once(url, "bootlink-events", access)
    await probe.close()
    health = Health("events", "command")
    bus = Bus(url, access=access, service="bootlink-events", node="command", log=logger("events"), health=health)
    bus.start()
    out = console()
    width = out.width if out.is_terminal else None
    count = 0
    try:
        async for sequence, event in follow_numbered(bus, subject=wanted.subject, since=begin, after=after, wait=go_on):
            if not takes_any(wanted.filters, event):
                continue
            count += 1
            if as_json:
                sys.stdout.write(safe_json(json_line(sequence, event)) + "\n")
                sys.stdout.flush()
            else:
                out.print(described(event, width), soft_wrap=True)
        if not count and width is not None and not as_json:  # a pipe is given events alone
            out.print("no such event is stored; --follow waits for new ones")
    finally:
        await bus.close()


def json_line(sequence: int, event: CloudEvent) -> str:
    """The event as it was published, with CloudEvents' sequence extension, whose texts sort as the numbers do."""
    told = event.model_dump(mode="json", exclude_none=True)
    data = told.pop("data")
    return json.dumps(told | {"sequence": f"{sequence:0{SEQUENCE_DIGITS}}", "data": data}, ensure_ascii=False)


def filters_of(texts: Sequence[str]) -> tuple[EventFilter, ...]:
    """What the `--filter` options say."""
    try:
        return tuple(parse_filter(text) for text in texts)
    except FilterError as error:
        raise typer.BadParameter(str(error)) from error


def subject_of(what: str | None) -> str:
    """The NATS subject for what `--subject` says, with or without the prefix and the key."""
    if not what:
        return ALL_EVENTS
    short = what.removeprefix(f"{PREFIX}.").strip(".")
    if not re.fullmatch(r"[A-Za-z0-9_*>.-]+", short) or ".." in short:
        raise typer.BadParameter(f"{what!r} is no subject; such as boot.failed, or boot.*.52-54-00-12-34-56")
    if short.endswith(">") or short.count(".") + 1 >= _KEY_TOKEN:
        return f"{PREFIX}.{short}"
    return f"{PREFIX}.{short}.>"


def parse_since(text: str, *, now: datetime) -> datetime:
    """The time that `--since` means. A time without a zone is this machine's."""
    try:
        if match := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is no time; such as 10m, 2h, 3d, or 2026-11-23T06:00Z") from error
    return moment.astimezone(UTC)


def described(event: CloudEvent, width: int | None = None) -> Text:
    """One line for people: when, what, whose, and the data that says more.

    On a terminal of `width` columns, what does not fit goes on below the event's name, broken at blanks alone.
    """
    when = event.time.astimezone().strftime("%H:%M:%S.%f")[:-3]
    what = event.type.removeprefix(f"{PREFIX}.")
    whose = shown(str(event.data.get("client") or event.subject))
    style = "red" if event.severity >= Severity.ERROR else "yellow" if event.severity >= Severity.WARN else ""
    text = Text.assemble((when, "bright_black"), "  ", (what.ljust(_WHAT), style), f"  {whose.ljust(_WHOSE)}")
    told = [shown(f"{name}={value}") for name, value in _details(event.data) if value != whose or name != "id"]
    if width is None:
        text.append("".join(f"  {part}" for part in told), style="bright_black")
        return text
    column = text.cell_len
    for part in told:
        gap = "  "
        for word in part.split():
            needed = cell_len(gap) + cell_len(word)
            if column + needed > width and column > _BELOW:
                text.rstrip()
                gap, column, needed = f"\n{' ' * _BELOW}", _BELOW, cell_len(word)
            text.append(gap + word, style="bright_black")
            gap, column = " ", column + needed
    return text


def _details(data: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """What a line tells beyond when, what and whose, as `--filter data.NAME=VALUE` calls it; not what is empty, nor a
    flag that is not set."""
    shown_elsewhere = () if within else ("mac", "client", "started", "ended", "at", "name")
    for name, value in data.items():
        if name in shown_elsewhere or value in (None, "", [], {}) or value is False:
            continue
        if isinstance(value, Mapping):
            yield from _details(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
