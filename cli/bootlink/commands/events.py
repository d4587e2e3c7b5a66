"""`bootlink events`: what happened, as it was told; stored events, and new ones as they come."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from bootlink.output import console, safe_json, shown
from bootlink.settings import CommandSettings
from bootlink_events import ALL_EVENTS, PREFIX, CloudEvent
from bootlink_runtime import Bus, Health, connect_once, follow, logger

_AGO: Final = re.compile(r"(\d+)([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_KEY_TOKEN: Final = 3  # what, which, and whose: `boot.started.52-54-00-12-34-56`


def events(
    go_on: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events as they come.")] = False,
    subject: Annotated[
        str | None,
        typer.Option(help="Only these: boot, boot.failed, boot.*.52-54-00-12-34-56 ...", metavar="WHAT"),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="From this time: 10m, 2h, 3d ago, or 2026-11-23T06:00Z.", metavar="TIME"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One CloudEvent in JSON per line on stdout.")] = False,
) -> None:
    """Show stored events; with --follow the new ones, from now on or from --since."""
    begin = parse_since(since, now=datetime.now(UTC)) if since else None
    if go_on and begin is None:
        begin = datetime.now(UTC)
    asyncio.run(_show(subject_of(subject), begin, go_on=go_on, as_json=as_json))


async def _show(subject: str, begin: datetime | None, *, go_on: bool, as_json: bool) -> None:
    url = CommandSettings.from_environment().nats_url
    probe = await connect_once(
        url, "bootlink-events"
    )  # a bus never gives up; a command says at once that none is there
    await probe.close()
    bus = Bus(url, service="bootlink-events", node="command", log=logger("events"), health=Health("events", "command"))
    bus.start()
    out = console()
    try:
        async for event in follow(bus, subject=subject, since=begin, wait=go_on):
            if as_json:
                sys.stdout.write(safe_json(event.payload().decode()) + "\n")
                sys.stdout.flush()
            else:
                out.print(described(event))
    finally:
        await bus.close()


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


def described(event: CloudEvent) -> Text:
    """One line for people: when, what, whose, and the data that says more."""
    when = event.time.astimezone().strftime("%H:%M:%S.%f")[:-3]
    what = event.type.removeprefix(f"{PREFIX}.")
    whose = str(event.data.get("client") or event.subject)
    text = Text.assemble((when, "bright_black"), f"  {what.ljust(20)}  {shown(whose).ljust(18)}")
    details = "  ".join(f"{name}={value}" for name, value in _details(event.data).items())
    text.append(f"  {shown(details)}", style="bright_black")
    return text


def _details(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a line tells beyond when, what and whose; not what is empty, nor a flag that is not set."""
    shown_elsewhere = ("mac", "client", "started", "ended", "at", "name")
    told = {name: value for name, value in data.items() if name not in shown_elsewhere and value is not False}
    return {name: value for name, value in told.items() if value not in (None, "")}
