"""The plan compiler: which link decides, and what a client is told that cannot boot."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address

import pytest

from bootlink_events import BootPlan, Chap, RefusalCause
from bootlink_registry.catalogue import Branch, Catalogue, Choice, Client, Fault, Layer, Link, OwnLayer, Scope, Version
from bootlink_registry.compiler import compile_plan, disks_of, resolve

PC = Client(mac="52:54:00:12:34:56", name="pc-07", group="room-1", address=IPv4Address("10.77.0.9"))
PORTALS = ("10.77.0.1:3260",)


Made = tuple[Version, Layer]


def version(number: int = 1, *, parent: int | None = None, fault: Fault | None = None, image: str = "win11") -> Made:
    """A version, and the layer that it is read from, on top of its parent's."""
    layer = Layer(
        id=f"layer-{image}-{number}",
        below=f"layer-{image}-{parent}" if parent else None,
        path=f"/images/{image}-{number}.vhd",
        format="vhd-dynamic",
        virtual_size=1 << 30,
        file_size=1 << 20,
        mtime_ns=1_700_000_000_000_000_000,
        fault=fault,
    )
    return Version(image, number, parent, content=f"content-{image}-{number}", layer=layer.id), layer


def link(scope: Scope, key: str = "", *, image: str = "win11", pinned: int | None = None) -> Link:
    return Link(
        scope=scope, key=key, image=image, channel=None if pinned else "production", version=pinned, policy="keep"
    )


def by_unit(*links: Link) -> dict[tuple[Scope, str], dict[int, Link]]:
    """Links as the catalogue holds them."""
    held: dict[tuple[Scope, str], dict[int, Link]] = {}
    for one in links:
        held.setdefault((one.scope, one.key), {})[one.lun] = one
    return held


def catalogue(
    *links: Link, versions: tuple[Made, ...] = (version(),), portals: tuple[str, ...] = PORTALS, production: int = 1
) -> Catalogue:
    return Catalogue(
        versions={(v.image, v.number): v for v, _ in versions},
        layers={layer.id: layer for _, layer in versions},
        channels={(v.image, "production"): production for v, _ in versions},
        links=by_unit(*links),
        portals=portals,
    )


OWN, GROUP, EVERYBODY = link("client", PC.mac), link("group", "room-1"), link("default")
OTHERS = (link("client", "52:54:00:00:00:01"), link("group", "room-2"))


@pytest.mark.parametrize(
    ("links", "decides"),
    [
        ((OWN, GROUP, EVERYBODY), OWN),
        ((GROUP, EVERYBODY), GROUP),
        ((OWN, EVERYBODY), OWN),
        ((EVERYBODY, *OTHERS), EVERYBODY),
        (OTHERS, None),
        ((), None),
    ],
)
def test_a_clients_link_comes_before_its_groups_and_that_before_the_default(
    links: tuple[Link, ...], decides: Link | None
) -> None:
    assert resolve(catalogue(*links), PC) == decides


def test_a_client_in_no_group_is_never_given_a_groups_link() -> None:
    assert resolve(catalogue(GROUP), dataclasses.replace(PC, group=None)) is None


def test_a_plan_holds_all_that_the_boot_path_needs() -> None:
    plan = compile_plan(catalogue(OWN), PC, revision=7)
    assert plan.bootable
    assert (plan.mac, plan.client, plan.group, plan.revision) == (PC.mac, "pc-07", "room-1", 7)
    assert plan.address == IPv4Address("10.77.0.9")
    assert plan.target == "iqn.2026-11.io.bootlink:52-54-00-12-34-56"
    assert plan.portals == PORTALS
    (disk,) = plan.disks
    assert (disk.lun, disk.image, disk.version, disk.channel, disk.policy) == (0, "win11", 1, "production", "keep")
    (layer,) = disk.layers
    assert (layer.id, layer.path, layer.format) == ("layer-win11-1", "/images/win11-1.vhd", "vhd-dynamic")
    assert (layer.virtual_size, layer.file_size, layer.mtime_ns) == (1 << 30, 1 << 20, 1_700_000_000_000_000_000)


@pytest.mark.parametrize("chap", ["off", "one-way", "mutual"])
def test_a_plan_asks_for_chap_as_the_link_that_decides_does(chap: Chap) -> None:
    asks = dataclasses.replace(OWN, chap=chap)
    assert compile_plan(catalogue(asks, EVERYBODY), PC).chap == chap
    assert compile_plan(catalogue(dataclasses.replace(EVERYBODY, chap="mutual"), OWN), PC).chap == "off"


