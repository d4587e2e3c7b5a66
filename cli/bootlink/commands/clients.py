"""`bootlink client`: the PCs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bootlink import api
from bootlink.output import AsJson, moment, print_facts, print_json, print_table

app = typer.Typer(name="client", help="Clients: the PCs.", no_args_is_help=True)

Client = Annotated[str, typer.Argument(help="Its name or MAC address.", metavar="CLIENT")]


@app.command()
def add(
    mac: Annotated[str, typer.Argument(help="Its MAC address.", metavar="MAC")],
    name: Annotated[str | None, typer.Option(help="What to call it; unset: the next free pc-NNN.")] = None,
    group: Annotated[str | None, typer.Option(help="The group it belongs to.")] = None,
    address: Annotated[str | None, typer.Option(help="An IPv4 address reserved for it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a client, or name one that enrolled itself."""
    given = {"mac": mac, "name": name, "group": group, "address": address}
    client = api.from_environment().post("clients", body={k: v for k, v in given.items() if v is not None})
    if as_json:
        print_json(client)
        return
    print_facts(_facts(client))


@app.command("list")
def list_clients(
    group: Annotated[str | None, typer.Option(help="Only this group's.")] = None, as_json: AsJson = False
) -> None:
    """List the clients."""
    clients = api.from_environment().listing("clients", group=group)
    if as_json:
        print_json(clients)
        return
    print_table(
        ("client", "mac", "group", "address", "disabled", "came by itself"),
        [(c["name"], c["mac"], c["group"], c["address"], c["disabled"], c["enrolled"]) for c in clients],
        empty="there are no clients yet; power on a PC, or: bootlink client add MAC --name NAME",
    )


@app.command()
def show(client: Client, as_json: AsJson = False) -> None:
    """Show one client: what it boots, its target and portals, and its last boot."""
    found = api.from_environment().get("clients", client)
    plan = found["plan"]
    if as_json:
        print_json(found | {"target": plan["target"], "portals": plan["portals"]})
        return
    print_facts(_facts(found) | _plan(found, plan) | _last_boot(found.get("last_boot")))


def _facts(client: dict[str, Any]) -> dict[str, Any]:
    return {
        "client": client["name"],
        "mac": client["mac"],
        "group": client["group"],
        "address": client["address"],
        "disabled": client["disabled"] or None,
    }


def _plan(client: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    link, branch = client["link"], client["branch"]
    refusal = plan["refusal"]
    return {
        "super client": f"boots {branch['image']} (version {branch['base']}), and what it writes may become the next"
        if branch
        else None,
        "boots else" if branch else "boots": _boots(link) if link else None,
        "by": {"client": "its own link", "group": "its group's link", "default": "the default link"}[link["scope"]]
        if link
        else None,
        "target": plan["target"],
        "portals": plan["portals"],
        "cannot boot": f"{refusal['detail']}; what to do: {refusal['remedy']}" if refusal else None,
    }


def _boots(link: dict[str, Any]) -> str:
    channel = f":{link['channel']}" if link["channel"] else ""
    version = f" (version {link['version']})" if link["version"] else ""
    own = ", with a layer of its own" if link["own_layer"] else ""
    return f"{link['image']}{channel}{version}, policy {link['policy']}{own}"


def _last_boot(boot: dict[str, Any] | None) -> dict[str, Any]:
    if boot is None:
        return {"last boot": "none yet"}
    return {"last boot": f"{moment(boot['started'])}, {boot['state']} (bootlink boot show {boot['id']})"}
