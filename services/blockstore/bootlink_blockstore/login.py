"""The login phase of a session, as a machine: login requests in, login responses out (RFC 7143, sections 6 and 11.12).

Theory of operation.

        ┌── security (0) ──┐
    ────┤                  ├──> operational (1) ──> full feature (3)
        └──────────────────┴────────────────────────^

The initiator names its stage and the one it wants (T bit); the target follows. Texts may spread over several requests
(C bit) and are answered once whole; so may our answers over several responses. The first request names the initiator,
and the target of a normal session.

The machine decides all that the texts decide. Whether this initiator gets this target, and which disk, is not: when
the last stage is reached, `request` returns an `Admission`, and the login waits until its user says `admit` or
`refuse`. Every refusal is a login response with a status; `Refusal` carries it, and the connection ends after it.

**Firmware or operating system?** iPXE must be told apart: it cannot answer NOP-In, and hangs up on any opcode it does
not know. It is the initiator whose ISID carries Fen Systems' enterprise number (iPXE uses no other, and nobody else
uses that), or that offers what iPXE always has: no immediate data, initial R2T, and the 8192 bytes of
MaxRecvDataSegmentLength that are its whole buffer. Whoever is taken for firmware merely gets nothing unasked, so a
wrong guess costs little.

**Authentication.** Once the first text has said who is there, `authority` says what the initiator must prove: nothing,
or a `Chap` exchange. With one, AuthMethod=None is no choice, and nothing leads out of the security stage before the
exchange is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bootlink_blockstore import chap
from bootlink_blockstore.chap import Chap, ChapError
from bootlink_events.names import ISCSI_NAME_LIMIT
from bootlink_wire.iscsi_codes import CONTINUE, FINAL, LoginStatus
from bootlink_wire.iscsi_digest import NONE, Digests
from bootlink_wire.iscsi_pdu import LoginRequest, LoginResponse
from bootlink_wire.iscsi_text import REJECT, Negotiation, TextError, encode, parse

SECURITY: Final = 0
OPERATIONAL: Final = 1
FULL_FEATURE: Final = 3

REQUESTS_LIMIT: Final = 32  # login requests of one login: four times what any initiator seen needs
TEXT_LIMIT: Final = 65_536  # bytes of one text over all its requests
SEGMENT_LIMIT: Final = 8192  # bytes of data in a login PDU (RFC 7143, section 13.12: the default), either way
PORTAL_GROUP: Final = 1  # the only one
FEN_SYSTEMS: Final = bytes.fromhex("40002723")  # ISID of type "enterprise number", 10019: iPXE's
IPXE_BUFFER: Final = "8192"


@dataclass(frozen=True, slots=True)
class Admission:
    """Who wants in. `tsih` is 0 for a new session."""

    initiator: str
    target: str  # empty for a discovery session
    isid: bytes
    tsih: int
    discovery: bool
    firmware: bool
    proved: bool = False  # it knows the secret that was asked for


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the negotiation came to: what a session must know."""

    receive_limit: int = 8192  # bytes of data in one PDU that the initiator takes
    max_burst: int = 262_144
    first_burst: int = 65_536
    outstanding_r2t: int = 1
    initial_r2t: bool = True
    immediate_data: bool = True
    digests: Digests = NONE