def test_layers_come_top_first_and_base_last() -> None:
    chain = (version(1), version(2, parent=1), version(3, parent=2))
    plan = compile_plan(catalogue(OWN, versions=chain, production=3), PC)
    assert [layer.id for layer in plan.disks[0].layers] == ["layer-win11-3", "layer-win11-2", "layer-win11-1"]


def test_a_merge_changes_the_layers_of_a_version_and_not_what_it_shows() -> None:
    first, (second, _) = version(1), version(2, parent=1)
    _, merged = version(9)
    plan = compile_plan(
        catalogue(OWN, versions=(first, (dataclasses.replace(second, layer=merged.id), merged)), production=2), PC
    )
    assert [layer.id for layer in plan.disks[0].layers] == [merged.id]
    assert plan.disks[0].content == second.content


def test_layers_that_stand_on_one_another_in_a_circle_make_the_image_unusable() -> None:
    _, upper = version(2, parent=1)
    lower = dataclasses.replace(version(1)[1], below=upper.id)
    plan = compile_plan(
        catalogue(OWN, versions=((version(1)[0], lower), (version(2, parent=1)[0], upper)), production=2), PC
    )
    assert plan.refusal is not None
    assert plan.refusal.cause == "image_missing"


def test_a_pinned_link_stays_where_it_is_when_the_channel_moves() -> None:
    chain = (version(1), version(2, parent=1))
    pinned = compile_plan(catalogue(link("default", pinned=1), versions=chain, production=2), PC)
    assert (pinned.disks[0].version, pinned.disks[0].channel) == (1, None)
    follows = compile_plan(catalogue(EVERYBODY, versions=chain, production=2), PC)
    assert (follows.disks[0].version, follows.disks[0].channel) == (2, "production")


OFF = dataclasses.replace(PC, disabled=True)


@pytest.mark.parametrize(
    ("client", "of", "cause", "told"),
    [
        (OFF, catalogue(OWN), "disabled", "pc-07"),
        (OFF, catalogue(), "disabled", "pc-07"),
        (PC, catalogue(), "no_link", "room-1"),
        (PC, catalogue(portals=()), "no_link", "room-1"),
        (PC, catalogue(OWN, versions=(version(fault="missing"),)), "image_missing", "/images/win11-1.vhd"),
        (PC, catalogue(OWN, versions=(version(fault="changed"),)), "image_missing", "changed"),
        (PC, catalogue(OWN, versions=(version(fault="corrupt"),)), "image_missing", "checksum"),
        (PC, catalogue(OWN, versions=(version(fault="missing"),), portals=()), "image_missing", "is gone"),
        (PC, catalogue(link("default", pinned=9)), "image_missing", "version 9"),
        (PC, catalogue(link("default", image="win7")), "image_missing", "win7"),
        (PC, catalogue(OWN, portals=()), "no_blockstore", "no block store"),
    ],
)
def test_a_client_that_cannot_boot_is_told_why_and_what_to_do(
    client: Client, of: Catalogue, cause: RefusalCause, told: str
) -> None:
    plan = compile_plan(of, client)
    assert not plan.bootable
    assert plan.refusal is not None
    assert plan.refusal.cause == cause
    assert told in plan.refusal.detail
    assert plan.refusal.remedy
    assert bool(plan.disks) == (cause == "no_blockstore"), "only a refusal that passes by itself leaves the disk in"


def test_a_fault_anywhere_in_the_chain_counts() -> None:
    chain = (version(1, fault="changed"), version(2, parent=1))
    plan = compile_plan(catalogue(OWN, versions=chain, production=2), PC)
    assert plan.refusal is not None
    assert "/images/win11-1.vhd" in plan.refusal.detail


def test_a_parent_that_is_not_known_makes_the_image_unusable() -> None:
    plan = compile_plan(catalogue(OWN, versions=(version(2, parent=1),), production=2), PC)
    assert plan.refusal is not None
    assert plan.refusal.cause == "image_missing"


def test_the_same_rows_make_the_same_plan() -> None:
    rows = catalogue(OWN, GROUP)
    assert compile_plan(rows, PC).model_dump_json() == compile_plan(rows, PC).model_dump_json()


# Disks, and the boot menu

GAMES = version(image="games")


def test_each_disk_is_decided_by_itself() -> None:
    games = dataclasses.replace(link("default", image="games"), lun=1)
    own_games = dataclasses.replace(link("client", PC.mac, image="games"), lun=2, policy="discard")
    of = catalogue(OWN, EVERYBODY, games, own_games, versions=(version(), GAMES))
    assert disks_of(of, PC) == {0: OWN, 1: games, 2: own_games}
    plan = compile_plan(of, PC)
    assert [(disk.lun, disk.image, disk.policy) for disk in plan.disks] == [
        (0, "win11", "keep"),
        (1, "games", "keep"),
        (2, "games", "discard"),
    ]


