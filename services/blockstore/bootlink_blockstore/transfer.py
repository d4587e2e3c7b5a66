"""A SCSI task and the data it takes (RFC 7143, sections 4.2.2 and 11.7, 11.8).

Theory of operation. A write's data comes in up to three ways, in this order of offsets:

    immediate     in the command's own PDU                  if ImmediateData=Yes
    unsolicited   Data-Out with no transfer tag, up to F    if InitialR2T=No; with the former at most FirstBurstLength
    solicited     Data-Out for an R2T, up to F              each R2T asks for at most MaxBurstLength

`Task` takes them and says what is to be asked next. Data must come in order (DataPDUInOrder and DataSequenceInOrder
are both Yes), so what is there is one growing buffer. Anything else (a wrong offset, number or length, or more than
was asked) ends the task with sense data, never with part of a write.

A task that has failed before its unsolicited data is through still takes it, and drops it: the data is on its way, and
would else meet a task that nobody knows. One whose data came damaged does the same with all that its R2Ts have asked
for, as the RFC wants it.
"""

from __future__ import annotations

from collections.abc import Callable

from bootlink_blockstore.image import Buffer
from bootlink_blockstore.login import Parameters
from bootlink_blockstore.scsi.device import Command, LogicalUnit, Nexus, Outcome
from bootlink_wire import scsi_sense as sense
from bootlink_wire.iscsi_codes import NO_TAG
from bootlink_wire.scsi_cdb import SECTOR
from bootlink_wire.scsi_sense import Sense


