"""kill -9 of a real block store in the middle of verified writes, again and again.

Two clients of one image, one with the policy discard and one with keep, write, trim and flush with several commands
under way each, until the process is killed. It is started again, both log in under the boot id that they had, and read
their whole disks: every sector must be what was last acknowledged, or, where a command was under way, what was there
before it or what it would have made of it. In the end the image's bytes are what they were.

The process is killed, and not the machine: what this proves is that nothing that was acknowledged is held in the
process alone. For power cuts see `crash_states` and `power_log`.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from bootlink_events import BootId
from bootlink_wire import iscsi_pdu as pdu
from lab.blockstore import digest, make_image, plan
from lab.blockstore_process import Service
from lab.iscsi import Initiator, unmap, write_10
from rigs.figures import Figures, Violation

SECTOR = 512
SIZE = 8 << 20
SECTORS = SIZE // SECTOR
DEPTH = 8  # commands under way
CLIENTS = {"52:54:00:00:00:01": "discard", "52:54:00:00:00:02": "keep"}
FLUSH = bytes((0x35,)) + bytes(9)


@dataclass
class Client:
    """A client, and what its disk must hold."""

    mac: str
    boot_id: BootId
    random: random.Random
    held: bytearray
    under_way: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # by task tag: offset, and what it makes
    stamp: int = 0
    acknowledged: int = 0
    trims: int = 0

    async def write_until_killed(self, pc: Initiator) -> NoReturn:
        """ConnectionError when the process is gone."""
        while True:
            while len(self.under_way) < DEPTH:
                self._send(pc)
            answer = await pc.receive()
            if not isinstance(answer, pdu.ScsiResponse):
                raise Violation(f"{self.mac}: {answer}")
            offset, data = self.under_way.pop(answer.itt)
            if answer.status:
                raise Violation(f"{self.mac}: status {answer.status} for {len(data)} bytes at {offset}")
            self.held[offset : offset + len(data)] = data
            self.acknowledged += 1

    def _send(self, pc: Initiator) -> None:
        sectors = self.random.choice((1, 3, 8, 16, 64, 127))
        lba = self.random.randrange(SECTORS - sectors)
        if any(at < (lba + sectors) * SECTOR and lba * SECTOR < at + len(data) for at, data in self.under_way.values()):
            sectors = 0  # whose order nobody promised
        self.stamp += 1
        kind = self.random.randrange(8) if sectors else 0
        if kind == 0:
            command, data, lba = pc.command(FLUSH), b"", 0
        elif kind == 1:
            cdb, parameters = unmap([(lba, sectors)])
            command = pc.command(cdb, expected=len(parameters), write=True, data=parameters)
            data = bytes(sectors * SECTOR)
            self.trims += 1
        else:
            data = b"".join(self._sector(lba + n) for n in range(sectors))
            command = pc.command(write_10(lba, sectors, fua=kind == 2), expected=len(data), write=True, data=data)
        self.under_way[command.itt] = (lba * SECTOR, data)
        pc.send(command)

    def _sector(self, lba: int) -> bytes:
        """Whose it is, where, and of which command: a sector that strayed tells on itself."""
        return struct.pack(">16sQQ", self.mac[-16:].encode(), lba, self.stamp) * 16

    async def verify(self, pc: Initiator) -> None:
        """Every sector is what it may be; from now on it stays so."""
        may: dict[int, bytes] = {}
        for offset, data in self.under_way.values():
            for at in range(0, len(data), SECTOR):
                may[offset + at] = data[at : at + SECTOR]
        self.under_way.clear()
        for offset in range(0, SIZE, 1 << 20):
            now = await pc.read(offset, 1 << 20)
            if now == self.held[offset : offset + (1 << 20)]:
                continue
            for at in range(offset, offset + (1 << 20), SECTOR):
                sector = now[at - offset : at - offset + SECTOR]
                if sector != self.held[at : at + SECTOR] and sector != may.get(at):
                    raise Violation(f"{self.mac}: sector {at // SECTOR} is {sector[:32].hex()}")
                self.held[at : at + SECTOR] = sector


async def _login(service: Service, client: Client) -> Initiator:
    return await service.login(client.boot_id, client.mac)


async def _run(count: int, seed: int, folder: Path) -> Figures:
    chance = random.Random(seed)
    base = make_image(folder / "base.img", SIZE)
    before = digest(base)
    service = Service(folder, *(plan(base, mac=mac, policy=policy) for mac, policy in CLIENTS.items()))  # type: ignore[arg-type]
    now = int(time.time() * 1000) - 3_600_000
    clients = [
        Client(mac, BootId.mint(now_ms=now), random.Random(chance.random()), bytearray(base.read_bytes()))
        for mac in CLIENTS
    ]
    recoveries: list[float] = []
    killed = time.monotonic()
    try:
        for number in range(count + 1):
            service.start()
            pcs = [await _login(service, client) for client in clients]
            await pcs[0].read(0, 4096)
            recoveries.append(time.monotonic() - killed)
            try:
                for client, pc in zip(clients, pcs, strict=True):
                    await client.verify(pc)
            except Violation as violation:
                raise Violation(f"seed {seed}, kill {number}: {violation}") from None
            if number < count:
                killer = asyncio.get_running_loop().call_later(0.02 + chance.random() / 4, service.kill)
                ends = await asyncio.gather(
                    *(client.write_until_killed(pc) for client, pc in zip(clients, pcs, strict=True)),
                    return_exceptions=True,
                )
                killer.cancel()
                for end in ends:
                    if not isinstance(end, ConnectionError):
                        raise end
                killed = time.monotonic()
            for pc in pcs:
                await pc.close()
    finally:
        service.process.kill()
    if digest(base) != before:
        raise Violation(f"seed {seed}: the image's bytes have changed")
    return {
        "kills": count,
        "acknowledged writes and trims": sum(client.acknowledged for client in clients),
        "trims sent": sum(client.trims for client in clients),
        "longest until the client reads again, seconds": round(max(recoveries[1:]), 1),
        "violations": 0,
    }


def run(count: int, seed: int, folder: Path) -> Figures:
    """`count` kills."""
    return asyncio.run(_run(count, seed, folder))
