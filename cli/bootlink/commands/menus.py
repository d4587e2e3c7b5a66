"""`bootlink link menu`: what a PC may choose from at its boot."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from bootlink import api, references, starts
from bootlink.commands.links import Default, Group, Policy, app, path_to
from bootlink.errors import CommandError
from bootlink.output import AsJson, print_facts, print_json, print_table

OWN_ENTRY: Final = "link"  # what the link itself names, the first entry of every menu
NOT_FOUND: Final = 404
NO_MENU: Final[dict[str, Any]] = {"title": "", "seconds": 10, "default": OWN_ENTRY, "entries": []}

menu = typer.Typer(name="menu", help="Boot menus: what a PC may choose from at its boot.", no_args_is_help=True)
app.add_typer(menu)

Client = Annotated[str | None, typer.Option("--client", help="The menu of this client's own link.")]
Entry = Annotated[str, typer.Argument(help="The entry's name.", metavar="ENTRY")]


@menu.command()
def show(client: Client = None, group: Group = None, default: Default = False, as_json: AsJson = False) -> None:
    """Show the boot menu of a link."""
    path = _path(client, group, default=default)
    _print(path, api.from_environment().get(*path), as_json=as_json)


@menu.command()
def add(
    entry: Entry,
    image: Annotated[str, typer.Argument(help="What it boots.", metavar="[IMAGE[:CHANNEL|:VERSION]]")] = "",
    client: Client = None,
    group: Group = None,
    default: Default = False,
    title: Annotated[str, typer.Option(help="What the menu shows; unset: the image's name.")] = "",
    policy: Annotated[Policy, typer.Option(help="What becomes of a PC's writes to it.")] = Policy.discard,
    version: Annotated[int | None, typer.Option(help="Pin this version instead of a channel.", min=1)] = None,
    boot: starts.BootOption = starts.Boot.disk,
    kernel: starts.Kernel = "",
    initrd: starts.Initrd = None,
    arguments: starts.Arguments = "",
    filename: starts.Filename = "",
    keep_san: starts.KeepSan = False,
    as_json: AsJson = False,
) -> None:
    """Offer a further image at the boot, at the end of the menu; or change the entry of this name.

    bootlink link menu add --default ubuntu ubuntu-24 --title "Ubuntu 24.04"; or without an image:
    bootlink link menu add --default own --boot local
    """
    start = starts.wish(boot, kernel=kernel, initrds=initrd, arguments=arguments, filename=filename, keep_san=keep_san)
    wanted: dict[str, Any] = {"name": entry, "title": title, "policy": policy.value, "start": start}
    if starts.without_disk(start):
        if image or version is not None:
            raise typer.BadParameter(f"--boot {boot} boots no image: leave it out")
        wanted |= {"image": None, "channel": None, "version": None}
    elif not image:
        raise typer.BadParameter("name what it boots: bootlink link menu add ENTRY IMAGE, or --boot local")
    else:
        linked = references.parse_with(image, version)
        wanted |= {"image": linked.image, **linked.wish()}
    path = _path(client, group, default=default)
    registry = api.from_environment()
    held, etag = _held(registry, path)
    entries = [wanted if one["name"] == entry else one for one in held["entries"]]
    if wanted not in entries:
        entries.append(wanted)
    _print(path, registry.put(*path, body=held | {"entries": entries}, match=etag), as_json=as_json)


@menu.command()
def remove(
    entry: Entry, client: Client = None, group: Group = None, default: Default = False, as_json: AsJson = False
) -> None:
    """Take an entry out of the menu; with the last one, the menu goes."""
    path = _path(client, group, default=default)
    registry = api.from_environment()
    held, etag = registry.get_to_change(*path)
    entries = [one for one in held["entries"] if one["name"] != entry]
    if len(entries) == len(held["entries"]):
        there = ", ".join(one["name"] for one in entries)
        raise CommandError(f"the menu has no entry {entry}; there are: {there}", "name one of them")
    if not entries:
        registry.delete(*path, match=etag)
        print_facts({"removed": "the menu; the link itself is booted without a question"})
        return
    chosen = OWN_ENTRY if held["default"] == entry else held["default"]
    wanted = _wish(held) | {"entries": entries, "default": chosen}
    _print(path, registry.put(*path, body=wanted, match=etag), as_json=as_json)


@menu.command("set")
def set_menu(
    client: Client = None,
    group: Group = None,
    default: Default = False,
    entry: Annotated[
        str | None, typer.Option("--entry", help=f"What is taken when nobody chooses; {OWN_ENTRY}: the link itself.")
    ] = None,
    seconds: Annotated[int | None, typer.Option(help="Until it is taken; 0: wait for ever.", min=0, max=3600)] = None,
    title: Annotated[str | None, typer.Option(help="What the menu shows for the link itself.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which entry of the menu is taken when nobody chooses, and after how many seconds."""
    given = {"default": entry, "seconds": seconds, "title": title}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise typer.BadParameter("nothing to change: give --entry, --seconds or --title")
    path = _path(client, group, default=default)
    registry = api.from_environment()
    held, etag = registry.get_to_change(*path)
    _print(path, registry.put(*path, body=_wish(held) | changes, match=etag), as_json=as_json)


@menu.command()
def clear(client: Client = None, group: Group = None, default: Default = False) -> None:
    """Take the whole menu away; the link itself is booted without a question."""
    path = _path(client, group, default=default)
    api.from_environment().delete(*path)
    print_facts({"removed": f"the menu of {' '.join(path[1:])}"})


def _path(client: str | None, group: str | None, *, default: bool) -> tuple[str, ...]:
    if client is not None and (group is not None or default):
        raise typer.BadParameter("name one of --client, --group and --default")
    return path_to("menus", [client] if client is not None else None, group, default=default)


def _held(registry: api.Api, path: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """The menu as it is, as a wish, and its ETag; an empty one where there is none, which has none."""
    registry.get("links", *path[1:])  # a menu without a link is the link's error to tell
    try:
        held, etag = registry.get_to_change(*path)
    except CommandError as error:
        if error.status != NOT_FOUND:
            raise
        return dict(NO_MENU), ""
    return _wish(held), etag


def _wish(held: dict[str, Any]) -> dict[str, Any]:
    return {field: held[field] for field in NO_MENU}


def _print(path: tuple[str, ...], held: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(held)
        return
    waits = f"after {held['seconds']} s" if held["seconds"] else "never: it waits for a choice"
    print_facts({"menu of": " ".join(path[1:]), "taken by itself": waits})
    own = (OWN_ENTRY, held["title"] or None, "what the link names", None, held["default"] == OWN_ENTRY)
    print_table(
        ("entry", "title", "image", "policy", "default"),
        [own, *(_row(one, held["default"]) for one in held["entries"])],
        empty="no entries",
    )


def _row(entry: dict[str, Any], default: str) -> tuple[Any, ...]:
    linked, policy = starts.told(entry["start"]), None
    if entry["image"] is not None:
        pointer = entry["channel"] or f"version {entry['version']}"
        linked, policy = f"{entry['image']}, {pointer}", entry["policy"]
    return entry["name"], entry["title"] or None, linked, policy, entry["name"] == default
