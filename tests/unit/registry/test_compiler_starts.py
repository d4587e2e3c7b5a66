"""The plan compiler: clients that start from no disk of ours, in a way of their own, or where no room is left."""

from __future__ import annotations

import dataclasses

import pytest

from bootlink_events import Start, StartMode
from bootlink_registry.catalogue import Branch, Catalogue, Choice, Client, Layer, Link, Version
from bootlink_registry.compiler import compile_plan

PC = Client(mac="52:54:00:12:34:56", name="pc-07")
LAYER = Layer("layer", None, "/images/win11.vhd", "vhd-dynamic", 1 << 30, 1 << 20, 1)
VERSION = Version("win11", 1, None, content="content", layer="layer")
DISK = Link("client", PC.mac, "win11", "production", None)
WINDOWS = Choice("windows", "", "win11", "production", None)
OWN_DISK = Choice("own", "", "", None, None, start=Start(mode="local"))


def catalogue(link: Link, *choices: Choice, portals: tuple[str, ...] = ("10.77.0.1:3260",)) -> Catalogue:
    return Catalogue(
        versions={("win11", 1): VERSION},
        layers={"layer": LAYER},
        channels={("win11", "production"): 1},
        links={("client", PC.mac): {0: link}},
        choices={("client", PC.mac): choices},
        portals=portals,
    )


def without_image(mode: StartMode) -> Link:
    start = Start(mode=mode, kernel="vmlinuz" if mode == "kernel" else "")
    return dataclasses.replace(DISK, image="", channel=None, start=start)


@pytest.mark.parametrize("mode", ["local", "shell", "kernel"])
def test_what_needs_no_disk_needs_no_block_store(mode: StartMode) -> None:
    plan = compile_plan(catalogue(without_image(mode), portals=()), PC)
    assert (plan.refusal, plan.disks, plan.menu) == (None, (), None)
    assert plan.start is not None
    assert plan.start.mode == mode
    assert plan.bootable


def test_a_disabled_client_starts_in_no_way() -> None:
    plan = compile_plan(catalogue(without_image("local")), dataclasses.replace(PC, disabled=True))
    assert plan.refusal is not None
    assert not plan.bootable


def test_a_menu_of_a_link_without_a_disk_offers_disks() -> None:
    plan = compile_plan(catalogue(without_image("local"), WINDOWS), PC)
    assert plan.menu is not None
    assert [(entry.name, entry.title, len(entry.disks)) for entry in plan.menu.entries] == [
        ("link", "Own disk", 0),
        ("windows", "win11", 1),
    ]
    chosen = plan.chosen("windows")
    assert chosen is not None
    assert [disk.image for disk in chosen.disks] == ["win11"]
    assert plan.portals
    # And where nobody serves them, what is left is the link itself.
    alone = compile_plan(catalogue(without_image("local"), WINDOWS, portals=()), PC)
    assert (alone.menu, alone.refusal, alone.bootable) == (None, None, True)


def test_a_menu_of_a_disk_offers_starts_without_one() -> None:
    plan = compile_plan(catalogue(DISK, OWN_DISK), PC)
    assert plan.menu is not None
    assert [(entry.name, entry.start) for entry in plan.menu.entries] == [("link", None), ("own", OWN_DISK.start)]


def test_a_super_client_boots_its_branch_as_its_link_says_how_to_boot_a_disk() -> None:
    branch = Branch(PC.mac, "win11", 1, "content of the branch")
    for link, start in (
        (dataclasses.replace(DISK, start=Start(file="EFI/a.efi")), Start(file="EFI/a.efi")),
        (without_image("local"), None),
    ):
        plan = compile_plan(dataclasses.replace(catalogue(link), branches={PC.mac: branch}), PC)
        assert plan.start == start
        assert [disk.policy for disk in plan.disks] == ["super"]


TWO = ("10.77.0.1:3260", "10.77.0.2:3260")
FULL = {TWO[0]: "store-1 has 12 MiB left", TWO[1]: "store-2 has 0 MiB left"}


def test_a_boot_begins_where_there_is_room_and_is_refused_where_none_is_left() -> None:
    one = dataclasses.replace(catalogue(DISK, portals=TWO), full={TWO[0]: FULL[TWO[0]]})
    plan = compile_plan(one, PC)
    assert (plan.refusal, plan.portals) == (None, TWO[1:])
    plan = compile_plan(dataclasses.replace(one, full=FULL), PC)
    assert plan.refusal is not None
    assert plan.refusal.cause == "disk_full"
    assert "store-1 has 12 MiB left, store-2 has 0 MiB left" in plan.refusal.detail
    assert plan.disks, "whoever runs, runs on"
    assert not plan.bootable


def test_what_writes_nothing_here_starts_without_room() -> None:
    local = catalogue(without_image("local"), WINDOWS, portals=TWO)
    plan = compile_plan(dataclasses.replace(local, full=FULL), PC)
    assert (plan.refusal, plan.menu, plan.bootable) == (None, None, True)
