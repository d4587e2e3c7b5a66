"""What a session says besides SCSI: text, ping, logout, requests to log out (RFC 7143, 11.9 to 11.11, 11.14 to 11.19).

Theory of operation. A text exchange is one question and one answer, each over as many PDUs as it takes:

    request  C, ttt none ──> partial: ttt T        the question goes on (an empty response asks for the rest)
    request  C, ttt T    ──> partial: ttt T
    request  F, ttt T    ──> C, ttt T              the answer goes on, as long as it is longer than one PDU
    request  F, ttt T    ──> F, ttt none           the rest of it: the exchange is over

A request without a tag begins anew, whatever went before; one with a tag must carry the exchange's task tag and the
tag that we gave last. A question without F is answered, and keeps the exchange open.

Who may hear what nobody asked for: only a session that has shown that it is more than firmware. iPXE hangs up on
Reject and asynchronous messages, and cannot answer a ping.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bootlink_blockstore.login import Login
from bootlink_blockstore.management import Management
from bootlink_blockstore.sequence import Host
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire import iscsi_text as text
from bootlink_wire.iscsi_codes import CONTINUE, FINAL, NO_TAG, RejectReason
from bootlink_wire.iscsi_pdu import PduError

TEXT_LIMIT: Final = 65_536  # bytes of a text request over all its PDUs
LOGOUT_REQUESTED: Final = 1  # AsyncEvent: the target asks this connection to log out (section 11.9.1)


class Conversation(Management):
    """A session's words."""

    def __init__(self, host: Host, on_error: Callable[[str], None]) -> None:
        super().__init__(host, on_error)
        self.full_feature = False
        self._login = Login(host.authenticate)
        self._question = b""  # a text so far
        self._answer_left = b""  # of an answer that takes several PDUs
        self._exchange: tuple[int, int] | None = None  # task tag and transfer tag of the text exchange under way

    @property
    def firmware(self) -> bool:
        return self.admission is None or self.admission.firmware

    def ask_to_log_out(self, seconds: int) -> bool:
        """Ask the initiator to log out within this time. False if it cannot be asked: firmware, or no session."""
        if self.firmware or not self.full_feature or self.closing:
            return False
        message = pdu.AsyncMessage(event=LOGOUT_REQUESTED, parameter3=seconds, **self._numbers())
        self.out.append(message.encode())
        return True

    def _reject(self, header: bytes, reason: RejectReason) -> None:
        self.out.append(pdu.Reject(reason=reason, data=header, **self._numbers()).encode())

    def _refuse_text(self, header: bytes, why: str) -> None:
        """This text exchange ends, the session goes on; but for firmware's, which would not take a Reject."""
        self._end_exchange()
        if self.firmware:
            self.close(why)
        else:
            self._reject(header, RejectReason.PROTOCOL_ERROR)

    def _nop_out(self, header: bytes, data: memoryview, _ahs: bytes) -> None:
        nop = pdu.NopOut.decode(header)
        self._ended(header)
        if nop.itt != NO_TAG:  # else the answer to our own ping
            echo = bytes(data[: self.parameters.receive_limit])
            self.out.append(pdu.NopIn(itt=nop.itt, data=echo, **self._numbers()).encode())

    # Text

    def _text_request(self, header: bytes, data: memoryview, _ahs: bytes) -> None:
        request = pdu.TextRequest.decode(header)
        self._ended(header)
        if request.ttt == NO_TAG:
            self._end_exchange()
        elif (request.itt, request.ttt) != self._exchange:
            self._on_error("text_out_of_turn")
            self._refuse_text(header, "its text belongs to no exchange")
            return
        if self._answer_left:
            if data or request.flags & CONTINUE:
                self._on_error("text_out_of_turn")
                self._refuse_text(header, "it speaks before it has heard our whole answer")
                return
        else:
            self._question += bytes(data)
            if len(self._question) > TEXT_LIMIT:
                raise PduError("the text is too long", RejectReason.INVALID_FIELD)
            if request.flags & CONTINUE:
                self._say(request, b"", flags=0)
                return
            question, self._question = self._question, b""
            try:
                self._answer_left = text.encode(self._answers(text.parse(question)))
            except text.TextError:
                self._on_error("text_malformed")
                self._refuse_text(header, "its text is malformed")
                return
        limit = self.parameters.receive_limit
        piece, self._answer_left = self._answer_left[:limit], self._answer_left[limit:]
        self._say(request, piece, flags=CONTINUE if self._answer_left else request.flags & FINAL)

    def _say(self, request: pdu.TextRequest, piece: bytes, *, flags: int) -> None:
        """One response. Without F the exchange stays open under a tag."""
        if flags & FINAL:
            self._end_exchange()
            tag = NO_TAG
        else:
            tag = self._next_tag()
            self._exchange = request.itt, tag
        response = pdu.TextResponse(flags=flags, itt=request.itt, ttt=tag, data=piece, **self._numbers())
        self.out.append(response.encode())

    def _end_exchange(self) -> None:
        self._exchange = None
        self._question = self._answer_left = b""

    def _answers(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        answers: list[tuple[str, str]] = []
        for name, value in pairs:
            if name == "SendTargets":
                answers += self._send_targets(value)
            else:
                answers += self._login.negotiation.renegotiate([(name, value)])
        limit = self._login.negotiation.number("MaxRecvDataSegmentLength")
        self.parameters = replace(self.parameters, receive_limit=limit)
        return answers

    def _send_targets(self, wanted: str) -> list[tuple[str, str]]:
        """SendTargets: only what this initiator may open. In a normal session, only its own target (appendix C)."""
        admission = self._admission_due()
        if not admission.discovery and wanted == "All":
            return [("SendTargets", text.REJECT)]
        name = wanted if wanted != "All" else ""
        if not admission.discovery and not name:
            name = admission.target
        answers = []
        for target, address in self.host.targets(admission.initiator):
            if not name or name == target:
                answers += [("TargetName", target), ("TargetAddress", address)]
        return answers

    # Logout

    def _logout(self, header: bytes, _data: memoryview, _ahs: bytes) -> None:
        request = pdu.LogoutRequest.decode(header)
        self._ended(header)
        reason = request.reason & 0x7F
        # 0 ends the session and 1 its only connection; 2 would leave it for recovery, which there is not.
        if reason not in (0, 1):
            self.out.append(pdu.LogoutResponse(itt=request.itt, response=2, **self._numbers()).encode())
        else:
            self.kill(list(self.tasks.values()), lambda: self._leave(request))

    def _leave(self, request: pdu.LogoutRequest) -> None:
        """No task can write any more, which is what the response says (section 11.15)."""
        if not self.closing:
            self.out.append(pdu.LogoutResponse(itt=request.itt, response=0, **self._numbers()).encode())
            self.close("logout")

    def _task_request(self, header: bytes, _data: memoryview, _ahs: bytes) -> None:
        if self._admission_due().discovery:
            raise PduError("a task management function in a discovery session")
        self._ended(header)
        self.manage(pdu.TaskRequest.decode(header))
