"""A SCSI disk: logical units, and how a command finds its handler.

Theory of operation. A `LogicalUnit` is one client's disk as SCSI sees it; a `Nexus` is one session's relation to it
(SAM-5's I_T_L nexus): its pending unit attentions and what it has read and written. Mode pages and reservations are the
unit's, one for all nexuses, and live as long as it does: a new boot has a new unit. For the same reason neither the
capacity of a unit nor the list of units changes under a session, and no attention is ever due for that (2A/09, 3F/0E).
A command runs in two steps:

    prepare   the CDB's row in `table.TABLE`, then what stands in its way, in SAM-5's order of precedence: a
              reservation, the pending unit attention, write protection; and all that can be wrong with a command
              before its data comes. Says how many bytes the initiator must send.
    execute   the handler, with the data. Gives an `Outcome` at once where it can, else a coroutine of one.

Each error ends in a status and sense data: `CheckCondition` from a handler, a `DiskFault` by the table below, or
`ReservationConflict`. Neither step raises anything else for whatever bytes a CDB or its data may hold.

The session has short cuts around both steps for plain reads and writes. `readable` and `writable` say whether they may
be taken, and every nexus's `on_change` is called when the first answer may be another one.

Deliberately not here: transport (lengths, residuals and aborts are the session's), and storage.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from bootlink_blockstore.disk import DiskFault
from bootlink_blockstore.image import Buffer, Buffers
from bootlink_blockstore.scsi.reservations import Access, Notice, ReservationConflict, Reservations
from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_cdb import ACTION_OPCODES, SECTOR, code
from bootlink_wire.scsi_modes import Modes
from bootlink_wire.scsi_sense import CheckCondition, Sense, Status
from bootlink_wire.scsi_vpd import Identity

ATTENTIONS_LIMIT: Final = 16  # pending per nexus; each kind is kept once, so this is a ceiling for code of ours

FAULTS: Final[dict[str, Sense]] = {
    "read": sense.READ_ERROR,
    "write": sense.WRITE_ERROR,
    "space": sense.SPACE_ALLOCATION_FAILED,
    "fenced": sense.WRITE_PROTECTED,
    "failed": sense.INTERNAL_FAILURE,
}


class Disk(Protocol):
    """What a logical unit needs of a client's disk: `disk.ClientDisk`, or a test's. Offsets and lengths in bytes."""

    size: int

    def hit(self, offset: int, length: int) -> Buffer | None: ...
    def hit_blocks(self, offset: int, length: int) -> Buffers | None: ...
    def read(self, offset: int, length: int) -> Buffers | Coroutine[Any, Any, Buffers]: ...
    def write_now(self, offset: int, data: Buffer) -> bool: ...
    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> Coroutine[Any, Any, None] | None: ...
    def flush(self, *, queued: bool = False) -> Coroutine[Any, Any, None] | None: ...
    def zero(self, offset: int, length: int) -> Coroutine[Any, Any, None] | None: ...
    def update(
        self, offset: int, length: int, change: Callable[[bytes], bytes | None], *, fua: bool = False
    ) -> Coroutine[Any, Any, None]: ...
    def mapped(self, offset: int, length: int) -> Iterator[tuple[bool, int, int]]: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: status, what to send, and why not. `abort`: nexuses whose tasks must be dead before that."""

    status: int = Status.GOOD
    data: Buffers = field(default_factory=list)
    sense: bytes = b""
    abort: tuple[Nexus, ...] = ()


GOOD: Final = Outcome()
CONFLICT: Final = Outcome(Status.RESERVATION_CONFLICT)
Running = Outcome | Coroutine[Any, Any, Outcome]


