"""The spindle rule from end to end: a block store tells where it keeps what, the registry compares, and says it."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

from bootlink_events import (
    NODES_BUCKET,
    PLANS_BUCKET,
    BootPlan,
    CloudEvent,
    Mount,
    NodeInfo,
    PhysicalDisk,
    Storage,
    mac_token,
    read_plan,
)
from bootlink_registry.spindles import shared
from bootlink_runtime import Bus, Replica, ended, follow, logger
from lab.chassis import MAC, bus_on
from lab.fleet import service
from lab.nats import NatsServer
from lab.registry import Registry, raw_disk, registry_on, until


def keeping_all_on_one_disk(name: str, *, rotational: bool) -> NodeInfo:
    storage = Storage(
        writebacks="/data/blockstore/writebacks",
        mounts=(Mount(point="/", disks=("sda",)),),
        disks=(PhysicalDisk(name="sda", rotational=rotational, model="ST2000"),),
    )
    return NodeInfo(node=name, portals=(f"{name}:3260",), seen=datetime.now(UTC), storage=storage)


async def announce(bus: Bus, info: NodeInfo) -> None:
    await bus.put(NODES_BUCKET, info.node, info.model_dump_json().encode())


def said(registry: Registry) -> tuple[bool, str]:
    """What `bootlink status` shows of it."""
    check = registry.chassis.health.report()["checks"]["spindles"]
    return check["ok"], check["detail"]


async def told(bus: Bus) -> list[CloudEvent]:
    return [event async for event in follow(bus, subject="bootlink.v1.spindle.shared.>", wait=False)]


async def plan_of(bus: Bus, mac: str) -> BootPlan | None:
    held = Replica(bus, PLANS_BUCKET, None, lambda key, value: None, logger("test"))
    task = asyncio.create_task(held.run())
    await held.synced.wait()
    await ended(task)
    return read_plan(held.entries, mac_token(mac))


async def test_a_shared_rotating_disk_is_said_in_status_and_as_one_event(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with registry_on(nats.url, database, tmp_path / "data") as registry, bus_on(nats.url) as bus:
        await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
        await registry.add_client(MAC, "pc-07")
        await registry.link("default", "", "demo")
        await announce(bus, keeping_all_on_one_disk("quiet", rotational=False))
        await announce(bus, keeping_all_on_one_disk("loud", rotational=True))
        await until(lambda: not said(registry)[0], "the status to say it")
        assert "node loud" in said(registry)[1]
        assert "share the rotating disk sda" in said(registry)[1]
        assert "quiet" not in said(registry)[1]
        assert registry.chassis.health.ready, "a warning keeps nobody from working"

        async def one() -> bool:
            return len(await told(bus)) == 1

        await until(one, "the event")
        (event,) = await told(bus)
        assert event.data["files"] == [str(tmp_path / "demo.img")]
        assert (event.data["node"], event.data["disk"], event.data["refused"]) == ("loud", "sda", False)

        async def boots() -> bool:
            plan = await plan_of(bus, MAC)
            return plan is not None and plan.bootable and set(plan.portals) == {"loud:3260", "quiet:3260"}

        await until(boots, "the plan, which names both")
        await announce(bus, keeping_all_on_one_disk("loud", rotational=False))
        await until(lambda: said(registry)[0], "the status to be well again")


async def test_where_it_is_to_be_refused_clients_are_sent_elsewhere_or_told_why(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with (
        registry_on(nats.url, database, tmp_path / "data", spindle="refuse") as registry,
        bus_on(nats.url) as bus,
    ):
        await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
        await registry.add_client(MAC, "pc-07")
        await registry.link("default", "", "demo")
        await announce(bus, keeping_all_on_one_disk("loud", rotational=True))

        async def refused() -> bool:
            plan = await plan_of(bus, MAC)
            return plan is not None and plan.refusal is not None and plan.refusal.cause == "shared_spindle"

        await until(refused, "the refusal")
        await announce(bus, keeping_all_on_one_disk("quiet", rotational=False))

        async def elsewhere() -> bool:
            plan = await plan_of(bus, MAC)
            return plan is not None and plan.bootable and plan.portals == ("quiet:3260",)

        await until(elsewhere, "the plan with the node that keeps the rule")


async def test_a_real_block_store_tells_where_it_keeps_what(nats: NatsServer, database: str, tmp_path: Path) -> None:
    disk = raw_disk(tmp_path / "demo.img")
    link = tmp_path / "link.img"
    link.symlink_to(disk)
    async with registry_on(nats.url, database, tmp_path / "data") as registry, bus_on(nats.url) as bus:
        await registry.add_image("demo", link)
        settings = {
            "BOOTLINK_NATS_URL": nats.url,
            "BOOTLINK_DATA": str(tmp_path / "store"),
            "BOOTLINK_NODE": "store",
            "BOOTLINK_BLOCKSTORE_HOST": "127.0.0.1",
            "BOOTLINK_BLOCKSTORE_PORT": "0",
            "BOOTLINK_LOG_FORMAT": "json",
        }
        with service("blockstore", tmp_path, os.environ | settings):
            bucket = await bus.key_value(NODES_BUCKET)
            assert bucket is not None

            async def announced() -> bool:
                return bool((await registry.get("/v1/info"))["nodes"])

            await until(announced, "the announcement")
            entry = await bucket.get("store")
            assert entry.value is not None
            info = NodeInfo.model_validate_json(entry.value)
            assert info.storage is not None
            assert info.storage.writebacks == os.path.realpath(tmp_path / "store/blockstore/writebacks")
            broken = shared([info], [str(disk)])  # on a machine with a rotating disk: this one
            await until(lambda: said(registry)[0] == (not broken), "the registry to come to the same")
