"""`bootlink group option` and `bootlink group loader`: what the clients of a group are told over DHCP."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from bootlink import api
from bootlink.commands.groups import Group, app, describe
from bootlink.errors import CommandError
from bootlink.output import AsJson, print_json, print_table

option = typer.Typer(name="option", help="DHCP options of a group's clients.", no_args_is_help=True)
loader = typer.Typer(name="loader", help="Boot loaders of a group's clients.", no_args_is_help=True)
app.add_typer(option)
app.add_typer(loader)

Settings = dict[str, Any]


class OptionType(StrEnum):
    """How an option's value is to be read."""

    address = "address"
    addresses = "addresses"
    text = "text"
    byte = "byte"
    word = "word"
    long = "long"
    flag = "flag"
    domains = "domains"
    hex = "hex"


Code = Annotated[int, typer.Argument(help="The option's number, such as 42 for time servers.", min=1, max=254)]
Arch = Annotated[str, typer.Option(help="Of this architecture, such as uefi-x64 or bios.")]
VendorClass = Annotated[str, typer.Option(help="Whose vendor class (option 60) begins so.")]
Model = Annotated[str, typer.Option(help="Whose MAC address begins so, such as 00:1b:21.")]


@option.command("list")
def list_options(group: Group, as_json: AsJson = False) -> None:
    """List the options that a group's clients are sent beside the usual ones."""
    _print_options(api.from_environment().get("groups", group, "dhcp"), as_json=as_json)


@option.command("set")
def set_option(
    group: Group,
    code: Code,
    type_: Annotated[OptionType, typer.Argument(help="How the value is to be read.", metavar="TYPE")],
    value: Annotated[str, typer.Argument(help="Its value; a list has commas.")],
    as_json: AsJson = False,
) -> None:
    """Send an option to a group's clients, from their next DHCP answer on. It takes the place of a usual one.

    Types: address, addresses, text, byte, word, long, flag (true or false), domains, hex.

    bootlink group option set room-1 42 addresses 10.77.0.5,10.77.0.6
    """
    registry = api.from_environment()
    held, etag = _held(registry, group)
    kept = [one for one in held["options"] if one["code"] != code]
    options = [*kept, {"code": code, "type": type_.value, "value": value}]
    _print_options(_put(registry, group, held | {"options": options}, etag), as_json=as_json)


@option.command("remove")
def remove_option(group: Group, code: Code, as_json: AsJson = False) -> None:
    """Send an option no more."""
    registry = api.from_environment()
    held, etag = _held(registry, group)
    kept = [one for one in held["options"] if one["code"] != code]
    if len(kept) == len(held["options"]):
        raise CommandError(f"{group} has no option {code}", f"bootlink group option list {group} shows those it has")
    _print_options(_put(registry, group, held | {"options": kept}, etag), as_json=as_json)


@loader.command("list")
def list_loaders(group: Group, as_json: AsJson = False) -> None:
    """List the rules that say which boot loader a group's clients are given; the first that fits counts."""
    _print_loaders(api.from_environment().get("groups", group, "dhcp"), as_json=as_json)


@loader.command("set")
def set_loader(
    group: Group,
    files: Annotated[list[str], typer.Argument(help="Loaders; the first that works is sent.", metavar="FILE...")],
    arch: Arch = "",
    vendor_class: VendorClass = "",
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Give a group's clients another boot loader; or change the rule for the same firmware.

    bootlink group loader set room-1 snponly-shimx64.efi --arch uefi-x64
    """
    registry = api.from_environment()
    held, etag = _held(registry, group)
    wanted = {**_fits(arch, vendor_class, model), "loaders": files}
    rules = [wanted if _same(rule, wanted) else rule for rule in held["loaders"]]
    if wanted not in rules:
        rules.append(wanted)
    _print_loaders(_put(registry, group, held | {"loaders": rules}, etag), as_json=as_json)


@loader.command("remove")
def remove_loader(
    group: Group, arch: Arch = "", vendor_class: VendorClass = "", model: Model = "", as_json: AsJson = False
) -> None:
    """Take the rule for this firmware away."""
    registry = api.from_environment()
    held, etag = _held(registry, group)
    unwanted = _fits(arch, vendor_class, model)
    kept = [rule for rule in held["loaders"] if not _same(rule, unwanted)]
    if len(kept) == len(held["loaders"]):
        raise CommandError(
            f"{group} has no loader rule for {describe(unwanted)}",
            f"bootlink group loader list {group} shows those it has",
        )
    _print_loaders(_put(registry, group, held | {"loaders": kept}, etag), as_json=as_json)


def _fits(arch: str, vendor_class: str, model: str) -> dict[str, str]:
    return {"arch": arch, "vendor_class": vendor_class, "model": model.lower()}


def _same(rule: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(rule[field] == other[field] for field in ("arch", "vendor_class", "model"))


def _held(registry: api.Api, group: str) -> tuple[Settings, str]:
    """What the group has, as a wish, and its ETag. CommandError if there is no such group."""
    found, etag = registry.get_to_change("groups", group, "dhcp")
    return {field: found[field] for field in ("options", "loaders")}, etag


def _put(registry: api.Api, group: str, wanted: Settings, etag: str) -> Settings:
    done: Settings = registry.put("groups", group, "dhcp", body=wanted, match=etag)
    return done


def _print_options(held: Settings, *, as_json: bool) -> None:
    if as_json:
        print_json(held["options"])
        return
    print_table(
        ("option", "type", "value"),
        [(one["code"], one["type"], one["value"]) for one in held["options"]],
        empty=f"{held['group']} has no DHCP options of its own",
    )


def _print_loaders(held: Settings, *, as_json: bool) -> None:
    if as_json:
        print_json(held["loaders"])
        return
    print_table(
        ("firmware", "loaders"),
        [(describe(rule), rule["loaders"]) for rule in held["loaders"]],
        empty=f"{held['group']} has no loader rules of its own",
    )
