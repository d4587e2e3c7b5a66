"""A super client as it is: a block store's process, a PC's iSCSI sessions, and commands over a real NATS."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import TypeVar

from bootlink_events import PLANS_BUCKET, BootId, BootPlan, LayerPlan, mac_token
from bootlink_events.commands import Answer, Command, ExportedLayer, ExportState, ExportWriteback
from bootlink_runtime import Bus, BusUnavailable, CommandError, ask, rpc
from lab.blockstore import MAC
from lab.blockstore_process import NODE, Service
from lab.chassis import bus_on
from lab.iscsi import Initiator, unmap
from lab.nats import NatsServer

A = TypeVar("A", bound=Answer)
WAIT = 60.0
PAGE = 4096


class Lab:
    """The block store, and who commands it."""

    def __init__(self, service: Service, bus: Bus, folder: Path) -> None:
        self.service = service
        self.bus = bus
        self.images = folder / "data" / "images" / "demo"
        self.images.mkdir(parents=True)
        self._revision = 0
        self._sessions: list[Initiator] = []

    async def login(self, boot_id: BootId, mac: str = MAC) -> Initiator:
        """A session, which is closed with the lab at the latest."""
        self._sessions.append(await self.service.login(boot_id, mac))
        return self._sessions[-1]

    async def close(self) -> None:
        for session in self._sessions:
            with contextlib.suppress(OSError):
                await session.close()

    async def plan(self, plan: BootPlan) -> None:
        """Have the block store know a plan."""
        self._revision += 1
        plan = plan.model_copy(update={"revision": self._revision})
        await self.bus.put(PLANS_BUCKET, mac_token(plan.mac), plan.model_dump_json().encode())
        async with asyncio.timeout(WAIT):
            while not any(
                page["newest"] >= self._revision for page in await ask(self.bus.client, "plans", "blockstore")
            ):
                await asyncio.sleep(0.02)

    async def ask(self, command: Command[A]) -> A:
        return await rpc.call(self.bus, "blockstore", NODE, command)

    async def exported(self, command: ExportWriteback) -> ExportState:
        """Ask until it is over, as a job does: whatever happens to the block store meanwhile."""
        async with asyncio.timeout(WAIT):
            while True:
                try:
                    state = await rpc.call(self.bus, "blockstore", NODE, command, seconds=1)
                except (CommandError, BusUnavailable) as error:
                    if isinstance(error, CommandError) and error.cause != "unanswered":
                        raise
                else:
                    if state.state != "running":
                        return state
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """A running block store that has no plan yet."""
    with NatsServer(folder) as nats:
        async with bus_on(nats.url) as bus:
            service = Service(folder, nats=nats.url)
            service.start()
            running = Lab(service, bus, folder)
            try:
                yield running
            finally:
                await running.close()
                service.process.kill()


async def write_at_random(pc: Initiator, held: bytearray, random: Random, count: int) -> None:
    """Writes and trims of whole pages, of which no 2 MiB are all zeros; `held` is what the disk shows then."""
    for _ in range(count):
        pages = random.choice((1, 1, 2, 7, 40))
        at = random.randrange(len(held) // PAGE - pages) * PAGE
        if random.random() < 0.25:
            cdb, parameters = unmap([(at // 512, pages * 8)])
            pc.send(pc.command(cdb, expected=len(parameters), write=True, data=parameters))
            assert getattr(await pc.receive(), "status", None) == 0
            held[at : at + pages * PAGE] = bytes(pages * PAGE)
        else:
            data = random.randbytes(pages * PAGE)
            await pc.write(at, data)
            held[at : at + len(data)] = data


async def whole(pc: Initiator, size: int) -> bytes:
    """All of the disk."""
    return b"".join([await pc.read(at, min(1 << 20, size - at)) for at in range(0, size, 1 << 20)])


def export_command(images: Path, job: str, *parent: LayerPlan, mac: str = MAC, **more: object) -> ExportWriteback:
    return ExportWriteback.model_validate(
        {"job": job, "mac": mac, "target": str(images / f"{job}.vhd"), "parent": parent, **more}
    )


def layer_of(made: ExportedLayer) -> LayerPlan:
    """How a plan names it."""
    return LayerPlan(
        id=made.sha256,
        path=made.path,
        format=made.format,
        virtual_size=made.virtual_size,
        file_size=made.file_size,
        mtime_ns=made.mtime_ns,
    )


def hour_ago(number: int = 0) -> BootId:
    """Of some boots one after the other, the one with this number."""
    return BootId.mint(now_ms=int(time.time() * 1000) - 3_600_000 + number)
