"""Parts of the chassis as tests want them: a bus on a real nats-server, with the registry's streams and buckets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

from bootlink_events import BootPlan, DiskPlan, LayerPlan, Policy, mac_token, target_iqn
from bootlink_runtime import Bus, Health, NatsAccess, PlanBook, logger, provision
from bootlink_runtime.access import ANYBODY

MAC = "52:54:00:12:34:56"


@contextlib.asynccontextmanager
async def bus_on(
    url: str, *, service: str = "test", make: bool = True, access: NatsAccess = ANYBODY
) -> AsyncIterator[Bus]:
    """A connected bus; with `make`, the stream and the buckets exist."""
    bus = Bus(url, access=access, service=service, node="lab", log=logger(service), health=Health(service, "lab"))
    bus.start()
    try:
        await bus.epoch_after(0)
        if make:
            await provision(bus)
        yield bus
    finally:
        await bus.close()


@contextlib.asynccontextmanager
async def reader(url: str, folder: Path) -> AsyncIterator[tuple[Bus, PlanBook]]:
    """What another service has: a bus and its plan book."""
    async with bus_on(url, service="reader", make=False) as bus:
        book = PlanBook(bus, folder=folder, log=logger("reader"), health=Health("reader", "lab"))
        task = asyncio.create_task(book.run())
        try:
            yield bus, book
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def plan(
    mac: str = MAC,
    *,
    revision: int = 1,
    layers: tuple[LayerPlan, ...] = (),
    policy: Policy = "discard",
    portals: tuple[str, ...] = ("127.0.0.1:3260",),
    address: IPv4Address | None = None,
) -> BootPlan:
    """A plan that boots, unless it is given no layers."""
    disk = (
        DiskPlan(lun=0, image="demo", version=1, channel="production", layers=layers, policy=policy) if layers else None
    )
    return BootPlan(
        mac=mac,
        client=f"pc-{mac_token(mac)[-2:]}",
        revision=revision,
        target=target_iqn(mac),
        portals=portals,
        disks=(disk,) if disk else (),
        address=address,
    )