def test_a_pc_with_a_second_disk_and_none_to_boot_is_told_that_it_has_no_link() -> None:
    plan = compile_plan(catalogue(dataclasses.replace(OWN, lun=1)), PC)
    assert plan.refusal is not None
    assert plan.refusal.cause == "no_link"


def test_a_second_disk_that_cannot_be_served_stands_in_the_way_of_a_boot() -> None:
    games = dataclasses.replace(link("default", image="games"), lun=1)
    plan = compile_plan(catalogue(OWN, games, versions=(version(), version(image="games", fault="missing"))), PC)
    assert plan.refusal is not None
    assert "/images/games-1.vhd" in plan.refusal.detail
    assert (plan.disks, plan.menu) == ((), None)


def menu_of(*choices: Choice, own: Link = OWN, versions: tuple[Made, ...] = (version(), GAMES)) -> BootPlan:
    of = catalogue(own, EVERYBODY, versions=versions)
    return compile_plan(dataclasses.replace(of, choices={("client", PC.mac): choices}), PC)


STEAM = Choice(name="steam", title="Games, no Windows", image="games", channel="production", version=None)


def test_a_menu_offers_the_link_itself_first_and_each_choice_with_its_own_disk() -> None:
    plan = menu_of(STEAM)
    assert plan.menu is not None
    assert [(entry.name, entry.title) for entry in plan.menu.entries] == [
        ("link", "win11"),
        ("steam", "Games, no Windows"),
    ]
    assert (plan.menu.default, plan.menu.seconds) == ("link", 10)
    assert [disk.image for disk in plan.disks] == ["win11"]
    chosen = plan.chosen("steam")
    assert chosen is not None
    assert [(disk.lun, disk.image, disk.policy) for disk in chosen.disks] == [(0, "games", "discard")]
    assert plan.chosen("link") == plan
    assert plan.chosen("gone") is None


def test_a_menu_says_what_the_link_wants_of_it() -> None:
    own = dataclasses.replace(OWN, title="Windows 11", menu_seconds=0, menu_default="steam")
    plan = menu_of(STEAM, own=own)
    assert plan.menu is not None
    assert plan.menu.entries[0].title == "Windows 11"
    assert (plan.menu.default, plan.menu.seconds) == ("steam", 0)


def test_a_choice_whose_image_cannot_be_served_is_not_offered_and_is_no_default() -> None:
    own = dataclasses.replace(OWN, menu_default="steam")
    gone = (version(), version(image="games", fault="missing"))
    assert menu_of(STEAM, own=own, versions=gone).menu is None, "with nothing else to offer there is no menu"
    other = dataclasses.replace(STEAM, name="older", image="win11")
    plan = menu_of(STEAM, other, own=own, versions=gone)
    assert plan.menu is not None
    assert [entry.name for entry in plan.menu.entries] == ["link", "older"]
    assert plan.menu.default == "link"


def test_the_menu_of_another_link_is_no_business_of_this_client() -> None:
    of = dataclasses.replace(catalogue(OWN, GROUP), choices={("group", "room-1"): (STEAM,)})
    assert compile_plan(of, PC).menu is None


def test_a_disk_of_the_menu_takes_the_place_of_its_unit_and_leaves_the_others() -> None:
    games = dataclasses.replace(link("client", PC.mac, image="games"), lun=1)
    of = catalogue(OWN, games, versions=(version(), GAMES))
    plan = compile_plan(dataclasses.replace(of, choices={("client", PC.mac): (STEAM,)}), PC).chosen("steam")
    assert plan is not None
    assert [(disk.lun, disk.image) for disk in plan.disks] == [(0, "games"), (1, "games")]


BRANCH = Branch(PC.mac, "win11", base=1, content="content-of-the-branch")


@pytest.mark.parametrize("links", [(), (EVERYBODY,), (link("client", PC.mac, image="other"), EVERYBODY)])
def test_a_super_client_boots_its_branch_whatever_its_links_say(links: tuple[Link, ...]) -> None:
    versions = (version(1), version(2, parent=1))
    known = catalogue(*links, versions=versions, production=2)
    plan = compile_plan(dataclasses.replace(known, branches={PC.mac: BRANCH}), PC)
    (disk,) = plan.disks
    assert (disk.image, disk.version, disk.channel, disk.policy) == ("win11", 1, None, "super")
    assert disk.content == "content-of-the-branch"
    assert [layer.id for layer in disk.layers] == ["layer-win11-1"]


