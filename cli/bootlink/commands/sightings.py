"""`bootlink client sightings|accept|forget`: PCs that asked and are no clients."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bootlink import api
from bootlink.commands.clients import app
from bootlink.output import AsJson, moment, print_facts, print_json, print_table

Seen = Annotated[str, typer.Argument(help="Its MAC address.", metavar="MAC")]


@app.command()
def sightings(as_json: AsJson = False) -> None:
    """List PCs that asked and were not let in, the latest first."""
    seen = api.from_environment().get("sightings", limit=1000)["items"]
    if as_json:
        print_json(seen)
        return
    print_table(
        ("mac", "architecture", "firmware", "first seen", "last seen"),
        [(s["mac"], s["arch"], s["vendor_class"], moment(s["first_seen"]), moment(s["last_seen"])) for s in seen],
        empty="no unknown PC was seen; where enrolment accepts them, they are clients at once",
    )


@app.command()
def accept(
    mac: Seen,
    name: Annotated[str | None, typer.Option(help="What to call it; unset: the next free pc-NNN.")] = None,
    group: Annotated[str | None, typer.Option(help="The group that it joins; unset: as enrolment says.")] = None,
    address: Annotated[str | None, typer.Option(help="An IPv4 address reserved for it.")] = None,
    note: Annotated[str | None, typer.Option(help="Whatever is worth knowing of it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a PC that asked a client. It boots at its next try, a few seconds later."""
    given = {"name": name, "group": group, "address": address, "note": note}
    body: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    client = api.from_environment().post("sightings", mac, "accept", body=body)
    if as_json:
        print_json(client)
        return
    print_facts({"client": client["name"], "mac": client["mac"], "group": client["group"]})


@app.command()
def forget(mac: Seen) -> None:
    """Take a PC out of the list of those that asked; it comes back when it asks again."""
    api.from_environment().delete("sightings", mac)
    print_facts({"forgotten": mac})
