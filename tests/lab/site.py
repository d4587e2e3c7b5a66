"""A registry and a block store in the test's own loop, over one nats-server, and PCs that boot from them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from bootlink_blockstore import SERVICE as BLOCKSTORE
from bootlink_blockstore.settings import Settings
from bootlink_events import BootId, initiator_iqn, target_iqn
from bootlink_runtime import running
from lab.iscsi import Initiator
from lab.registry import Registry, registry_on, until


class Site:
    """What runs. `pc` logs in as a PC's operating system would."""

    def __init__(self, registry: Registry, host: str, port: int) -> None:
        self.registry = registry
        self.host = host
        self.port = port

    async def pc(self, mac: str, boot: BootId) -> Initiator:
        """A session of the PC in this boot."""
        return await Initiator.logged_in(self.host, self.port, name=initiator_iqn(mac, boot), target=target_iqn(mac))

    async def planned(self, client: str, version: int, *, layers: int | None = None) -> None:
        """Wait until the plan that the block stores see lets this client boot this version."""

        async def holds() -> bool:
            plan = (await self.registry.get(f"/v1/clients/{client}"))["plan"]
            if plan["refusal"] is not None or not plan["delivered"]:
                return False
            (disk,) = plan["disks"]
            return disk["version"] == version and (layers is None or len(disk["layers"]) == layers)

        await until(holds, f"a plan of {client} with version {version}")


@contextlib.asynccontextmanager
async def blockstore_on(nats_url: str, folder: Path) -> AsyncIterator[tuple[str, int]]:
    """A block store on a free port, with its data below `folder`; its address."""
    settings = Settings(nats_url=nats_url, data=folder, node="lab", host="127.0.0.1", port=0, cache=32 << 20)
    async with running(BLOCKSTORE, settings) as chassis:
        address = next(address for address in chassis.health.addresses if address.what == "iscsi")
        yield "127.0.0.1", int(str(address).rpartition(":")[2])


@contextlib.asynccontextmanager
async def site_on(nats_url: str, database_url: str, folder: Path) -> AsyncIterator[Site]:
    """Both, ready."""
    async with registry_on(nats_url, database_url, folder) as registry, blockstore_on(nats_url, folder) as address:
        yield Site(registry, *address)
