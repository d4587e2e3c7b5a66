"""A registry and a block store on a real NATS and PostgreSQL, and PCs that boot from what the one tells the other."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bootlink_blockstore import SERVICE
from bootlink_blockstore.settings import Settings
from bootlink_events import BootId, BootPlan, target_iqn
from bootlink_runtime import Chassis, running
from lab.blockstore import identity
from lab.disks import MIB
from lab.iscsi import Initiator
from lab.registry import Registry, registry_on, until


class Pc:
    """A client: powered on, it holds a session to its disk; powered off, none."""

    def __init__(self, room: Room, mac: str, name: str) -> None:
        self.mac = mac
        self.name = name
        self.boot_id: BootId | None = None
        self._room = room
        self._session: Initiator | None = None

    @property
    def disk(self) -> Initiator:
        assert self._session is not None, f"{self.name} is off"
        return self._session

    async def boot(self, *, at_once: bool = False) -> Initiator:
        """Power on, once the block store has the plan that the registry means by now; or with what plan it has."""
        await self.off()
        if not at_once:
            await self.planned()
        self.boot_id = BootId.mint(after=self.boot_id)
        self._session = await Initiator.logged_in(
            *self._room.portal, name=identity(self.boot_id, self.mac), target=target_iqn(self.mac)
        )
        return self._session

    async def off(self) -> None:
        """Power off, and wait until the block store has seen that."""
        if self._session is None:
            return
        await self._session.close()
        self._session = None

        async def seen() -> bool:
            held = await self._room.registry.get(f"/v1/clients/{self.name}/writebacks")
            return all(one["state"] != "in_use" for one in held)

        await until(seen, f"the end of {self.name}'s session")

    async def planned(self) -> BootPlan:
        """Its plan, once the block store has what the registry means."""
        book = self._room.store.plan_book()

        async def there() -> bool:
            wanted = (await self._room.registry.get(f"/v1/clients/{self.name}"))["plan"]
            plan = book.get(self.mac)
            return (
                plan is not None
                and bool(plan.portals)
                and [disk.model_dump(mode="json") for disk in plan.disks] == wanted["disks"]
            )

        await until(there, f"the plan of {self.name} at the block store")
        plan = book.get(self.mac)
        assert plan is not None
        return plan


class Room:
    """The two services, and the PCs."""

    def __init__(self, registry: Registry, store: Chassis) -> None:
        self.registry = registry
        self.store = store

    @property
    def portal(self) -> tuple[str, int]:
        address = next(one for one in self.store.health.addresses if one.what == "iscsi")
        return "127.0.0.1", address.port

    async def pc(self, number: int) -> Pc:
        """A new client of this number, known to the registry from now on."""
        pc = self.known(number)
        await self.registry.add_client(pc.mac, pc.name)
        return pc

    def known(self, number: int) -> Pc:
        """The client of this number, which the registry knows already."""
        return Pc(self, f"52:54:00:00:00:{number:02x}", f"pc-{number:02}")

    async def make_super(self, pc: Pc, image: str, **more: Any) -> None:
        answer = await self.registry.http.put(f"/v1/clients/{pc.name}/branch", json={"image": image, **more})
        assert answer.status_code == 201, answer.text

    async def job(self, path: str, body: Any) -> Any:
        """The end of a job that this request puts in."""
        answer = await self.registry.http.post(path, json=body)
        assert answer.status_code == 202, answer.text
        return await self.over(answer.json())

    async def over(self, job: Any) -> Any:
        """A job, once it is over."""
        path = f"/v1/jobs/{job['id']}"

        async def ended() -> bool:
            return (await self.registry.get(path))["ended"] is not None

        await until(ended, f"the end of {job['kind']}")
        return await self.registry.get(path)

    async def commit(self, pc: Pc, **body: Any) -> Any:
        """The result of a commit that must be done."""
        job = await self.job(f"/v1/clients/{pc.name}/commit", body)
        assert job["state"] == "done", job["problem"]
        return job["result"]


@contextlib.asynccontextmanager
async def room_on(nats_url: str, database_url: str, folder: Path) -> AsyncIterator[Room]:
    """A registry and a block store that share their folders."""
    async with registry_on(nats_url, database_url, folder / "data") as registry, store_on(nats_url, folder) as store:
        yield Room(registry, store)


@contextlib.asynccontextmanager
async def store_on(
    nats_url: str, folder: Path, *, node: str = "store", images: Path | None = None
) -> AsyncIterator[Chassis]:
    """A block store on free ports, ready, with its data below `folder`; `images`: the image store, if not there."""
    settings = Settings.model_validate(
        {
            "nats_url": nats_url,
            "data": folder / "data",
            "node": node,
            "host": "127.0.0.1",
            "port": 0,
            "cache": 16 * MIB,
            "space_reserve": 0,
        }
        | ({} if images is None else {"store": images})
    )
    async with running(SERVICE, settings) as store:
        yield store
