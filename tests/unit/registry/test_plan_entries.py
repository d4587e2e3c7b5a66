"""Plans as they lie in the bucket: put together again, they are what the compiler makes for each client."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from ipaddress import IPv4Address

import pytest

from bootlink_events import ClientPart, DhcpOption, is_shared, mac_token, read_entry, read_plan, shared_key
from bootlink_registry.catalogue import Branch, Catalogue, Choice, Client, GroupSettings, Layer, Link, OwnLayer, Version
from bootlink_registry.compiler import compile_plan
from bootlink_registry.plans import Compiler, in_steps

PLAIN = Client("52:54:00:00:00:01", "pc-1")
IN_ROOM = Client("52:54:00:00:00:02", "pc-2", group="room.1", address=IPv4Address("10.0.0.2"))
ALSO_IN_ROOM = Client("52:54:00:00:00:03", "pc-3", group="room.1")
IN_LAB = Client("52:54:00:00:00:04", "pc-4", group="lab")
OFF = Client("52:54:00:00:00:05", "pc-5", disabled=True)
LINKED = Client("52:54:00:00:00:06", "pc-6", group="room.1")
LIKE_ALL = Client("52:54:00:00:00:07", "pc-7")
SUPER = Client("52:54:00:00:00:08", "pc-8", group="lab")
LAYERED = Client("52:54:00:00:00:09", "pc-9")
ALL = (PLAIN, IN_ROOM, ALSO_IN_ROOM, IN_LAB, OFF, LINKED, LIKE_ALL, SUPER, LAYERED)

DEFAULT = Link("default", "", "win11", "production", None)
FULL = Catalogue(
    versions={("win11", 1): Version("win11", 1, None, content="content", layer="layer")},
    layers={"layer": Layer("layer", None, "/images/win11.vhd", "vhd-dynamic", 1 << 30, 1 << 20, 1)},
    channels={("win11", "production"): 1},
    links={
        ("default", ""): {0: DEFAULT},
        ("group", "room.1"): {0: dataclasses.replace(DEFAULT, scope="group", key="room.1", policy="keep")},
        ("client", LINKED.mac): {1: Link("client", LINKED.mac, "win11", None, 1, lun=1)},
        ("client", LIKE_ALL.mac): {0: dataclasses.replace(DEFAULT, scope="client", key=LIKE_ALL.mac)},
        ("client", LAYERED.mac): {0: Link("client", LAYERED.mac, "win11", None, 1, own_layer=True)},
    },
    choices={("group", "room.1"): (Choice("again", "", "win11", "production", None),)},
    branches={SUPER.mac: Branch(SUPER.mac, "win11", 1, "branch")},
    own_layers={(LAYERED.mac, 0): OwnLayer(LAYERED.mac, 0, "win11", 1, None, "own")},
    groups={"lab": GroupSettings(options=(DhcpOption(code=42, type="address", value="10.0.0.1"),))},
    portals=("10.0.0.1:3260",),
)


def entries(catalogue: Catalogue, clients: Iterable[Client] = ALL, *, revision: int = 5) -> dict[str, bytes]:
    """What the bucket holds of these clients, and before them of what they share."""
    compiler = Compiler(catalogue)
    bodies = {mac_token(client.mac): compiler.body(client) for client in clients}
    return {key: f'{{"revision":{revision},{body[1:]}'.encode() for key, body in (compiler.bodies | bodies).items()}


@pytest.mark.parametrize(
    "catalogue",
    [
        FULL,
        Catalogue(),
        dataclasses.replace(FULL, links={}),
        dataclasses.replace(FULL, portals=()),
        dataclasses.replace(FULL, channels={}),
    ],
    ids=["all kinds", "nothing there", "no links", "no block store", "no version"],
)
def test_each_client_has_the_plan_that_is_compiled_for_it(catalogue: Catalogue) -> None:
    held = entries(catalogue)
    for client in ALL:
        assert read_plan(held, mac_token(client.mac)) == compile_plan(catalogue, client, revision=5)


def test_whoever_has_nothing_of_its_own_shares_what_its_group_has() -> None:
    held = entries(FULL)
    shares = {}
    for client in ALL:
        entry = read_entry(held[mac_token(client.mac)])
        shares[client] = entry.shares if isinstance(entry, ClientPart) else None
    assert {client for client, key in shares.items() if key is None} == {OFF, LINKED, SUPER, LAYERED}
    assert shares[PLAIN] == shares[LIKE_ALL] == shared_key(None), (
        "a link that says what the default says changes nothing"
    )
    assert shares[IN_ROOM] == shares[ALSO_IN_ROOM] == shared_key("room.1")
    assert shares[IN_LAB] == shared_key("lab")


def test_clients_that_nothing_is_linked_to_share_that_too() -> None:
    held = entries(Catalogue())
    whole = {key for key in held if not is_shared(key) and not isinstance(read_entry(held[key]), ClientPart)}
    assert whole == {mac_token(OFF.mac)}
    for client in (PLAIN, IN_LAB):
        plan = read_plan(held, mac_token(client.mac))
        assert plan is not None
        assert plan.refusal is not None
        assert plan.refusal.detail.startswith(client.name)


def test_another_default_link_changes_what_is_shared_and_no_entry_of_a_client_that_shares_it() -> None:
    before = entries(FULL)
    now = entries(
        dataclasses.replace(
            FULL, links={**FULL.links, ("default", ""): {0: dataclasses.replace(DEFAULT, policy="keep")}}
        )
    )
    changed = {key for key, entry in now.items() if entry != before[key]}
    assert changed == {shared_key(None), shared_key("lab"), mac_token(LIKE_ALL.mac)}


def test_who_leaves_what_is_shared_never_has_what_becomes_of_that() -> None:
    """Whatever of the changes is stored when NATS goes away, each client has its plan of before or of now."""
    fleet = (PLAIN, IN_ROOM, ALSO_IN_ROOM, IN_LAB, LIKE_ALL, LINKED)
    layer, install = FULL.layers["layer"], Version("install", 1, None, content="wipes", layer="other")
    after = dataclasses.replace(
        FULL,
        versions={**FULL.versions, ("install", 1): install},
        layers={"layer": layer, "other": dataclasses.replace(layer, id="other")},
        links={
            **FULL.links,
            ("default", ""): {0: Link("default", "", "install", None, 1)},
            ("group", "room.1"): {0: Link("group", "room.1", "install", None, 1)},
        },
        choices={},
    )
    moved = dataclasses.replace(IN_ROOM, group="lab"), dataclasses.replace(IN_LAB, group="room.1")
    now = (PLAIN, *moved, LIKE_ALL, LINKED)
    bucket, shown = entries(FULL, fleet), entries(after, now, revision=6)
    allowed = {
        mac_token(client.mac): [compile_plan(FULL, client)]
        + [compile_plan(after, one) for one in now if one.mac == client.mac]
        + ([None] if client is ALSO_IN_ROOM else [])
        for client in fleet
    }
    changes = {**shown, mac_token(ALSO_IN_ROOM.mac): None}
    steps = in_steps(changes, shown, bucket, bucket)
    assert len(steps) == 2
    for key, value in ((key, value) for step in steps for key, value in step.items()):
        if value is None:
            del bucket[key]
        else:
            bucket[key] = value
        for token, plans in allowed.items():
            plan = read_plan(bucket, token)
            assert plan is None or plan.revision in (5, 6)
            assert (plan and plan.model_copy(update={"revision": 1})) in plans, f"{token} after {key}"
    assert bucket == shown
    assert in_steps(shown, shown, bucket) == (shown,), "nobody leaves"