class Refusal(Exception):
    """The login ends here. `status` is told to the initiator."""

    def __init__(self, status: LoginStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Login:
    """One login. `done` once it was admitted."""

    __slots__ = (
        "_admission",
        "_authority",
        "_chap",
        "_cid",
        "_isid",
        "_last",
        "_reply",
        "_requests",
        "_stage",
        "_text",
        "_told_group",
        "asked",
        "done",
        "negotiation",
        "statsn",
    )

    def __init__(self, authority: Callable[[Admission], Chap | None] = lambda _: None) -> None:
        """`authority` says what an initiator must prove; Refusal if it cannot be asked."""
        self.negotiation = Negotiation()
        self.asked: Admission | None = None  # who was asked for a proof
        self.done = False
        self.statsn = 0
        self._admission: Admission | None = None
        self._authority = authority
        self._chap: Chap | None = None
        self._cid = 0
        self._isid = b""
        self._last: LoginRequest | None = None
        self._reply = b""  # what is still to be said
        self._requests = 0
        self._stage = -1  # before the first request
        self._text = b""
        self._told_group = False

    def request(self, pdu: LoginRequest) -> LoginResponse | Admission:
        """Take a login request. Gives the response, or asks whether the initiator may enter. Raises Refusal."""
        first = self._last is None
        self._last = pdu
        self._requests += 1
        self._check(pdu, first=first)
        if self._reply:
            if pdu.data or pdu.flags & CONTINUE:
                raise Refusal(LoginStatus.INITIATOR_ERROR, "it speaks before it has heard our whole answer")
        else:
            self._text += pdu.data
            if len(self._text) > TEXT_LIMIT:
                raise Refusal(LoginStatus.INITIATOR_ERROR, f"the login's text is longer than {TEXT_LIMIT} bytes")
            if pdu.flags & CONTINUE:
                return self._response(self._stage << 2)
            self._reply = self._answer_whole()
        if len(self._reply) > SEGMENT_LIMIT:
            return self._response(CONTINUE | self._stage << 2)
        current, wanted, leaves = pdu.flags >> 2 & 3, pdu.flags & 3, bool(pdu.flags & FINAL)
        if self._still_to_prove(leaves=leaves) or not leaves:
            return self._response(current << 2)
        if wanted == FULL_FEATURE:
            assert self._admission is not None
            return self._admission
        self._stage = wanted
        return self._response(FINAL | current << 2 | wanted)

    def _answer_whole(self) -> bytes:
        """The answer to the text that is now whole."""
        try:
            answers = self._answer(parse(self._text))
        except TextError as error:
            raise Refusal(error.status, str(error)) from None
        except ChapError as error:
            status = LoginStatus.AUTHENTICATION_FAILURE if error.proof else LoginStatus.INITIATOR_ERROR
            raise Refusal(status, str(error)) from None
        self._text = b""
        if ("AuthMethod", REJECT) in answers:
            raise Refusal(LoginStatus.AUTHENTICATION_FAILURE, "no offered AuthMethod will do")
        return encode(answers)

    def _still_to_prove(self, *, leaves: bool) -> bool:
        """Whether the login stays in the security stage. Refusal if it never was there, or leaves without a proof."""
        if self._chap is None or self._chap.done:
            return False
        if self._stage != SECURITY or (leaves and "AuthMethod" not in self.negotiation.offered):
            raise Refusal(LoginStatus.AUTHENTICATION_FAILURE, "it would enter without the CHAP that is asked for")
        return True

    def admit(self, tsih: int) -> tuple[LoginResponse, Parameters]:
        """The initiator may enter: the last response, and what was negotiated."""
        self.done = True
        values = self.negotiation
        burst = values.number("MaxBurstLength")
        parameters = Parameters(
            receive_limit=values.number("MaxRecvDataSegmentLength"),
            max_burst=burst,
            first_burst=min(values.number("FirstBurstLength"), burst),
            outstanding_r2t=values.number("MaxOutstandingR2T"),
            initial_r2t=values.flag("InitialR2T"),
            immediate_data=values.flag("ImmediateData"),
            digests=Digests(values.value("HeaderDigest") == "CRC32C", values.value("DataDigest") == "CRC32C"),
        )
        return self._response(FINAL | self._stage << 2 | FULL_FEATURE, tsih=tsih), parameters

    def refuse(self, status: LoginStatus) -> LoginResponse:
        """The response that ends the login."""
        assert self._last is not None
        return self._respond(self._last, 0, self._last.tsih, b"", status)

    def _check(self, pdu: LoginRequest, *, first: bool) -> None:
        """What a request must be whatever its text says."""
        current, wanted, transit = pdu.flags >> 2 & 3, pdu.flags & 3, bool(pdu.flags & FINAL)
        if pdu.version_min > 0:
            raise Refusal(LoginStatus.UNSUPPORTED_VERSION, f"the initiator needs iSCSI version {pdu.version_min}")
        if self._requests > REQUESTS_LIMIT:
            raise Refusal(LoginStatus.INITIATOR_ERROR, f"more than {REQUESTS_LIMIT} login requests")
        if first:
            self._stage, self._isid, self._cid = current, pdu.isid, pdu.cid
        if (pdu.isid, pdu.cid) != (self._isid, self._cid):
            raise Refusal(LoginStatus.INITIATOR_ERROR, "the ISID or CID changed within the login")
        if current not in (SECURITY, OPERATIONAL) or current != self._stage:
            raise Refusal(LoginStatus.INVALID_DURING_LOGIN, f"stage {current} is not the login's stage {self._stage}")
        if transit and (wanted not in (OPERATIONAL, FULL_FEATURE) or wanted <= current or pdu.flags & CONTINUE):
            raise Refusal(LoginStatus.INVALID_DURING_LOGIN, f"there is no way from stage {current} to {wanted}")

    def _answer(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Answers to a whole text; the first one must name who is there."""
        offered = dict(pairs)
        if self._admission is None:
            self.negotiation.discovery = offered.get("SessionType") == "Discovery"
            who = self._identify(offered)
            self._chap = self._authority(who)
            if self._chap is not None:
                self.asked = who
                self.negotiation.auth = "CHAP"
        answers = self.negotiation.answer(pairs)
        exchange = {name: value for name, value in pairs if name in chap.KEYS}
        if self._chap is not None:
            answers += self._chap.step(exchange)
        elif exchange:
            raise TextError("it speaks CHAP where none is asked for")
        if self._stage == OPERATIONAL:
            answers += self.negotiation.declarations()
        if not self._told_group and not self.negotiation.discovery:
            self._told_group = True
            answers.insert(0, ("TargetPortalGroupTag", str(PORTAL_GROUP)))
        self._admission = self._identify(self.negotiation.offered)
        return answers

    def _identify(self, offered: Mapping[str, str]) -> Admission:
        initiator, target = offered.get("InitiatorName", ""), offered.get("TargetName", "")
        kind = offered.get("SessionType", "Normal")
        if not initiator or len(initiator) > ISCSI_NAME_LIMIT:
            raise Refusal(LoginStatus.MISSING_PARAMETER, "the first login request names no initiator")
        if kind not in ("Normal", "Discovery"):
            raise Refusal(LoginStatus.SESSION_TYPE_NOT_SUPPORTED, "the session type is neither Normal nor Discovery")
        if kind == "Normal" and (not target or len(target) > ISCSI_NAME_LIMIT):
            raise Refusal(LoginStatus.MISSING_PARAMETER, "the first login request names no target")
        assert self._last is not None
        return Admission(
            initiator,
            target if kind == "Normal" else "",
            self._isid,
            self._last.tsih,
            kind == "Discovery",
            self._is_firmware(offered),
            self._chap is not None and self._chap.done,
        )

    def _is_firmware(self, offered: Mapping[str, str]) -> bool:
        return self._isid[:4] == FEN_SYSTEMS or (
            offered.get("ImmediateData") == "No"
            and offered.get("InitialR2T") == "Yes"
            and offered.get("MaxRecvDataSegmentLength") == IPXE_BUFFER
        )

    def _response(self, flags: int, *, tsih: int = 0) -> LoginResponse:
        """With as much of our answer as one PDU takes."""
        assert self._last is not None
        piece, self._reply = self._reply[:SEGMENT_LIMIT], self._reply[SEGMENT_LIMIT:]
        return self._respond(self._last, flags, tsih, piece, LoginStatus.SUCCESS)

    def _respond(self, request: LoginRequest, flags: int, tsih: int, data: bytes, status: LoginStatus) -> LoginResponse:
        statsn = self.statsn
        self.statsn = statsn + 1 & 0xFFFFFFFF
        return LoginResponse(
            flags=flags,
            isid=request.isid,
            tsih=tsih,
            itt=request.itt,
            statsn=statsn,
            expcmdsn=request.cmdsn,
            maxcmdsn=request.cmdsn,
            status=status,
            data=data,
        )


def refuse_unasked(header: bytes, status: LoginStatus) -> LoginResponse:
    """The answer to a header that is no login request, where one was due."""
    itt = int.from_bytes(header[16:20], "big")
    return LoginResponse(flags=0, isid=bytes(6), tsih=0, itt=itt, statsn=0, expcmdsn=0, maxcmdsn=0, status=status)