def test_a_super_client_keeps_its_other_disks_and_chap_and_sees_no_menu() -> None:
    second = dataclasses.replace(EVERYBODY, lun=1, policy="discard")
    asks = dataclasses.replace(OWN, chap="mutual")
    choice = Choice("other", "", "win11", None, 1)
    known = dataclasses.replace(
        catalogue(asks, second), branches={PC.mac: BRANCH}, choices={("client", PC.mac): (choice,)}
    )
    assert compile_plan(dataclasses.replace(known, branches={}), PC).menu is not None
    plan = compile_plan(known, PC)
    assert [(disk.lun, disk.policy) for disk in plan.disks] == [(0, "super"), (1, "discard")]
    assert (plan.chap, plan.menu) == ("mutual", None)


def test_a_branch_whose_file_is_gone_says_so() -> None:
    known = catalogue(EVERYBODY, versions=(version(1, fault="missing"),))
    plan = compile_plan(dataclasses.replace(known, branches={PC.mac: BRANCH}), PC)
    assert plan.refusal is not None
    assert plan.refusal.detail == "the file of image win11 is gone: /images/win11-1.vhd"


@pytest.mark.parametrize("sealed", [False, True])
def test_an_own_layer_lies_over_the_pinned_version(sealed: bool) -> None:
    base, (_, above) = version(1), version(2, parent=1)
    own = OwnLayer(PC.mac, 0, "win11", 1, layer=above.id if sealed else None, content="content-of-its-own")
    mine = dataclasses.replace(link("client", PC.mac, pinned=1), own_layer=True)
    known = catalogue(mine, versions=(base,))
    known = dataclasses.replace(known, layers={**known.layers, above.id: above}, own_layers={(PC.mac, 0): own})
    (disk,) = compile_plan(known, PC).disks
    assert [layer.id for layer in disk.layers] == ["layer-win11-2", "layer-win11-1"][not sealed :]
    assert (disk.version, disk.content) == (1, "content-of-its-own")
    other = compile_plan(known, dataclasses.replace(PC, mac="52:54:00:00:00:01"))
    assert other.disks == ()


def test_an_own_layer_that_no_link_asks_for_is_left_alone() -> None:
    own = OwnLayer(PC.mac, 0, "win11", 1, layer=None, content="content-of-its-own")
    known = dataclasses.replace(catalogue(OWN), own_layers={(PC.mac, 0): own})
    assert compile_plan(known, PC).disks[0].content == "content-win11-1"


# Homes

EAST, WEST = ("10.77.0.1:3260",), ("10.77.0.2:3260", "10.78.0.2:3260")


def at_home(made: Catalogue, home: str, *live: str) -> BootPlan:
    """The plan of a client that is at home there, while these nodes are heard of."""
    nodes = {name: portals for name, portals in (("east", EAST), ("west", WEST)) if name in live}
    portals = tuple(portal for found in nodes.values() for portal in found)
    return compile_plan(dataclasses.replace(made, homes={PC.mac: home}, nodes=nodes, portals=portals), PC)


def test_a_client_of_which_something_lasts_is_sent_to_its_home_alone() -> None:
    plan = at_home(catalogue(link("default")), "west", "east", "west")
    assert (plan.home, plan.portals, plan.refusal) == ("west", WEST, None)


def test_a_client_whose_home_is_silent_is_refused_and_told_which_it_is() -> None:
    plan = at_home(catalogue(link("default")), "west", "east")
    assert plan.refusal is not None
    assert (plan.refusal.cause, plan.home, plan.portals, plan.disks) == ("home_away", "west", (), ())
    assert "block store west" in plan.refusal.detail
    assert "bootlink client leave-node pc-07" in plan.refusal.remedy


def test_where_no_block_store_is_heard_of_that_is_what_is_told() -> None:
    plan = at_home(catalogue(link("default")), "west")
    assert plan.refusal is not None
    assert (plan.refusal.cause, plan.home) == ("no_blockstore", "west")


def test_a_client_of_which_nothing_lasts_boots_from_any_block_store_wherever_it_was_at_home() -> None:
    fresh = catalogue(dataclasses.replace(link("default"), policy="discard"))
    plan = at_home(fresh, "west", "east", "west")
    assert (plan.home, plan.portals) == ("west", EAST + WEST)
    assert at_home(fresh, "west", "east").refusal is None


def test_a_choice_at_the_menu_that_lasts_has_a_home_too() -> None:
    own = dataclasses.replace(link("default"), policy="discard")
    kept = Choice(name="kept", title="", image="win11", channel="production", version=None, policy="keep")
    offered = dataclasses.replace(catalogue(own), choices={("default", ""): (kept,)})
    assert at_home(offered, "west", "east", "west").portals == WEST
