"""The SCSI commands of a session: their data out, their run, their data in and their response (RFC 7143, 11.3, 11.4).

Theory of operation. A command becomes a `Task` (see `transfer` for how its data comes), and moves on whenever data
came: asked for (R2T), run when all is here, answered when it ran. Reads and small writes run and are answered within
the call that brought them; others go through `host.start` and come back through `finish`.

Residuals: what the command would move against what the initiator announced. More is never sent or written.

Memory: WRITE_BUFFER bounds what R2Ts have asked for and is not written yet; tasks beyond wait for room. While running
tasks read READ_BUFFER or more from disks, the session is `crowded` and looks at no further command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bootlink_blockstore.image import Buffer
from bootlink_blockstore.scsi.device import LogicalUnit, Nexus, Outcome
from bootlink_blockstore.scsi.reservations import ReservationConflict
from bootlink_blockstore.sequence import MASK, Host, Sequence
from bootlink_blockstore.transfer import Task
from bootlink_wire import iscsi_codes as codes
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire import scsi_cdb
from bootlink_wire import scsi_sense as sense
from bootlink_wire.iscsi_codes import FINAL, NO_TAG, Opcode, RejectReason
from bootlink_wire.iscsi_pdu import PduError
from bootlink_wire.scsi_sense import CheckCondition, Status

IMMEDIATE_LIMIT: Final = 8  # immediate commands open beside the window
READ_BUFFER: Final = 8 * 1024 * 1024  # bytes that running tasks read from disks: two largest reads
WRITE_BUFFER: Final = 8 * 1024 * 1024  # bytes asked for by R2Ts and not yet written: two largest writes


class Tasks(Sequence):
    """A session's commands."""

    def __init__(self, host: Host, on_error: Callable[[str], None]) -> None:
        super().__init__(host, on_error)
        self._absent: LogicalUnit | None = None  # what stands for every unit that is not there
        self.crowded = False
        self._reading = 0  # bytes that running tasks read from disks
        self._solicited = 0  # bytes asked for by R2Ts of open tasks
        self._immediate = 0  # immediate tasks open
        self._thirsty: list[Task] = []  # tasks whose R2T waits for room

    def finish(self, task: Task, outcome: Outcome) -> None:
        """What was started for `task` has ended."""
        task.running = False
        self._reading -= task.reading
        self.crowded = self._reading >= READ_BUFFER
        if task.aborted or self.closing:
            self._forget(task)
            if not any(other.nexus is task.nexus for other in self.tasks.values()):
                task.unit.ending.discard(task.nexus)
            return
        self._respond(task, outcome)

    def _unattended(self) -> None:
        """A unit attention was told, and none is left: the hit path may open."""

    def _scsi_command(self, header: bytes, data: memoryview, ahs: bytes) -> None:
        _, flags, _, _, lun_field, itt, expected, _, _, cdb = pdu.SCSI_COMMAND.unpack(header)
        if itt == NO_TAG or itt in self.tasks:
            raise PduError("the task tag is in use", RejectReason.TASK_IN_PROGRESS)
        if self._admission_due().discovery:
            raise PduError("a SCSI command in a discovery session")
        immediate = bool(header[0] & codes.IMMEDIATE)
        if immediate and self._immediate >= IMMEDIATE_LIMIT:
            raise PduError("too many immediate commands", RejectReason.IMMEDIATE_COMMANDS)
        lun = scsi_cdb.lun(lun_field)
        unit, nexus = self.units.get(lun), self.nexuses.get(lun)
        if unit is None or nexus is None:
            assert self._absent is not None
            unit, nexus = self._absent, Nexus(attentions=[])
        task = self.tasks[itt] = Task(itt, lun_field, lun, unit, nexus, cdb, expected)
        task.immediate = immediate
        self._immediate += immediate
        task.read, task.write = bool(flags & codes.READ), bool(flags & codes.WRITE)
        if not task.write:
            task.expected = expected if task.read else 0
        try:
            if ahs or (task.read and task.write):
                raise CheckCondition(sense.INVALID_FIELD)  # neither long CDBs nor data both ways
            task.command, task.needed = unit.prepare(nexus, cdb, expected if task.write else 0)
        except (CheckCondition, ReservationConflict) as error:
            task.fail(unit.ended(error))
        if not nexus.attentions:
            self._unattended()
        wrong = task.begin(data, self.parameters, final=bool(flags & FINAL))
        if wrong is not None:
            task.fail(task.unit.failure(wrong))
        self._progress(task)

    def _progress(self, task: Task) -> None:
        """Go on with a task as far as its data allows."""
        if task.complete:
            if task.outcome is not None:
                self._respond(task, task.outcome)
            else:
                self._run(task)
        elif task.outcome is None:
            self._ask(task)

    def _run(self, task: Task) -> None:
        assert task.command is not None
        running = task.unit.execute(task.command, task.nexus, task.cdb, task.data)
        if isinstance(running, Outcome):
            self._respond(task, running)
        else:
            task.running = True
            # What the CDB names, as the disk reads that much also where the initiator has announced less.
            task.reading = task.command.reads(task.unit, task.cdb) if task.command.reads else 0
            self._reading += task.reading
            self.crowded = self._reading >= READ_BUFFER
            self.host.start(task, running)

    def _ask(self, task: Task) -> None:
        """Send the R2Ts that are due, as far as there is room for their data."""
        while True:
            wanted = min(self.parameters.max_burst, task.wanted - task.asked)
            if self._solicited and self._solicited + wanted > WRITE_BUFFER:
                if task not in self._thirsty:
                    self._thirsty.append(task)
                return
            tag = self._next_tag()
            ask = task.ask(tag, self.parameters)
            if ask is None:
                return
            self._solicited += ask.length
            numbers = self._numbers(use=False)
            request = pdu.ReadyToTransfer(
                itt=task.itt,
                lun=task.lun_field,
                ttt=tag,
                r2tsn=ask.number,
                offset=ask.start,
                desired=ask.length,
                **numbers,
            )
            self.out.append(request.encode())

    def _data_out(self, header: bytes, data: memoryview) -> None:
        _, flags, _, _, _, itt, ttt, _, datasn, offset = pdu.DATA_OUT.unpack(header)
        task = self.tasks.get(itt)
        if task is None or task.running or task.aborted:
            self._on_error("data_out_without_task")  # on its way when its task was aborted: nobody wants it
            return
        wrong = task.take(ttt, datasn, offset, data, self.parameters, final=bool(flags & FINAL))
        if wrong is not None:
            self._on_error("data_out_wrong")
            task.fail(task.unit.failure(wrong))
        self._progress(task)

    def _damaged_data(self, header: bytes) -> None:
        """A Data-Out PDU whose data digest is wrong, and that was rejected."""
        _, flags, _, _, _, itt, ttt, _, _, _ = pdu.DATA_OUT.unpack(header)
        task = self.tasks.get(itt)
        if task is not None and not (task.running or task.aborted):
            task.spoil(ttt, task.unit.failure(sense.PROTOCOL_SERVICE_CRC), final=bool(flags & FINAL))
            self._progress(task)

    def _respond(self, task: Task, outcome: Outcome) -> None:
        """Send what a task came to, and forget it."""
        nexus = task.nexus
        size = sum(map(len, outcome.data))
        if outcome.status == Status.GOOD and task.command is not None:
            nexus.last_io = self.now
            if task.command.data_out is not None:
                nexus.writes += 1
                nexus.bytes_written += min(task.needed, task.received)
            elif task.command.reads is not None and size:
                nexus.reads += 1
                nexus.bytes_read += size
                nexus.first_read = nexus.first_read or self.now
        moved = size if task.command is None or not task.command.takes_data else task.needed
        if outcome.status != Status.GOOD:
            moved = size
        self._forget(task)
        over, under = max(0, moved - task.expected), max(0, task.expected - moved)
        residual_flag = codes.OVERFLOW if over else codes.UNDERFLOW if under else 0
        sent = min(size, task.expected) if task.read else 0
        if sent:
            self._data_in(task, outcome.data, sent, residual_flag, over or under)
            return
        data = len(outcome.sense).to_bytes(2, "big") + outcome.sense if outcome.sense else b""
        numbers = self._numbers()
        self.out.append(
            pdu.SCSI_RESPONSE.pack(
                *(Opcode.SCSI_RESPONSE, FINAL | residual_flag, 0, outcome.status, len(data), task.itt, 0),
                *(numbers["statsn"], numbers["expcmdsn"], numbers["maxcmdsn"], 0, 0, over or under),
            )
        )
        if data:
            self.out.append(data + pdu.padding(len(data)))

    def _data_in(self, task: Task, buffers: list[Buffer], total: int, residual_flag: int, residual: int) -> None:
        """Send `total` bytes as Data-In PDUs, the last with the status: no response of its own."""
        numbers = self._numbers()
        statsn, expected, maximum = numbers["statsn"], numbers["expcmdsn"], numbers["maxcmdsn"]
        segment, burst = self.parameters.receive_limit, self.parameters.max_burst
        out, pack = self.out, pdu.DATA_IN.pack
        offset = datasn = at = index = 0
        while offset < total:
            size = min(segment, total - offset, burst - offset % burst)
            flags = FINAL if (offset + size) % burst == 0 else 0
            last = offset + size == total
            if last:
                flags = FINAL | codes.STATUS | residual_flag
            out.append(
                pack(
                    *(Opcode.DATA_IN, flags, 0, 0, size, 0, task.itt, NO_TAG, statsn if last else 0),
                    *(expected, maximum, datasn, offset, residual if last else 0),
                )
            )
            left = size
            while left:
                buffer = buffers[index]
                part = buffer[at : at + left] if at or len(buffer) > left else buffer
                out.append(part)
                left -= len(part)
                at += len(part)
                if at == len(buffer):
                    index, at = index + 1, 0
            if size & 3:
                out.append(pdu.padding(size))
            offset += size
            datasn += 1

    def _forget(self, task: Task) -> None:
        """The task is dead: its tag, its place in the window and its room for data are free."""
        if self.tasks.pop(task.itt, None) is None:
            return
        if task.immediate:
            self._immediate -= 1
        else:
            self._max_cmdsn = self._max_cmdsn + 1 & MASK
        self._solicited -= task.solicited
        for abort in task.waiting:
            abort.died()
        if self._thirsty and not self.closing:
            thirsty, self._thirsty = self._thirsty, []
            for other in thirsty:
                if other.itt in self.tasks and other.outcome is None and not other.aborted:
                    self._ask(other)
