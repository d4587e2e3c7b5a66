"""A SCSI disk: logical units, and how a command finds its handler.

Theory of operation. A `LogicalUnit` is one client's disk as SCSI sees it; a `Nexus` is one session's relation to it
(SAM-5's I_T_L nexus): its pending unit attentions and what it has read and written. A command runs in two steps:

    prepare   the CDB's row in `commands.TABLE`, the pending unit attention, and all that can be wrong with a command
              before its data comes. Says how many bytes the initiator must send.
    execute   the handler, with the data. Gives an `Outcome` at once where it can, else a coroutine of one.

Each error ends in sense data: `CheckCondition` from a handler, or a `DiskFault` by the table below. Neither step raises
anything else for whatever bytes a CDB may hold.

Deliberately not here: transport (lengths, residuals and aborts are the session's), and storage.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from bootlink_blockstore.disk import ClientDisk, DiskFault
from bootlink_blockstore.image import Buffer, Buffers
from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_cdb import SECTOR, Op
from bootlink_wire.scsi_sense import CheckCondition, Sense, Status
from bootlink_wire.scsi_vpd import Identity

TRANSFER_LIMIT: Final = 8_192  # sectors (4 MiB) per command: bounds what one command may hold in memory
ATTENTIONS_LIMIT: Final = 8  # pending per nexus; each kind is kept once, so this is a ceiling for code of ours

FAULTS: Final[dict[str, Sense]] = {
    "read": sense.READ_ERROR,
    "write": sense.WRITE_ERROR,
    "space": sense.SPACE_ALLOCATION_FAILED,
    "fenced": sense.WRITE_PROTECTED,
    "failed": sense.INTERNAL_FAILURE,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: status, what to send, and why not."""

    status: int = Status.GOOD
    data: Buffers = field(default_factory=list)
    sense: bytes = b""


GOOD: Final = Outcome()
Running = Outcome | Coroutine[Any, Any, Outcome]


def failure(why: Sense) -> Outcome:
    """CHECK CONDITION with this sense."""
    return Outcome(Status.CHECK_CONDITION, [], why.encode())


@dataclass(slots=True, eq=False)
class Nexus:
    """One session's relation to one logical unit. Times are the session's clock, in seconds."""

    session: object = None  # whose it is
    on_attention: Callable[[], None] | None = None  # told at once, as it may have a short cut around `prepare`
    attentions: list[Sense] = field(default_factory=lambda: [sense.POWER_ON])
    reads: int = 0
    bytes_read: int = 0
    writes: int = 0
    bytes_written: int = 0
    first_read: float | None = None
    last_io: float | None = None

    def attend(self, what: Sense) -> None:
        """The next command is told of this."""
        if what not in self.attentions and len(self.attentions) < ATTENTIONS_LIMIT:
            self.attentions.append(what)
        if self.on_attention is not None:
            self.on_attention()


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the command table."""

    name: str
    run: Callable[[LogicalUnit, Nexus, bytes, Buffer], Running]
    usage: bytes  # the CDB with all bits set that are looked at (SPC-4, section 6.35.3)
    data_out: Callable[[LogicalUnit, bytes], int] | None = None  # bytes to come; raises CheckCondition
    reads: Callable[[LogicalUnit, bytes], int] | None = None  # bytes read from the disk; raises CheckCondition
    despite_attention: bool = False  # INQUIRY, REPORT LUNS, REQUEST SENSE (SAM-5, section 5.14)


NO_DATA_OUT: Final = 0
ACTION_OPCODES: Final = (Op.SERVICE_ACTION_IN_16, Op.MAINTENANCE_IN)  # whose meaning byte 1 completes


def code(cdb: bytes) -> int:
    """The key of a CDB in the command table: operation code << 8 | service action, where it has one."""
    return cdb[0] << 8 | (cdb[1] & 0x1F if cdb[0] in ACTION_OPCODES else 0)


class LogicalUnit:
    """One logical unit of a target. Without a disk it is one that is not there, and says so."""

    __slots__ = ("disk", "identity", "luns", "nexuses", "sectors", "table")

    def __init__(
        self, table: dict[int, Command], identity: Identity, luns: tuple[int, ...], disk: ClientDisk | None = None
    ) -> None:
        self.table = table
        self.identity = identity
        self.luns = luns  # all logical units of the target, for REPORT LUNS
        self.disk = disk
        self.sectors = disk.size // SECTOR if disk else 0
        self.nexuses: set[Nexus] = set()

    def prepare(self, nexus: Nexus, cdb: bytes) -> tuple[Command, int]:
        """The command, and the bytes that it needs from the initiator. CheckCondition if it cannot be done."""
        command = self.table.get(code(cdb))
        if self.disk is None and (command is None or not command.despite_attention):
            raise CheckCondition(sense.NO_LOGICAL_UNIT)
        if nexus.attentions and not (command and command.despite_attention):
            raise CheckCondition(nexus.attentions.pop(0))
        if command is None:
            field_at_fault = 1 if cdb[0] in ACTION_OPCODES else 0
            raise CheckCondition((sense.INVALID_FIELD if field_at_fault else sense.INVALID_OPCODE).at(field_at_fault))
        return command, command.data_out(self, cdb) if command.data_out else NO_DATA_OUT

    def execute(self, command: Command, nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
        """Run a prepared command with the data that came for it."""
        try:
            running = command.run(self, nexus, cdb, data)
        except (CheckCondition, DiskFault) as error:
            return failure(_sense(error))
        return running if isinstance(running, Outcome) else _guard(running)

    def attend(self, what: Sense) -> None:
        """Tell all sessions."""
        for nexus in self.nexuses:
            nexus.attend(what)


async def _guard(running: Coroutine[Any, Any, Outcome]) -> Outcome:
    try:
        return await running
    except (CheckCondition, DiskFault) as error:
        return failure(_sense(error))


def _sense(error: CheckCondition | DiskFault) -> Sense:
    return error.sense if isinstance(error, CheckCondition) else FAULTS[error.kind]