class Task:
    """One SCSI command from its arrival to its response."""

    __slots__ = (
        "_data",
        "_unsolicited",
        "aborted",
        "asked",
        "cdb",
        "command",
        "expected",
        "immediate",
        "itt",
        "lun",
        "lun_field",
        "needed",
        "nexus",
        "outcome",
        "r2ts",
        "read",
        "reading",
        "received",
        "running",
        "sequence",
        "solicited",
        "unit",
        "waiting",
        "whole",
        "write",
    )

    def __init__(
        self, itt: int, lun_field: int, lun: int, unit: LogicalUnit, nexus: Nexus, cdb: bytes, expected: int
    ) -> None:
        self.itt = itt
        self.lun_field = lun_field
        self.lun = lun
        self.unit = unit
        self.nexus = nexus
        self.cdb = cdb
        self.expected = expected  # Expected Data Transfer Length
        self.read = False
        self.write = False
        self.immediate = False  # holds no place in the command window
        self.command: Command | None = None
        self.needed = 0  # bytes that the CDB asks for
        self.outcome: Outcome | None = None  # decided before the data was through
        self.running = False
        self.reading = 0  # bytes that it holds while it runs
        self.aborted = False
        self.waiting: list[Abort] = []
        self.received = 0
        self.asked = 0  # bytes that have come or were asked for by R2Ts
        self.r2ts: dict[int, Ask] = {}  # by target transfer tag
        self.sequence = 0  # number of the next R2T
        self.solicited = 0  # bytes asked for by R2Ts
        self.whole: Buffer | None = None  # the data, if it came in one piece
        self._data = bytearray()
        self._unsolicited: int | None = None  # DataSN expected next, while unsolicited data may come

    @property
    def wanted(self) -> int:
        """Bytes that the initiator is to send: what the command needs, and no more than was announced."""
        return min(self.needed, self.expected) if self.outcome is None else 0

    @property
    def complete(self) -> bool:
        """All data is here; or, of a task that has failed, all that is on its way."""
        if self._unsolicited is not None or (self.outcome is not None and self.r2ts):
            return False
        return self.received >= self.wanted

    @property
    def data(self) -> Buffer:
        """What came, and no more than the command needs; whole sectors, if it is less than that."""
        size = min(self.needed, self.received)
        if size < self.needed:
            size -= size % SECTOR
        return self.whole[:size] if self.whole is not None else memoryview(self._data)[:size]

    def begin(self, data: Buffer, parameters: Parameters, *, final: bool) -> Sense | None:
        """Take the command's own data. Returns what is wrong with it."""
        if self.write and not final and not parameters.initial_r2t:
            self._unsolicited = 0
        if len(data) and (not parameters.immediate_data or len(data) > min(parameters.first_burst, self.expected)):
            return sense.UNEXPECTED_UNSOLICITED_DATA
        self.received = self.asked = len(data)
        if self._unsolicited is None and self.received >= self.wanted:
            self.whole = data
        else:
            self._data += data
        return None

    def take(
        self, ttt: int, datasn: int, offset: int, data: Buffer, parameters: Parameters, *, final: bool
    ) -> Sense | None:
        """Take a Data-Out PDU. Returns what is wrong with it."""
        if ttt == NO_TAG:
            return self._take_unsolicited(datasn, offset, data, parameters, final=final)
        ask = self.r2ts.get(ttt)
        if ask is None:
            return sense.INCORRECT_AMOUNT_OF_DATA
        if self.outcome is not None:  # spoilt: dropped
            if final:
                del self.r2ts[ttt]
            return None
        if datasn != ask.datasn or offset != ask.offset or offset != self.received or len(data) > ask.left:
            return sense.INCORRECT_AMOUNT_OF_DATA
        self._data += data
        self.received += len(data)
        ask.datasn += 1
        ask.offset += len(data)
        ask.left -= len(data)
        if final:
            del self.r2ts[ttt]
            if ask.left:
                return sense.INCORRECT_AMOUNT_OF_DATA
        return None

    def _take_unsolicited(
        self, datasn: int, offset: int, data: Buffer, parameters: Parameters, *, final: bool
    ) -> Sense | None:
        expected_sn = self._unsolicited
        if expected_sn is None:
            return sense.UNEXPECTED_UNSOLICITED_DATA
        self._unsolicited = None if final else expected_sn + 1
        if self.outcome is not None:
            return None  # on its way when the task failed: dropped
        if datasn != expected_sn or offset != self.received:
            return sense.INCORRECT_AMOUNT_OF_DATA
        if self.received + len(data) > min(parameters.first_burst, self.expected):
            return sense.UNEXPECTED_UNSOLICITED_DATA
        self._data += data
        self.received = self.asked = self.received + len(data)
        return None

    def ask(self, ttt: int, parameters: Parameters) -> Ask | None:
        """The next R2T, under this tag; None if nothing more may be asked for now."""
        if self._unsolicited is not None or len(self.r2ts) >= parameters.outstanding_r2t:
            return None
        length = min(parameters.max_burst, self.wanted - self.asked)
        if length <= 0:
            return None
        ask = self.r2ts[ttt] = Ask(self.sequence, self.asked, length)
        self.sequence += 1
        self.asked += length
        self.solicited += length
        return ask

    def spoil(self, ttt: int, outcome: Outcome, *, final: bool) -> None:
        """A Data-Out PDU came damaged: the task ends so, once all data that was asked for is through (section 7.8)."""
        if self.outcome is None:
            asks = dict(self.r2ts)
            self.fail(outcome)
            self.r2ts = asks
        if not final:
            return
        if ttt == NO_TAG:
            self._unsolicited = None
        else:
            self.r2ts.pop(ttt, None)

    def fail(self, outcome: Outcome) -> None:
        """The task ends so, once its unsolicited data is through. Its data is dropped now."""
        if self.outcome is None:
            self.outcome = outcome
            self._data = bytearray()
            self.whole = None
            self.r2ts.clear()


class Ask:
    """An open R2T: what is still to come for it."""

    __slots__ = ("datasn", "left", "length", "number", "offset", "start")

    def __init__(self, number: int, offset: int, length: int) -> None:
        self.number = number  # R2TSN
        self.start = self.offset = offset
        self.length = self.left = length
        self.datasn = 0


class Abort:
    """A task management function that waits for tasks to be dead. `done` is called once they all are, from `arm` on."""

    __slots__ = ("_done", "_left")

    def __init__(self, tasks: list[Task], done: Callable[[], None]) -> None:
        self._left = len(tasks) + 1
        self._done = done
        for task in tasks:
            task.waiting.append(self)

    def died(self) -> None:
        """One of the tasks is dead."""
        self._left -= 1
        if self._left == 0:
            self._done()

    def arm(self) -> None:
        """All tasks know; those that could die at once are dead."""
        self.died()
