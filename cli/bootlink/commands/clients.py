"""`bootlink client`: the PCs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bootlink import api, starts
from bootlink.output import AsJson, moment, print_facts, print_json, print_table

app = typer.Typer(name="client", help="Clients: the PCs.", no_args_is_help=True)

Client = Annotated[str, typer.Argument(help="Its name or MAC address.", metavar="CLIENT")]


@app.command()
def add(
    mac: Annotated[str, typer.Argument(help="Its MAC address.", metavar="MAC")],
    name: Annotated[str | None, typer.Option(help="What to call it; unset: the next free pc-NNN.")] = None,
    group: Annotated[str | None, typer.Option(help="The group it belongs to.")] = None,
    address: Annotated[str | None, typer.Option(help="An IPv4 address reserved for it.")] = None,
    note: Annotated[str | None, typer.Option(help="Whatever is worth knowing of it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a client, or name one that enrolled itself."""
    given = {"mac": mac, "name": name, "group": group, "address": address, "note": note}
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
        ("client", "mac", "group", "address", "disabled", "came by itself", "note"),
        [
            (c["name"], c["mac"], c["group"], c["address"], c["disabled"] or None, c["enrolled"] or None, c["note"])
            for c in clients
        ],
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


@app.command("set")
def set_client(
    client: Client,
    name: Annotated[str | None, typer.Option(help="What to call it from now on.")] = None,
    group: Annotated[str | None, typer.Option(help="The group that it joins.")] = None,
    no_group: Annotated[bool, typer.Option("--no-group", help="Take it out of its group.")] = False,
    address: Annotated[str | None, typer.Option(help="An IPv4 address reserved for it.")] = None,
    no_address: Annotated[bool, typer.Option("--no-address", help="Reserve no address for it.")] = False,
    note: Annotated[str | None, typer.Option(help="Whatever is worth knowing of it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a client's name, group, reserved address or note."""
    if (group is not None and no_group) or (address is not None and no_address):
        raise typer.BadParameter("give a group or --no-group, an address or --no-address, not both")
    given = {"name": name, "group": group, "address": address, "note": note}
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    if no_group:
        changes["group"] = None
    if no_address:
        changes["address"] = None
    if not changes:
        raise typer.BadParameter("nothing to change: give --name, --group, --address or --note")
    _change(client, changes, as_json=as_json)


@app.command()
def rename(
    client: Client,
    name: Annotated[str, typer.Argument(help="What to call it from now on.", metavar="NAME")],
    as_json: AsJson = False,
) -> None:
    """Give a client another name. Its links, and what it keeps, stay with it."""
    _change(client, {"name": name}, as_json=as_json)


@app.command()
def disable(client: Client, as_json: AsJson = False) -> None:
    """Let a client not boot any more; it shows why. What runs goes on until it is switched off."""
    _change(client, {"disabled": True}, as_json=as_json)


@app.command()
def enable(client: Client, as_json: AsJson = False) -> None:
    """Let a client boot again."""
    _change(client, {"disabled": False}, as_json=as_json)


@app.command()
def remove(client: Client) -> None:
    """Take a client away, with its own links. If it asks again, it is an unknown PC."""
    api.from_environment().delete("clients", client)
    print_facts({"removed": client})


@app.command()
def wake(
    clients: Annotated[list[str] | None, typer.Argument(help="Names or MAC addresses.", metavar="CLIENT...")] = None,
    group: Annotated[str | None, typer.Option(help="All of this group.")] = None,
    as_json: AsJson = False,
) -> None:
    """Switch clients on: dhcp sends them the magic packet of Wake-on-LAN."""
    if bool(clients) == (group is not None):
        raise typer.BadParameter("name clients, or a --group")
    registry = api.from_environment()
    if group is not None:
        registry.get("groups", group)  # a group of nobody is worth an error
        clients = [client["name"] for client in registry.listing("clients", group=group)]
    woken = [registry.post("clients", client, "wake", body={}) for client in clients or ()]
    if as_json:
        print_json(woken)
        return
    print_table(
        ("client", "mac", "sent by", "over"),
        [(w["client"], w["mac"], s["node"], s["interfaces"]) for w in woken for s in w["sent"]],
        empty="nobody is in that group",
    )


def _change(client: str, changes: dict[str, Any], *, as_json: bool) -> None:
    changed = api.from_environment().patch("clients", client, body=changes)
    if as_json:
        print_json(changed)
        return
    print_facts(_facts(changed))


def _facts(client: dict[str, Any]) -> dict[str, Any]:
    return {
        "client": client["name"],
        "mac": client["mac"],
        "group": client["group"],
        "address": client["address"],
        "disabled": client["disabled"] or None,
        "note": client["note"] or None,
    }


def _plan(client: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    link, branch = client["link"], client["branch"]
    refusal = plan["refusal"]
    return {
        "super client": f"boots {branch['image']} (version {branch['base']}), and what it writes may become the next"
        if branch
        else None,
        "boots else" if branch else "boots": _boots(link) if link else None,
        "decided by": {"client": "its own link", "group": "its group's link", "default": "the default link"}[
            link["scope"]
        ]
        if link
        else None,
        **{f"LUN {disk['lun']}": _boots(disk) for disk in client["disks"] if disk["lun"]},
        "may choose": [entry["title"] for entry in plan["menu"]["entries"]] if plan["menu"] else None,
        **_reached(plan),
        "cannot boot": f"{refusal['detail']}; what to do: {refusal['remedy']}" if refusal else None,
    }


def _reached(plan: dict[str, Any]) -> dict[str, Any]:
    """Where its disks are; nothing for a PC that has none to reach, now or by its menu."""
    offered = plan["menu"]["entries"] if plan["menu"] else []
    if starts.without_disk(plan["start"]) and not any(one["disks"] for one in [plan, *offered]):
        return {}
    return {"target": plan["target"], "portals": plan["portals"], "keeps on": plan["home"]}


def _boots(link: dict[str, Any]) -> str:
    if link["image"] is None:
        return starts.told(link["start"]) or ""
    channel = f":{link['channel']}" if link["channel"] else ""
    version = f" (version {link['version']})" if link["version"] else ""
    own = ", with a layer of its own" if link["own_layer"] else ""
    how = f"; {starts.told(link['start'])}" if link["start"] else ""
    return f"{link['image']}{channel}{version}, policy {link['policy']}{own}{how}"


def _last_boot(boot: dict[str, Any] | None) -> dict[str, Any]:
    if boot is None:
        return {"last boot": "none yet"}
    return {"last boot": f"{moment(boot['started'])}, {boot['state']} (bootlink boot show {boot['id']})"}
