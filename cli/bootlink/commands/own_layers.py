"""`bootlink link own-layer|rebase|drop-own-layer`: what a PC has of its own over a version of an image."""

from __future__ import annotations

from typing import Annotated

import typer

from bootlink import api
from bootlink.commands.clients import Client
from bootlink.commands.links import app, print_link
from bootlink.output import AsJson, moment, print_facts, print_json, size

Lun = Annotated[int, typer.Option(help="Which of its disks.", min=0, max=254)]
Meant = Annotated[bool, typer.Option("--yes", help="Go on although something is lost.")]


@app.command("own-layer")
def show_own_layer(client: Client, lun: Lun = 0, as_json: AsJson = False) -> None:
    """Show what a client has of its own over a version of an image."""
    own = api.from_environment().get("clients", client, "own-layer", lun=lun)
    if as_json:
        print_json(own)
        return
    print_facts(
        {
            "own layer of": client,
            "over": f"{own['image']}, version {own['version']}",
            "sealed": f"{size(own['sealed'])} on {moment(own['sealed_at'])}"
            if own["sealed"] is not None
            else "nothing",
            "written since": size(own["unsealed"]),
            "before its rebase": f"version {own['former_version']}, held until {moment(own['undo_until'])}"
            if own["former_version"]
            else None,
        }
    )


@app.command()
def rebase(
    client: Client,
    channel: Annotated[str | None, typer.Option(help="To what this channel shows; unset: production.")] = None,
    version: Annotated[int | None, typer.Option(help="To this version.", min=1)] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the last rebase back.")] = False,
    lun: Lun = 0,
    meant: Meant = False,
    as_json: AsJson = False,
) -> None:
    """Begin a client's own layer anew upon another version; says what is lost, and does nothing then without --yes."""
    body = {"channel": channel, "version": version, "undo": undo, "accept_loss": meant}
    link = api.from_environment().post("clients", client, "own-layer", "rebase", body=body, lun=lun)
    print_link(link, as_json=as_json)


@app.command("drop-own-layer")
def drop_own_layer(client: Client, lun: Lun = 0, meant: Meant = False) -> None:
    """Throw a client's own layer away that its link does not name."""
    api.from_environment().delete("clients", client, "own-layer", lun=lun, accept_loss="true" if meant else None)
    print_facts({"thrown away": f"the own layer of {client}"})
