"""`bootlink group`: clients that share links."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bootlink import api, starts
from bootlink.output import AsJson, print_facts, print_json, print_table

app = typer.Typer(name="group", help="Groups: clients that share links.", no_args_is_help=True)

Group = Annotated[str, typer.Argument(help="Its name.", metavar="GROUP")]


@app.command("list")
def list_groups(as_json: AsJson = False) -> None:
    """List the groups. One is there for as long as a client is in it or a link is for it."""
    groups = api.from_environment().listing("groups")
    if as_json:
        print_json(groups)
        return
    print_table(
        ("group", "clients", "disks"),
        [(g["name"], g["clients"], [_disk(link) for link in g["links"]]) for g in groups],
        empty="there are no groups yet; put a client into one: bootlink group move GROUP CLIENT",
    )


@app.command()
def show(group: Group, as_json: AsJson = False) -> None:
    """Show one group: its links and its clients."""
    registry = api.from_environment()
    found = registry.get("groups", group)
    clients = registry.listing("clients", group=group)
    if as_json:
        print_json(found | {"members": clients, "dhcp": registry.get("groups", group, "dhcp")})
        return
    settings = registry.get("groups", group, "dhcp")
    print_facts(
        {
            "group": found["name"],
            "disks": [_disk(link) for link in found["links"]] or None,
            "DHCP options": [f"{o['code']} = {o['value']}" for o in settings["options"]] or None,
            "loaders": [f"{describe(rule)}: {', '.join(rule['loaders'])}" for rule in settings["loaders"]] or None,
        }
    )
    print_table(
        ("client", "mac", "address", "disabled", "note"),
        [(c["name"], c["mac"], c["address"], c["disabled"], c["note"]) for c in clients],
        empty="no client is in it",
    )


@app.command()
def rename(
    group: Group,
    name: Annotated[str, typer.Argument(help="What to call it from now on.", metavar="NAME")],
    as_json: AsJson = False,
) -> None:
    """Give a group another name. Its clients and its links go with it."""
    _print(api.from_environment().patch("groups", group, body={"name": name}), as_json=as_json)


@app.command()
def move(
    group: Group,
    clients: Annotated[list[str], typer.Argument(help="Names or MAC addresses.", metavar="CLIENT...")],
    as_json: AsJson = False,
) -> None:
    """Put clients into a group, out of whichever they are in; all of them or none."""
    _print(api.from_environment().post("groups", group, "clients", body={"clients": clients}), as_json=as_json)


def _print(group: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(group)
        return
    disks = [_disk(link) for link in group["links"]]
    print_facts({"group": group["name"], "clients": group["clients"], "disks": disks or None})


def describe(rule: dict[str, Any]) -> str:
    """Which firmware a loader rule is for."""
    parts = [rule["arch"], rule["vendor_class"] and f"vendor class {rule['vendor_class']}", rule["model"]]
    return ", ".join(part for part in parts if part) or "every firmware"


def _disk(link: dict[str, Any]) -> str:
    where = f"LUN {link['lun']}: " if link["lun"] else ""
    if link["image"] is None:
        return f"{where}{starts.told(link['start'])}"
    return f"{where}{link['image']} ({link['channel'] or link['version']}, {link['policy']})"
