"""`bootlink client super|commit|abandon|undo-reboot|writebacks`: what a PC wrote, and what becomes of it."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from bootlink import api, references
from bootlink.commands.clients import Client, app
from bootlink.jobs import follow
from bootlink.output import AsJson, moment, print_facts, print_json, print_table, size

Boot = Annotated[str | None, typer.Option("--boot", help="The boot, as `bootlink client writebacks` shows it.")]


@app.command("super")
def super_client(
    client: Client,
    image: Annotated[
        str, typer.Option(help="The image, a channel or a version of it.", metavar="IMAGE[:CHANNEL|:VERSION]")
    ],
    version: Annotated[int | None, typer.Option(help="Write upon this version instead of a channel's.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Make a client a super client from its next boot on: what it writes may become a version of the image."""
    linked = references.parse_with(image, version)
    body = {"image": linked.image, **linked.wish()}
    branch = api.from_environment().put("clients", client, "branch", body=body)
    if as_json:
        print_json(branch)
        return
    print_facts(
        {
            "super client": branch["client"],
            "image": branch["image"],
            "writes upon": f"version {branch['base']}",
            "since": moment(branch["created"]),
            "next": f"boot it, make the changes, shut it down; then: bootlink client commit {branch['client']}",
        }
    )


@app.command()
def commit(
    client: Client,
    note: Annotated[str, typer.Option(help="What is new in the version.")] = "",
    boot: Boot = None,
    lun: Annotated[int, typer.Option(help="Which disk of that boot.", min=0, max=254)] = 0,
    stay: Annotated[bool, typer.Option("--stay", help="It stays a super client, upon the new version.")] = False,
    running: Annotated[
        bool, typer.Option("--running", help="It may be running: what it has flushed becomes the version.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show its progress until it is done.")] = True,
    as_json: AsJson = False,
) -> None:
    """Make a version of what a super client wrote; or, with --boot, of what a client wrote in a boot of the past."""
    registry = api.from_environment()
    body = {"note": note, "boot_id": boot, "lun": lun, "stay": stay, "running": running}
    job = registry.post("clients", client, "commit", body=body)
    if wait:
        job = follow(registry, job, quiet=as_json)
    if as_json:
        print_json(job)
        return
    result = job["result"]
    if result is None:
        print_facts({"job": job["id"], "look": f"bootlink job show {job['id']}"})
        return
    for note_of_it in result["notes"]:
        sys.stderr.write(f"note: {note_of_it}\n")
    print_facts(
        {
            "image": result["image"],
            "version": result["version"],
            "upon": f"version {result['parent']}",
            "file": result["file"],
            "size": size(result["size"]),
            "branch": result["branch"] if boot is None else None,
            "next": f"bootlink image publish {result['image']}:{result['version']}",
        }
    )


@app.command()
def abandon(client: Client, boot: Boot = None) -> None:
    """Make a super client an ordinary one again; what it wrote is thrown away once it is off.

    With --boot: throw away what a client wrote in that boot after a version was made of it, and which was left.
    """
    registry = api.from_environment()
    if boot is not None:
        registry.delete("clients", client, "writebacks", boot)
        print_facts({"thrown away": f"what {client} wrote in boot {boot}"})
        return
    registry.delete("clients", client, "branch")
    print_facts({"abandoned": client, "next": "it boots by its links again, from its next boot on"})


@app.command("branches")
def list_branches(
    image: Annotated[str | None, typer.Option(help="Only those of this image.")] = None, as_json: AsJson = False
) -> None:
    """List the super clients."""
    branches = api.from_environment().listing("branches", image=image)
    if as_json:
        print_json(branches)
        return
    print_table(
        ("super client", "image", "writes upon", "since", "by"),
        [(b["client"], b["image"], f"version {b['base']}", moment(b["created"]), b["author"]) for b in branches],
        empty="there are no super clients; make one: bootlink client super CLIENT --image IMAGE",
    )


@app.command()
def writebacks(client: Client, as_json: AsJson = False) -> None:
    """List what the block stores hold of a client's writes: what can come back, or become a version."""
    held = api.from_environment().get("clients", client, "writebacks")
    if as_json:
        print_json(held)
        return
    print_table(
        ("boot", "disk", "image", "policy", "state", "size", "since", "block store"),
        [_writeback(one) for one in held],
        empty=f"nothing that {client} wrote is held",
    )


@app.command("leave-node")
def leave_node(client: Client) -> None:
    """Give up what a client keeps on a block store that is gone: it begins empty on another one.

    Refused while that block store runs. What lies there stays there, should it come back.
    """
    api.from_environment().delete("clients", client, "home")
    print_facts({"given up": f"what {client} keeps", "next": "its next boot begins empty, on another block store"})


@app.command("undo-reboot")
def undo_reboot(client: Client, boot: Boot = None, as_json: AsJson = False) -> None:
    """Give a client's next boot back what it wrote before its last restart threw that away."""
    back = api.from_environment().post("clients", client, "undo-reboot", body={"boot_id": boot})
    if as_json:
        print_json(back)
        return
    print_table(
        ("boot", "disk", "image", "policy", "state", "size", "since", "block store"),
        [_writeback(one) for one in back],
        empty="nothing comes back",
    )


def _writeback(one: dict[str, Any]) -> tuple[Any, ...]:
    state = f"{one['state']}, comes back" if one["returning"] else one["state"]
    state = f"{state}, left" if one["left"] else state
    return (
        *(one["boot_id"], one["lun"], f"{one['image']}:{one['version']}", one["policy"], state),
        *(size(one["bytes"]), moment(one["since"]), one["node"]),
    )
