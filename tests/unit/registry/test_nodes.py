"""Which block stores clients are sent to: announcements, silence, and outages that are nobody's fault."""

from __future__ import annotations

from datetime import UTC, datetime

from bootlink_events import NodeInfo
from bootlink_registry.nodes import NODES_LIMIT, Nodes
from bootlink_runtime.stores import NODE_TTL_SECONDS as TTL


def node(name: str, *portals: str) -> NodeInfo:
    return NodeInfo(node=name, portals=portals, seen=datetime.now(UTC))


def test_portals_are_those_of_all_nodes_by_name_each_once() -> None:
    nodes = Nodes()
    assert nodes.heard(node("b", "10.0.0.2:3260"), 0)
    assert nodes.heard(node("a", "10.0.0.1:3260", "10.0.0.2:3260"), 0)
    assert nodes.portals == ("10.0.0.1:3260", "10.0.0.2:3260")


def test_the_same_announcement_again_changes_nothing() -> None:
    nodes = Nodes()
    assert nodes.heard(node("a", "10.0.0.1:3260"), 0)
    assert not nodes.heard(node("a", "10.0.0.1:3260"), 20)
    assert nodes.heard(node("a", "10.0.0.9:3260"), 40)


def test_a_node_is_gone_after_its_silence_and_not_before() -> None:
    nodes = Nodes()
    nodes.heard(node("a", "10.0.0.1:3260"), 0)
    nodes.heard(node("b", "10.0.0.2:3260"), 10)
    assert nodes.expire(TTL) == []
    assert nodes.expire(TTL + 1) == ["a"]
    assert nodes.portals == ("10.0.0.2:3260",)


def test_silence_while_nobody_could_be_heard_does_not_count() -> None:
    nodes = Nodes()
    nodes.heard(node("a", "10.0.0.1:3260"), 0)
    nodes.excuse(1000)
    assert nodes.expire(1000 + TTL) == []
    assert nodes.expire(1001 + TTL) == ["a"]


def test_a_flood_of_names_is_held_to_a_limit_and_known_nodes_stay() -> None:
    nodes = Nodes()
    for number in range(2 * NODES_LIMIT):
        nodes.heard(node(f"n{number:04}", f"10.0.0.1:{number + 1}"), 0)
    assert len(nodes.all) == NODES_LIMIT
    assert nodes.heard(node("n0000", "10.0.0.2:3260"), 1)


def told(free: int | None, name: str = "a") -> NodeInfo:
    return node(name, f"10.0.0.{ord(name) - ord('a') + 1}:3260").model_copy(update={"free": free})


def test_a_node_is_full_below_the_reserve_until_it_is_clearly_above() -> None:
    nodes = Nodes(reserve=1000 << 20)
    assert nodes.heard(told(1000 << 20), 0)
    assert nodes.full == {}
    assert nodes.heard(told((1000 << 20) - 1), 1)
    assert nodes.full == {"10.0.0.1:3260": "a has 999 MiB left"}
    assert not nodes.heard(told(1050 << 20), 2), "it goes up and down all day"
    assert nodes.heard(told(1100 << 20), 3)
    assert nodes.full == {}
    nodes.heard(told(0), 4)
    nodes.expire(TTL + 5)
    assert nodes.full == {}


def test_without_a_reserve_or_where_nothing_is_told_no_node_is_full() -> None:
    nodes = Nodes()
    nodes.heard(told(0), 0)
    assert nodes.full == {}
    silent = Nodes(reserve=1000)
    silent.heard(told(None), 0)
    assert silent.full == {}


def test_the_health_report_tells_of_nodes_on_which_no_pc_is_started() -> None:
    nodes = Nodes(reserve=1000 << 20)
    nodes.heard(told(2000 << 20), 0)
    assert nodes.room() == (True, "enough")
    nodes.heard(told(999 << 20, "b"), 1)
    room, text = nodes.room()
    assert not room
    assert text.startswith("block store b has 999 MiB left, so no PC is started there: free space")
    assert "BOOTLINK_REGISTRY_BOOT_RESERVE" in text
