"""One iSCSI session over its one connection: bytes in, bytes out, no I/O (RFC 7143, error recovery level 0).

Theory of operation.

    login ──admitted──> full feature ──logout, protocol error, close()──> ended

`receive(chunk)` takes bytes as they come and answers into `out`, a list of buffers that its user sends and clears.
Cached reads are answered within that call: header and cached memory, no object per PDU and no copy. What cannot be
answered at once is handed to `host.start` as a coroutine, and comes back through `finish`. So the session never
waits, and never runs anything beside the call it is in.

With digests, `out` is to be sent as `digests.seal(out)`, and PDUs come in by a way of their own, which checks each.

`receive` stops early, and keeps what it did not look at, while

    `held`           a login waits for `admit` or `refuse`, or its user wants no more output: call `resume`
    `crowded`        READ_BUFFER bytes are being read from disks: call `receive(b"")` once that has passed
    OUTPUT_LIMIT     that much output is there; `more` says so: send it, then `receive(b"")`

The class is built in layers, one chapter of the RFC each: `sequence` (numbers), `tasks` (SCSI commands), `management`
(aborts, resets), `conversation` (text, ping, logout), and here framing, the hit path and login. A command that is
outside the CmdSN window is ignored; one that comes early waits for those before it.

Memory. A session holds at most one PDU that is not whole, WINDOW + IMMEDIATE_LIMIT tasks, unsolicited data within
FirstBurst for each of them, WRITE_BUFFER of solicited data, as much of early commands, READ_BUFFER of data on its way
from disks (and one command more), and OUTPUT_LIMIT of output (and one command more).

Errors. What the peer does wrong ends in sense data, a Reject or the end of the session; each kind is counted under a
name of ours. A session that is firmware gets no Reject, no ping and no asynchronous message (it would hang up, or
never answer): where one is due, it ends.

Deliberately not here: more than one connection, recovery levels 1 and 2, and who gets which disk (`attach`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bootlink_blockstore.hits import OPCODE_AT, READS, WRITE_OP, Hits, Path
from bootlink_blockstore.login import SEGMENT_LIMIT, Admission, Refusal, refuse_unasked
from bootlink_blockstore.scsi.device import LogicalUnit, Nexus
from bootlink_blockstore.sequence import MASK, WINDOW, Host
from bootlink_blockstore.tasks import WRITE_BUFFER
from bootlink_wire import iscsi_codes as codes
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire import iscsi_text as text
from bootlink_wire.iscsi_codes import NO_TAG, LoginStatus, Opcode, RejectReason
from bootlink_wire.iscsi_digest import Digests
from bootlink_wire.iscsi_inbox import Inbox
from bootlink_wire.iscsi_pdu import BHS, PduError

OUTPUT_LIMIT: Final = 4 * 1024 * 1024  # bytes of answers before they must be sent: one largest read
PING_AFTER: Final = 15.0  # seconds of silence; Linux's own target asks as often (PROTOCOLS 2.2 #6)
PING_PATIENCE: Final = 30.0  # seconds of silence after a ping; anything at all counts as an answer


class Session(Hits):
    """See the module. `on_error` is called with the name of each thing that a peer did wrong."""

    def __init__(self, host: Host, on_error: Callable[[str], None]) -> None:
        super().__init__(host, on_error)
        self.more = False
        self.held = False
        self.digests: Digests | None = None  # `out` is to be sent with these, and bytes come with them
        self._inbox = Inbox()
        # Commands ahead of their turn, by CmdSN: header, data and AHS, and then the same of the data that came unasked.
        self._early: dict[int, list[tuple[bytes, bytes, bytes]]] = {}
        self._early_bytes = 0
        self._pinged = -1.0  # when; a ping that is not answered is later than `now`

    # What its user calls

    def receive(self, chunk: bytes, now: float = 0.0) -> bool:
        """Take bytes. Answers are in `out`; see the module for when it stops early.

        True: they were cached reads and nothing else, so all that is left to do is to send `out`.
        """
        position = out_bytes = 0
        if chunk:
            self.now = now
            if self._path is not None and not (self.held or self.crowded or self._inbox.held):
                position, out_bytes = self._answer_hits(self._path, chunk, 0, OUTPUT_LIMIT)
                if position == len(chunk):
                    return True
        self.more = False
        if self._early:
            out_bytes = self._catch_up()
        data = self._inbox.take(chunk)
        if data is None:
            return False
        if self.stalled or self.closing:
            self._inbox.keep(data, 0, 0)
            return False
        if self.digests is not None:
            self._receive_digested(data, self.digests, out_bytes)
            return False
        end, needed = len(data), BHS
        try:
            while end - position >= BHS:
                if out_bytes >= OUTPUT_LIMIT:
                    self.more = True
                    needed = 0
                    break
                if self._path is not None:
                    before, op = position, data[position + OPCODE_AT]
                    if op in READS:
                        position, put = self._answer_hits(self._path, data, position, OUTPUT_LIMIT - out_bytes)
                        out_bytes += put
                    elif op == WRITE_OP:
                        position = self._answer_writes(self._path, data, position)
                    if position > before:
                        continue
                ahs, size = pdu.lengths(data, position)
                self._check_size(data[position], size)
                stop = position + BHS + ahs + size
                needed = BHS + ahs + size + (-size & 3)
                if end - position < needed:
                    break
                start = len(self.out)
                self._dispatch(
                    data[position : position + BHS],
                    memoryview(data)[stop - size : stop],
                    data[position + BHS : stop - size],
                )
                position += needed
                needed = BHS
                out_bytes += sum(map(len, self.out[start:]))
                if self.held or self.crowded or self.closing:
                    needed = 0
                    break
        except PduError as error:
            self._offended(error, data[position : position + BHS])
        if not self.closing and position < end:
            self._inbox.keep(data, position, needed)
        return False

    def _receive_digested(self, data: bytes, digests: Digests, out_bytes: int) -> None:
        """The same for a session with digests, one PDU after the other and without the hit path."""
        position, end, needed = 0, len(data), BHS
        header = b""
        try:
            while end - position >= BHS:
                if out_bytes >= OUTPUT_LIMIT:
                    self.more = True
                    needed = 0
                    break
                ahs, size = pdu.lengths(data, position)
                needed = digests.header_size(ahs)
                start = position + needed
                if end < start:
                    break
                if not digests.header_right(data[position:start]):
                    # Where the next header is cannot be known: at recovery level 0 the connection ends (section 7.8).
                    self._on_error("header_digest_wrong")
                    self.close("a header digest is wrong")
                    return
                header = data[position : position + BHS]
                self._check_size(header[0], size)
                needed += digests.data_size(size)
                if end - position < needed:
                    break
                before = len(self.out)
                if digests.data_right(data[start : position + needed]):
                    view = memoryview(data)[start : start + size]
                    self._dispatch(header, view, data[position + BHS : position + BHS + ahs])
                else:
                    self._damaged(header)
                position += needed
                needed = BHS
                out_bytes += sum(map(len, self.out[before:]))
                if self.held or self.crowded or self.closing:
                    needed = 0
                    break
        except PduError as error:
            self._offended(error, header)
        if not self.closing and position < end:
            self._inbox.keep(data, position, needed)

    @property
    def partial(self) -> bool:
        """Bytes are held of what is not a whole PDU, or was not looked at yet."""
        return bool(self._inbox.held)

    @property
    def stalled(self) -> bool:
        """Nothing more is looked at for now: its user should not read from the connection."""
        return self.held or self.crowded

    def resume(self) -> None:
        """Go on after `held`."""
        self.held = False
        self.receive(b"")

    def admit(self, units: dict[int, LogicalUnit], absent: LogicalUnit | None, tsih: int) -> None:
        """The initiator may enter, and finds these logical units. Go on with `resume`."""
        response, self.parameters = self._login.admit(tsih)
        self.admission = replace(self._admission_due(), tsih=tsih)
        self._statsn = self._login.statsn
        self._exp_cmdsn = response.expcmdsn
        self._max_cmdsn = response.expcmdsn + WINDOW - 1 & MASK
        self.full_feature = True
        self.digests = self.parameters.digests or None
        self.units, self._absent = units, absent
        # The initiator port's name (RFC 7143, section 4.2.7.1); the target port is the same for all.
        port = f"{self.admission.initiator},i,0x{self.admission.isid.hex()}"
        for lun, unit in units.items():
            self.nexuses[lun] = nexus = Nexus(self, self._warm_up, port=port)
            unit.nexuses.add(nexus)
        self.out.append(replace(response, maxcmdsn=self._max_cmdsn).encode())
        self._warm_up()

    def refuse(self, status: LoginStatus, why: str) -> None:
        """The initiator may not enter."""
        self.out.append(self._login.refuse(status).encode())
        self.close(why)

    def close(self, why: str) -> None:
        """End the session: no task answers any more. Those that run are still waited for by `busy`."""
        if self.closing:
            return
        self.closing = why
        self._path = None
        for unit, nexus in zip(self.units.values(), self.nexuses.values(), strict=True):
            unit.leave(nexus)
        for task in list(self.tasks.values()):
            task.aborted = True
            if not task.running:
                self._forget(task)
            elif task.nexus.session is self:
                task.unit.ending.add(task.nexus)
        self._early.clear()
        self._thirsty.clear()

    @property
    def busy(self) -> bool:
        """Something that was started has not ended."""
        return any(task.running for task in self.tasks.values())

    def tick(self, now: float) -> None:
        """Now and then: ping who is silent, and end who does not answer. Never firmware, which cannot answer."""
        if self.firmware or self.closing or not self.full_feature:
            return
        if self._pinged > self.now:
            if now - self._pinged < PING_PATIENCE:
                return
            self._on_error("ping_unanswered")
            self.close("it answered no ping")
        elif now - self.now >= PING_AFTER:
            self._pinged = now
            # A valid transfer tag, or the initiator need not answer (RFC 7143, section 11.19).
            ping = pdu.NopIn(itt=NO_TAG, ttt=self._next_tag(), **self._numbers(use=False))
            self.out.append(ping.encode())

    # Framing

    def _check_size(self, opcode: int, size: int) -> None:
        """Before a byte of the segment is waited for: may it be this long?"""
        limit = text.RECEIVE_LIMIT if self.full_feature else SEGMENT_LIMIT
        if size > limit:
            raise PduError(f"a data segment of {size} bytes, where {limit} are allowed")
        if not self.full_feature and opcode & codes.OPCODE_MASK != Opcode.LOGIN_REQUEST:
            raise PduError("not a login request before the login")

    def _dispatch(self, header: bytes, data: memoryview, ahs: bytes) -> None:
        """One whole PDU."""
        opcode = header[0] & codes.OPCODE_MASK
        if opcode == Opcode.DATA_OUT:
            held = self._early_command(header) if self._early else None
            if held is None:
                self._data_out(header, data)
            else:
                self._hold(held, header, data, ahs)
            return
        if not self.full_feature:
            self._log_in(pdu.LoginRequest.decode(header, bytes(data), ahs))
            return
        handler = _HANDLERS.get(opcode)
        if handler is None:
            raise PduError(f"opcode 0x{opcode:02x} in full-feature phase", _unexpected(opcode))
        cmdsn = int.from_bytes(header[24:28], "big")
        if header[0] & codes.IMMEDIATE:
            handler(self, header, data, ahs)
            self._catch_up()  # it may have been the abort of the command that others wait for
            return
        ahead = cmdsn - self._exp_cmdsn & MASK
        if not ahead <= (self._max_cmdsn - self._exp_cmdsn & MASK) < 1 << 31:  # also when the window is closed
            self._on_error("cmdsn_outside_window")
        elif ahead == 0:
            self._advance()
            handler(self, header, data, ahs)
            self._catch_up()
        elif cmdsn not in self._early and cmdsn not in self._skipped:
            # In the window, but not its turn. One connection keeps order, so this is rare: an aborted command's gap.
            self._early[cmdsn] = []
            self._hold(self._early[cmdsn], header, data, ahs)
            self._out_of_order()
        else:
            self._on_error("cmdsn_repeated")

    def _hold(self, held: list[tuple[bytes, bytes, bytes]], header: bytes, data: memoryview, ahs: bytes) -> None:
        """Keep a PDU until its command's turn."""
        self._early_bytes += BHS + len(data)
        if self._early_bytes > WRITE_BUFFER:
            raise PduError("too much data in commands that are ahead of their turn")
        held.append((header, bytes(data), ahs))

    def _early_command(self, header: bytes) -> list[tuple[bytes, bytes, bytes]] | None:
        """The command ahead of its turn that a Data-Out belongs to, by its task tag."""
        return next((held for held in self._early.values() if held[0][0][16:20] == header[16:20]), None)

    def _take_early(self, cmdsn: int) -> list[tuple[bytes, bytes, bytes]]:
        held = self._early.pop(cmdsn)
        self._early_bytes -= sum(BHS + len(data) for _, data, _ in held)
        return held

    def _catch_up(self) -> int:
        """Take up the commands whose turn has come, within the same bounds as any. Returns the bytes put out."""
        out_bytes = 0
        while self._exp_cmdsn in self._early and not (self.closing or self.stalled):
            if out_bytes >= OUTPUT_LIMIT:
                self.more = True
                break
            (header, data, ahs), *data_outs = self._take_early(self._exp_cmdsn)
            start = len(self.out)
            self._advance()
            try:
                _HANDLERS[header[0] & codes.OPCODE_MASK](self, header, memoryview(data), ahs)
                for data_header, more, _ in data_outs:
                    self._data_out(data_header, memoryview(more))
            except PduError as error:
                self._offended(error, header)
            out_bytes += sum(map(len, self.out[start:]))
        return out_bytes

    def _offended(self, error: PduError, header: bytes) -> None:
        """The peer broke the protocol at this header: its bytes cannot be trusted to be PDUs any more."""
        self._on_error(f"pdu_{error.reason.name.lower()}")
        if not self.full_feature:
            if len(header) == BHS:
                response = refuse_unasked(header, LoginStatus.INVALID_DURING_LOGIN)
                self.out.append(response.encode())
        elif not self.firmware:
            self._reject(header, error.reason)
        self.close(str(error))

    def _damaged(self, header: bytes) -> None:
        """A data digest is wrong: the PDU is dropped (section 7.8). A command's number stays due, for it to be sent
        again, or to be given up by an abort; data that is lost costs its task."""
        self._on_error("data_digest_wrong")
        if self.firmware:
            self.close("a data digest is wrong")
            return
        self._reject(header, RejectReason.DATA_DIGEST)
        if header[0] & codes.OPCODE_MASK == Opcode.DATA_OUT:
            self._damaged_data(header)

    # Login

    def _log_in(self, request: pdu.LoginRequest) -> None:
        try:
            answer = self._login.request(request)
        except Refusal as error:
            self._on_error("login_refused")
            if self._login.asked is not None:
                self._on_error("chap_failed")
                self.host.unproven(self._login.asked, str(error))
            self.refuse(error.status, str(error))
            return
        if isinstance(answer, Admission):
            self.admission = answer
            self.held = True
        else:
            self.out.append(answer.encode())

    def _warm_up(self) -> None:
        """Open the hit path if unit 0 has a disk that may be read, commands come in order and bare; else close it."""
        unit, nexus = self.units.get(0), self.nexuses.get(0)
        self._path = None
        if unit is None or nexus is None or unit.disk is None or not unit.readable(nexus):
            return
        if not (self.closing or self._early or self._skipped or self.digests):
            disk = unit.disk
            self._path = Path(disk.hit, disk.hit_blocks, disk.write_now, disk.size, unit, nexus)

    def _unattended(self) -> None:
        if self._path is None:
            self._warm_up()

    def _out_of_order(self) -> None:
        for cmdsn in self._skipped & self._early.keys():  # aborted before its turn
            self._take_early(cmdsn)
        self._warm_up()


def _unexpected(opcode: int) -> RejectReason:
    known = (Opcode.LOGIN_REQUEST, Opcode.SNACK_REQUEST)
    return RejectReason.PROTOCOL_ERROR if opcode in known else RejectReason.NOT_SUPPORTED


_HANDLERS: Final[dict[int, Callable[[Session, bytes, memoryview, bytes], None]]] = {
    Opcode.SCSI_COMMAND: Session._scsi_command,
    Opcode.NOP_OUT: Session._nop_out,
    Opcode.TEXT_REQUEST: Session._text_request,
    Opcode.LOGOUT_REQUEST: Session._logout,
    Opcode.TASK_REQUEST: Session._task_request,
}
