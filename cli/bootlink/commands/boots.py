"""`bootlink boot`: the boots that were, and where their time went."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from bootlink import api
from bootlink.errors import CommandError
from bootlink.output import AsJson, console, moment, print_json, print_table, shown
from bootlink.waterfall import beside, lay_out, stages_of, styled

SHOWN: Final = 20  # boots in a list, unless told otherwise
WIDTH_MOST: Final = 160  # columns; wider, the eye loses the row between its words and its bar
WIDTH_PLAIN: Final = 100  # columns where no terminal says how many it has
_STYLES: Final = {"running": "green", "ended": "green", "failed": "bold red"}

app = typer.Typer(name="boot", help="Boots: each power-on of a PC, and where its time went.", no_args_is_help=True)

OfClient = Annotated[str | None, typer.Option(help="Of this client (name or MAC address).", metavar="PC")]


@app.command("list")
def list_boots(
    client: OfClient = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = SHOWN,
    as_json: AsJson = False,
) -> None:
    """List boots, newest first."""
    boots = api.from_environment().listing("boots", cursor="before", most=limit, client=client)
    if as_json:
        print_json(boots)
        return
    print_table(
        ("started", "client", "state", "took", "image", "boot"),
        [
            (
                moment(b["started"]),
                b["client"] or b["mac"],
                Text(b["state"], style=_STYLES.get(b["state"], "")),
                _until_system(b),
                f"{b['image']}:{b['version']}" if b["image"] else None,  # as commands are told it, and with no blank
                b["id"],
            )
            for b in boots
        ],
        empty="there are no boots yet; power on a PC",
    )


@app.command()
def show(
    boot: Annotated[str | None, typer.Argument(help="Its boot id; unset: the newest boot.", metavar="[BOOT]")] = None,
    client: OfClient = None,
    as_json: AsJson = False,
) -> None:
    """Show one boot as a waterfall: its stages, how long each took, and the idle gaps between them.

    Below it its steps, beside those of the client's boot before and of other PCs' from the same version.
    """
    if boot is not None and client is not None:
        raise typer.BadParameter("name a boot or a --client, not both")
    registry = api.from_environment()
    found = registry.get("boots", boot or _newest(registry, client))
    if as_json:
        print_json(found)
        return
    out = console()
    width = min(shutil.get_terminal_size((WIDTH_PLAIN, 0)).columns, WIDTH_MOST)
    for title in _title(found):
        out.print(Text(shown(title), style="bold"))
    stages = [replace(stage, what=shown(stage.what), note=shown(stage.note)) for stage in stages_of(found["stages"])]
    for line in styled(lay_out(stages), width=width):
        out.print(line)
    compared = beside(found["steps"], last=found["last"] is not None, peers=found["peers"], version=_image(found) or "")
    for line in compared:
        out.print(line if line is not compared[0] else Text("\n") + line)
    if failure := found.get("failure"):
        out.print(Text(shown(f"failed ({failure['stage']}): {failure['cause']}"), style="bold red"))
        out.print(shown(f"  what to do: {failure['remedy']}"), markup=False)


def _newest(registry: api.Api, client: str | None) -> str:
    boots = registry.listing("boots", cursor="before", most=1, client=client)
    if not boots:
        whose = f"client {client} has not booted yet" if client else "no PC has booted yet"
        raise CommandError(whose, "power it on, and look again" if client else "power one on, and look again")
    return str(boots[0]["id"])


def _title(boot: dict[str, Any]) -> tuple[str, str]:
    name = f"{boot['client']} ({boot['mac']})" if boot["client"] else str(boot["mac"])
    disk = f", {_image(boot)}, {boot['policy']}" if boot["image"] else ""
    return f"{name}, {moment(boot['started'])}{disk}: {boot['state']}", f"boot {boot['id']}"


def _image(boot: dict[str, Any]) -> str | None:
    return f"{boot['image']} v{boot['version']}" if boot["image"] else None


def _until_system(boot: dict[str, Any]) -> str | None:
    if not boot["os_attached"]:
        return None
    took = datetime.fromisoformat(boot["os_attached"]) - datetime.fromisoformat(boot["started"])
    return f"{took.total_seconds():.1f}s"  # without a blank, at which a narrow terminal's line would be broken
