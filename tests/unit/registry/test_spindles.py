"""The spindle rule: what breaks it, and what the compiler makes of that."""

from __future__ import annotations

from datetime import UTC, datetime

from bootlink_events import Mount, NodeInfo, PhysicalDisk, Storage
from bootlink_registry.catalogue import Catalogue, Client, Layer, Link, Version
from bootlink_registry.compiler import compile_plan
from bootlink_registry.spindles import shared, unfit

PATHS = {"fast": "/fast/a.img", "slow": "/slow/b.img", "other": "/slow/c.img"}
CLIENT = Client(mac="52:54:00:12:34:56", name="pc-07")


def node(name: str, writebacks: str, *, rotational: bool = True) -> NodeInfo:
    storage = Storage(
        writebacks=writebacks,
        mounts=(
            Mount(point="/", disks=("sda",)),
            Mount(point="/fast", disks=("nvme0n1",)),
            Mount(point="/slow", disks=("sdb", "sdc")),
        ),
        disks=(
            PhysicalDisk(name="nvme0n1", rotational=False),
            PhysicalDisk(name="sda", rotational=rotational),
            PhysicalDisk(name="sdb", rotational=rotational),
            PhysicalDisk(name="sdc", rotational=rotational),
        ),
    )
    return NodeInfo(node=name, portals=(f"{name}:3260",), seen=datetime.now(UTC), storage=storage)


def test_images_and_write_backs_on_one_rotating_disk_are_told_disk_by_disk() -> None:
    found = shared([node("a", "/slow/writebacks")], PATHS.values())
    assert [(one.node, one.disk, one.files) for one in found] == [
        ("a", "sdb", ("/slow/b.img", "/slow/c.img")),
        ("a", "sdc", ("/slow/b.img", "/slow/c.img")),
    ]
    assert str(found[0]) == "node a: 2 files of images and the write-backs share the rotating disk sdb"


def test_other_disks_disks_that_do_not_rotate_and_nodes_that_do_not_tell_break_nothing() -> None:
    silent = NodeInfo(node="old", portals=("old:3260",), seen=datetime.now(UTC))
    nodes = [node("a", "/var/lib/bootlink"), node("b", "/fast/w"), node("c", "/slow/w", rotational=False), silent]
    assert shared(nodes, PATHS.values()) == []
    assert unfit(nodes, PATHS) == {}


def catalogue(image: str, *nodes: NodeInfo) -> Catalogue:
    layers = {
        name: Layer(id=name, below=None, path=path, format="raw", virtual_size=512, file_size=512, mtime_ns=1)
        for name, path in PATHS.items()
    }
    return Catalogue(
        versions={(name, 1): Version(image=name, number=1, parent=None, content=name, layer=name) for name in PATHS},
        layers=layers,
        links={("default", ""): {0: Link(scope="default", key="", image=image, channel=None, version=1)}},
        portals=tuple(portal for node in nodes for portal in node.portals),
        unfit=unfit(nodes, PATHS),
    )


def test_a_client_is_sent_to_the_nodes_that_keep_its_image_apart_from_write_backs() -> None:
    bad, good = node("bad", "/slow/w"), node("good", "/fast/w")
    plan = compile_plan(catalogue("slow", bad, good), CLIENT)
    assert (plan.portals, plan.refusal, plan.bootable) == (("good:3260",), None, True)
    assert compile_plan(catalogue("fast", bad, good), CLIENT).portals == (
        "bad:3260",
        "good:3260",
    )  # whose disk does not rotate


def test_where_no_node_does_the_plan_says_why() -> None:
    plan = compile_plan(catalogue("slow", node("bad", "/slow/w")), CLIENT)
    assert plan.refusal is not None
    assert plan.refusal.cause == "shared_spindle"
    assert "slow" in plan.refusal.detail
    assert plan.disks == ()
    assert plan.portals == ()