@dataclass(slots=True, eq=False)
class Nexus:
    """One session's relation to one logical unit. Times are the session's clock, in seconds."""

    session: object = None  # whose it is
    on_change: Callable[[], None] | None = None  # `readable` may have changed, or an attention is pending
    attentions: list[Sense] = field(default_factory=lambda: [sense.POWER_ON])
    port: str = ""  # the initiator port's name: initiator name, ",i,0x", ISID in hex (RFC 7143, section 4.2.7.1)
    copies: dict[int, bytes] = field(default_factory=dict)  # how EXTENDED COPYs ended, by list identifier
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
        if self.on_change is not None:
            self.on_change()


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the command table."""

    name: str
    run: Callable[[LogicalUnit, Nexus, bytes, Buffer], Running]
    usage: bytes  # the CDB with all bits set that are looked at (SPC-4, section 6.35.3)
    access: Access  # what reservations and write protection make of it
    data_out: Callable[[LogicalUnit, bytes], int] | None = None  # bytes of blocks to come; raises CheckCondition
    parameters: Callable[[LogicalUnit, bytes], int] | None = None  # the same for a parameter list
    reads: Callable[[LogicalUnit, bytes], int] | None = None  # bytes of the disk that it holds while it runs; the same
    whole: bool = False  # the initiator must announce exactly the data that the CDB asks for
    despite_attention: bool = False  # INQUIRY, REPORT LUNS, REQUEST SENSE (SAM-5, section 5.14)

    @property
    def takes_data(self) -> bool:
        """Data comes with it."""
        return self.data_out is not None or self.parameters is not None


class LogicalUnit:
    """One logical unit of a target. Without a disk it is one that is not there, and says so."""

    __slots__ = ("disk", "ending", "identity", "luns", "modes", "nexuses", "reservations", "sectors", "table")

    def __init__(
        self, table: dict[int, Command], identity: Identity, luns: tuple[int, ...], disk: Disk | None = None
    ) -> None:
        self.table = table
        self.identity = identity
        self.luns = luns  # all logical units of the target, for REPORT LUNS
        self.disk = disk
        self.sectors = disk.size // SECTOR if disk else 0
        self.nexuses: set[Nexus] = set()
        self.ending: set[Nexus] = set()  # of sessions that have ended, while tasks of theirs still run
        self.modes = Modes()
        self.reservations = Reservations()

    def prepare(self, nexus: Nexus, cdb: bytes, announced: int) -> tuple[Command, int]:
        """The command, and the bytes it needs of those that the initiator has announced.

        CheckCondition or ReservationConflict if it cannot be done.
        """
        command = self.table.get(code(cdb))
        despite = command is not None and command.despite_attention
        if self.disk is None and not despite:
            raise CheckCondition(sense.NO_LOGICAL_UNIT)
        if command is not None and self.reservations.conflict(nexus, nexus.port, command.access):
            raise ReservationConflict
        if nexus.attentions and not despite:
            raise CheckCondition(nexus.attentions.pop(0))
        if command is None:
            field_at_fault = 1 if cdb[0] in ACTION_OPCODES else 0
            raise CheckCondition((sense.INVALID_FIELD if field_at_fault else sense.INVALID_OPCODE).at(field_at_fault))
        if command.access is Access.WRITE and self.modes.write_protected:
            raise CheckCondition(sense.SOFTWARE_WRITE_PROTECTED)
        size = command.data_out or command.parameters
        needed = size(self, cdb) if size else 0
        if command.parameters and announced < needed:
            raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
        if command.whole and announced != needed:
            raise CheckCondition(sense.INVALID_FIELD.at(len(command.usage) - 2))
        return command, needed

    def execute(self, command: Command, nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
        """Run a prepared command with the data that came for it."""
        try:
            running = command.run(self, nexus, cdb, data)
        except (CheckCondition, DiskFault, ReservationConflict) as error:
            return self.ended(error)
        return running if isinstance(running, Outcome) else self._guard(running)

    async def _guard(self, running: Coroutine[Any, Any, Outcome]) -> Outcome:
        try:
            return await running
        except (CheckCondition, DiskFault, ReservationConflict) as error:
            return self.ended(error)

    def failure(self, why: Sense) -> Outcome:
        """CHECK CONDITION with this sense, in the format that mode page 0A asks for."""
        return Outcome(Status.CHECK_CONDITION, [], why.encode(descriptor=self.modes.descriptor_sense))

    def ended(self, error: CheckCondition | DiskFault | ReservationConflict) -> Outcome:
        """How a command ends that ran into this."""
        if isinstance(error, ReservationConflict):
            return CONFLICT
        return self.failure(error.sense if isinstance(error, CheckCondition) else FAULTS[error.kind])

    def readable(self, nexus: Nexus) -> bool:
        """Nothing stands in the way of a plain read of this nexus."""
        return not (nexus.attentions or self.reservations.conflict(nexus, nexus.port, Access.READ))

    def writable(self, nexus: Nexus) -> bool:
        """Nothing stands in the way of a plain write of this nexus, and it need not be stable when it is answered."""
        return self.modes.write_cache and not (
            self.modes.write_protected
            or nexus.attentions
            or self.reservations.conflict(nexus, nexus.port, Access.WRITE)
        )

    def attend(self, what: Sense, *, but: Nexus | None = None) -> None:
        """Tell all sessions, or all others."""
        for nexus in self.nexuses:
            if nexus is not but:
                nexus.attend(what)

    def notify(self, notices: list[Notice]) -> None:
        """Tell the sessions of these ports."""
        for port, what in notices:
            for nexus in self.at(port):
                nexus.attend(what)

    def at(self, port: str) -> list[Nexus]:
        """The sessions of an initiator port: at most one, as a second one would have reinstated it."""
        return [nexus for nexus in self.nexuses if nexus.port == port]

    def changed(self) -> None:
        """What a nexus may do has changed."""
        for nexus in self.nexuses:
            if nexus.on_change is not None:
                nexus.on_change()

    def reset(self) -> None:
        """LOGICAL UNIT RESET: reservations of RESERVE(6) end, mode pages are the default ones; all are told."""
        self.reservations.release_unit()
        self.modes = Modes()
        self.attend(sense.BUS_DEVICE_RESET)

    def leave(self, nexus: Nexus) -> None:
        """A session has ended. Its registrations stay (SPC-4, section 5.13.1), what RESERVE(6) gave it does not."""
        self.nexuses.discard(nexus)
        if self.reservations.unit_holder is nexus:
            self.reservations.release_unit()
            self.changed()
