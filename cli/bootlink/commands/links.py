"""`bootlink link`: what a client, a group or everybody else boots."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from bootlink import api, references, starts
from bootlink.jobs import follow
from bootlink.output import AsJson, minute, moment, print_facts, print_json, print_table

app = typer.Typer(name="link", help="Links: what a client, a group or everybody else boots.", no_args_is_help=True)

Group = Annotated[str | None, typer.Option(help="The link of this group.")]
Lun = Annotated[int, typer.Option(help="Which of its disks; 0 is what it boots.", min=0, max=254)]
Default = Annotated[bool, typer.Option("--default", help="The link of everybody who has no other.")]


class Policy(StrEnum):
    """What becomes of a PC's writes."""

    discard = "discard"
    keep = "keep"


class Chap(StrEnum):
    """What a login must prove."""

    off = "off"
    one_way = "one-way"
    mutual = "mutual"


@app.command("set")
def set_link(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="The client (name or MAC), then the image.", metavar="[CLIENT] [IMAGE[:CHANNEL|:VERSION]]"),
    ] = None,
    group: Group = None,
    default: Default = False,
    policy: Annotated[
        Policy | None,
        typer.Option(
            help="discard: fresh at every boot; keep: survives reboots. Default: discard; with --own-layer: keep."
        ),
    ] = None,
    own_layer: Annotated[
        bool, typer.Option("--own-layer", help="A layer of the client's own over a pinned version.")
    ] = False,
    chap: Annotated[
        Chap,
        typer.Option(help="one-way: only who has the boot's secret gets the disk; mutual: and the disk proves itself."),
    ] = Chap.off,
    version: Annotated[int | None, typer.Option(help="Pin this version instead of a channel.", min=1)] = None,
    lun: Lun = 0,
    no_disk: Annotated[
        bool, typer.Option("--no-disk", help="No such disk (--lun 1 and up), whatever other links give.")
    ] = False,
    boot: starts.BootOption = starts.Boot.disk,
    kernel: starts.Kernel = "",
    initrd: starts.Initrd = None,
    arguments: starts.Arguments = "",
    filename: starts.Filename = "",
    keep_san: starts.KeepSan = False,
    as_json: AsJson = False,
) -> None:
    """Link a client, a --group or the --default to an image, from the next boot on.

    The channel is production unless another is named: bootlink link set pc-07 win11:test. A further disk beside the one
    that is booted: bootlink link set --default games --lun 1; and none for one PC:
    bootlink link set pc-07 --lun 1 --no-disk. Without an image: bootlink link set pc-07 --boot local
    """
    scope, name, rest = _whose(words or [], group, default=default)
    if no_disk and not lun:
        raise typer.BadParameter("--no-disk is for a further disk: name it, as in --lun 1")
    start = (
        starts.NO_DISK
        if no_disk
        else starts.wish(boot, kernel=kernel, initrds=initrd, arguments=arguments, filename=filename, keep_san=keep_san)
    )
    if starts.without_disk(start):
        if rest:
            how = "--no-disk names" if no_disk else f"--boot {boot} boots"
            raise typer.BadParameter(f"{how} no image: leave {rest[0]} out")
        wanted: dict[str, Any] = {"version": version}
    elif len(rest) != 1:
        raise typer.BadParameter("name one image: bootlink link set (CLIENT | --group G | --default) IMAGE")
    else:
        linked = references.parse_with(rest[0], version)
        wanted = {"image": linked.image, **linked.wish()}
    body = {
        "scope": scope,
        "name": name,
        **wanted,
        "start": start,
        "policy": policy.value if policy is not None else None,
        "chap": chap.value,
        "own_layer": own_layer,
        "lun": lun,
    }
    registry = api.from_environment()
    link = registry.put("links", body=body)
    if "kind" in link:  # a job, which makes a layer file of what was kept, and then sets the link
        follow(registry, link, quiet=as_json)
        link = registry.get("links", scope, name, lun=lun)
    print_link(link, as_json=as_json)


@app.command("list")
def list_links(as_json: AsJson = False) -> None:
    """List the links."""
    links = api.from_environment().listing("links")
    if as_json:
        print_json(links)
        return
    print_table(
        ("whose", "LUN", "image", "channel or version", "policy", "changed"),
        [(_owner(k), k["lun"], *_linked(k), minute(k["changed"])) for k in links],
        empty="there are no links yet; set one: bootlink link set --default IMAGE",
    )


@app.command()
def show(
    client: Annotated[list[str] | None, typer.Argument(help="Its name or MAC address.", metavar="[CLIENT]")] = None,
    group: Group = None,
    default: Default = False,
    lun: Lun = 0,
    as_json: AsJson = False,
) -> None:
    """Show the link of a client's own, of a --group, or the --default."""
    print_link(api.from_environment().get(*path_to("links", client, group, default=default), lun=lun), as_json=as_json)


@app.command()
def remove(
    client: Annotated[list[str] | None, typer.Argument(help="Its name or MAC address.", metavar="[CLIENT]")] = None,
    group: Group = None,
    default: Default = False,
    lun: Lun = 0,
) -> None:
    """Take a link away: of a client's own, of a --group, or the --default. The next in that order decides then."""
    path = path_to("links", client, group, default=default)
    api.from_environment().delete(*path, lun=lun)
    print_facts({"removed": f"the link of {' '.join(path[1:])}, LUN {lun}"})


def path_to(kind: str, client: list[str] | None, group: str | None, *, default: bool) -> tuple[str, ...]:
    """The path of somebody's link or menu."""
    scope, name, rest = _whose(client or [], group, default=default)
    if rest:
        raise typer.BadParameter("name one client, or --group G, or --default")
    return (kind, scope, name) if name else (kind, scope)


def _whose(words: list[str], group: str | None, *, default: bool) -> tuple[str, str, list[str]]:
    """Scope, name, and the words that are left."""
    if group is not None and default:
        raise typer.BadParameter("name --group or --default, not both")
    if group is not None:
        return "group", group, words
    if default:
        return "default", "", words
    if not words:
        raise typer.BadParameter("name a client, or --group G, or --default")
    return "client", words[0], words[1:]


def print_link(link: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(link)
        return
    print_facts(
        {
            "link of": _owner(link),
            "LUN": link["lun"] or None,
            "image": link["image"],
            "channel" if link["channel"] else "version": link["channel"] or link["version"],
            **starts.facts(link["start"]),
            "own layer": link["own_layer"] or None,
            "policy": link["policy"] if link["image"] else None,
            "CHAP": link["chap"] if link["image"] else None,
            "changed": moment(link["changed"]),
        }
    )


def _owner(link: dict[str, Any]) -> str:
    return f"{link['scope']} {link['name']}".strip()


def _linked(link: dict[str, Any]) -> tuple[str | None, str | None, str | None]:
    """Image, channel or version, and policy; without an image what it boots instead."""
    if link["image"] is None:
        return starts.told(link["start"]), None, None
    return link["image"], link["channel"] or f"version {link['version']}", link["policy"]
