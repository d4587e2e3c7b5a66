"""A session on the bench: PDUs in, PDUs out, a disk in a bytearray, and no event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from itertools import groupby
from typing import Any

from bootlink_blockstore.chap import Chap
from bootlink_blockstore.image import Buffer, Buffers
from bootlink_blockstore.login import Admission
from bootlink_blockstore.scsi.device import LogicalUnit, Outcome
from bootlink_blockstore.scsi.table import TABLE
from bootlink_blockstore.session import Session
from bootlink_blockstore.transfer import Task
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire.iscsi_digest import NONE, split
from bootlink_wire.iscsi_pdu import Pdu
from bootlink_wire.scsi_cdb import SECTOR
from bootlink_wire.scsi_vpd import Identity
from lab.iscsi import Speaker

SIZE = 16 << 20


class MemoryDisk:
    """What a session needs of a disk, on a bytearray. `slow` makes every read and write wait for `Bench.run`."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.data = bytearray(size)
        self.slow = False
        self.hits = 0
        self.writes_now = 0
        self.flushes = 0
        self.stable = 0  # writes with FUA
        self.zeroed = bytearray(size // SECTOR)  # 1 where a block was zeroed and not written since

    def hit(self, offset: int, length: int) -> Buffer | None:
        if self.slow or length > 32768:
            return None
        self.hits += 1
        return memoryview(bytes(self.data[offset : offset + length]))

    def hit_blocks(self, offset: int, length: int) -> Buffers | None:
        if self.slow:
            return None
        self.hits += 1
        return [bytes(self.data[offset : offset + 32768]), bytes(self.data[offset + 32768 : offset + length])]

    def read(self, offset: int, length: int) -> Buffers | Coroutine[Any, Any, Buffers]:
        def now() -> Buffers:
            return [
                bytes(self.data[at : min(at + 32768, offset + length)]) for at in range(offset, offset + length, 32768)
            ]

        async def later() -> Buffers:
            return now()

        return later() if self.slow else now()

    def write_now(self, offset: int, data: Buffer) -> bool:
        if self.slow or (offset | len(data)) & 4095:
            return False
        self.writes_now += 1
        self.data[offset : offset + len(data)] = data
        return True

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> Coroutine[Any, Any, None] | None:
        self.stable += fua
        self.zeroed[offset // SECTOR : (offset + len(data)) // SECTOR] = bytes(len(data) // SECTOR)
        kept = bytes(data)
        return self._do(lambda: self.data.__setitem__(slice(offset, offset + len(kept)), kept))

    def _do(self, now: Callable[[], None]) -> Coroutine[Any, Any, None] | None:
        async def later() -> None:
            now()

        if self.slow:
            return later()
        now()
        return None

    async def _settle(self, doing: Coroutine[Any, Any, None] | None) -> None:
        if doing is not None:
            await doing

    def flush(self, *, queued: bool = False) -> None:
        self.flushes += 1

    def zero(self, offset: int, length: int) -> Coroutine[Any, Any, None] | None:
        self.zeroed[offset // SECTOR : (offset + length) // SECTOR] = b"\1" * (length // SECTOR)
        return self._do(lambda: self.data.__setitem__(slice(offset, offset + length), bytes(length)))

    def update(
        self, offset: int, length: int, change: Callable[[bytes], bytes | None], *, fua: bool = False
    ) -> Coroutine[Any, Any, None]:
        async def later() -> None:
            new = change(bytes(self.data[offset : offset + length]))
            if new is not None:
                await self._settle(self.write(offset, new, fua=fua))

        return later()

    def mapped(self, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
        states = self.zeroed[offset // SECTOR : (offset + length) // SECTOR]
        for state, run in groupby(range(len(states)), key=lambda at: states[at]):
            places = list(run)
            yield not state, offset + places[0] * SECTOR, offset + (places[-1] + 1) * SECTOR


def unit(disk: MemoryDisk, lun: int = 0, luns: tuple[int, ...] = (0,)) -> LogicalUnit:
    return LogicalUnit(TABLE, Identity("52:54:00:00:00:01", lun), luns, disk)


class Bench:
    """One session with one speaker. `send` gives what the session answers, decoded."""

    def __init__(
        self,
        speaker: Speaker | None = None,
        units: dict[int, LogicalUnit] | None = None,
        disk: MemoryDisk | None = None,
    ) -> None:
        self.disk = disk or MemoryDisk()
        self.units = units or {0: unit(self.disk)}
        self.speaker = speaker or Speaker()
        self.errors: Counter[str] = Counter()
        self.session = Session(self, lambda name: self.errors.update([name]))
        self.started: list[tuple[Task, Coroutine[Any, Any, Outcome]]] = []
        self.visible: list[tuple[str, str]] = [(self.speaker.target, "127.0.0.1:3260,1")]
        self.woken = 0
        self.exchange: Chap | None = None  # what a login must prove
        self.unproved: list[str] = []

    # Host

    def start(self, task: Task, running: Coroutine[Any, Any, Outcome]) -> None:
        self.started.append((task, running))

    def authenticate(self, admission: Admission) -> Chap | None:
        return self.exchange

    def unproven(self, admission: Admission, why: str) -> None:
        self.unproved.append(why)

    def targets(self, initiator: str) -> list[tuple[str, str]]:
        return self.visible if initiator == self.speaker.name else []

    def wake(self) -> None:
        self.woken += 1

    # Test

    def send(self, *pdus: Pdu | bytes) -> list[Pdu]:
        digests = self.session.digests or NONE
        stream = b"".join(p if isinstance(p, bytes) else b"".join(digests.seal([p.encode()])) for p in pdus)
        self.session.receive(stream, 1.0)
        return self.answers()

    def answers(self) -> list[Pdu]:
        digests = self.session.digests or NONE
        out = b"".join(digests.seal(self.session.out))
        self.session.out.clear()
        found, rest = split(out, digests)
        assert rest == b""
        return found

    def run(self) -> list[Pdu]:
        """Let everything that was started end."""
        while self.started:
            task, running = self.started.pop(0)
            self.session.finish(task, asyncio.run(_await(running)))
        return self.answers()

    def log_in(self, *, attentions: bool = False, discovery: bool = False) -> list[Pdu]:
        """To full feature; and past the unit attention unless told otherwise."""
        before = self.send(self.speaker.login(discovery=discovery))
        assert self.session.held, before
        self.session.admit({} if discovery else self.units, LogicalUnit(TABLE, Identity("", 0), (0,)), 1)
        self.session.resume()
        answers = self.answers()
        response = answers[0]
        assert isinstance(response, pdu.LoginResponse)
        self.speaker.cmdsn = response.expcmdsn
        if not attentions and not discovery:
            for lun in self.units:
                self.send(self.speaker.command(bytes(6), lun=lun))
        return answers


async def _await(running: Coroutine[Any, Any, Outcome]) -> Outcome:
    return await running
