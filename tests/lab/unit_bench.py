"""A logical unit on the bench: commands in, outcomes out, a disk in a bytearray, and no transport."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from bootlink_blockstore.scsi.device import Nexus, Outcome
from bootlink_blockstore.scsi.reservations import ReservationConflict
from bootlink_wire.scsi_sense import CheckCondition
from lab.session_bench import SIZE, MemoryDisk, unit


class UnitBench:
    """One session on a unit. Calling it runs a command, `answer` gives its data, `code` its sense code."""

    def __init__(self, size: int = SIZE) -> None:
        self.disk = MemoryDisk(size)
        self.unit = unit(self.disk)
        self.nexus = Nexus(attentions=[], port="iqn.a,i,0x1")
        self.unit.nexuses.add(self.nexus)

    def __call__(
        self, cdb: bytes, data: bytes = b"", *, nexus: Nexus | None = None, announced: int | None = None
    ) -> Outcome:
        raw, me = cdb.ljust(16, b"\0"), nexus or self.nexus
        try:
            command, _ = self.unit.prepare(me, raw, len(data) if announced is None else announced)
        except (CheckCondition, ReservationConflict) as error:
            return self.unit.ended(error)
        running = self.unit.execute(command, me, raw, data)
        return running if isinstance(running, Outcome) else asyncio.run(_await(running))

    def answer(self, cdb: bytes | str) -> bytes:
        """The data of a command that must end well."""
        outcome = self(bytes.fromhex(cdb) if isinstance(cdb, str) else cdb)
        assert outcome.status == 0, outcome
        return b"".join(outcome.data)

    def code(self, cdb: bytes, data: bytes = b"", **more: Any) -> int:
        """The sense code that it ends with; 0: it does not."""
        outcome = self(cdb, data, **more)
        return int.from_bytes(outcome.sense[12:14], "big") if outcome.status == 2 else 0

    def at(self, lba: int, sectors: int = 1) -> bytes:
        return bytes(self.disk.data[lba * 512 : (lba + sectors) * 512])


async def _await(running: Coroutine[Any, Any, Outcome]) -> Outcome:
    return await running
