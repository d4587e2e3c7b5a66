"""iSCSI protocol data units (RFC 7143, section 11) in both directions: a target's, and an initiator's for tests.

Theory of operation. A PDU on the wire is

    header 48 bytes | additional header segments (4 x n) | [header digest] | data | padding to 4 | [data digest]

Byte 0 holds the opcode and the immediate bit, byte 4 the length of the additional headers in words, bytes 5 to 7 the
length of the data. All else depends on the opcode. Each class below is one opcode: its `LAYOUT` is the header as a
struct, with the opcode and the lengths left out (they are pad bytes there), and its dataclass fields are the layout's
values in their order. So a PDU's documentation, its encoder and its decoder are the same four lines.

The hottest PDUs of a target are also packed directly, with `SCSI_COMMAND`, `DATA_IN`, `SCSI_RESPONSE` and `R2T`, which
are whole headers: a block store answers a cached read without building an object per PDU.

`Inbox` cuts a byte stream at PDU boundaries. It holds at most one PDU that is not complete; how long that may be is
for its user to say, before it asks for more (`PduError` is the peer's fault, and names the answer).

Deliberately not here: sequence numbers, negotiation and every decision, and digests (`iscsi_digest`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Final, Self

BHS: Final = 48  # bytes of a basic header segment (RFC 7143, section 11.2.1)
NO_TAG: Final = 0xFFFFFFFF  # the reserved value of task tags (section 11.2.1.8)


class Opcode(IntEnum):
    """RFC 7143, section 11.2.1.2. Below 0x20 the initiator sends it, from 0x20 the target."""

    NOP_OUT = 0x00
    SCSI_COMMAND = 0x01
    TASK_REQUEST = 0x02
    LOGIN_REQUEST = 0x03
    TEXT_REQUEST = 0x04
    DATA_OUT = 0x05
    LOGOUT_REQUEST = 0x06
    SNACK_REQUEST = 0x10
    NOP_IN = 0x20
    SCSI_RESPONSE = 0x21
    TASK_RESPONSE = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    R2T = 0x31
    ASYNC_MESSAGE = 0x32
    REJECT = 0x3F


OPCODE_MASK: Final = 0x3F
IMMEDIATE: Final = 0x40

# Flags in byte 1. FINAL is the transit bit of login PDUs.
FINAL: Final = 0x80
CONTINUE: Final = 0x40  # login and text
READ: Final = 0x40  # SCSI command
WRITE: Final = 0x20
STATUS: Final = 0x01  # Data-In that carries the status
UNDERFLOW: Final = 0x02  # SCSI response and Data-In
OVERFLOW: Final = 0x04


class RejectReason(IntEnum):
    """RFC 7143, section 11.17.1."""

    DATA_DIGEST = 0x02
    SNACK = 0x03
    PROTOCOL_ERROR = 0x04
    NOT_SUPPORTED = 0x05
    IMMEDIATE_COMMANDS = 0x06
    TASK_IN_PROGRESS = 0x07
    INVALID_FIELD = 0x09


class LoginStatus(IntEnum):
    """Status class and detail of a login response, as one number (RFC 7143, section 11.13.5)."""

    SUCCESS = 0x0000
    INITIATOR_ERROR = 0x0200
    AUTHENTICATION_FAILURE = 0x0201
    AUTHORIZATION_FAILURE = 0x0202
    NOT_FOUND = 0x0203
    UNSUPPORTED_VERSION = 0x0205
    TOO_MANY_CONNECTIONS = 0x0206
    MISSING_PARAMETER = 0x0207
    SESSION_TYPE_NOT_SUPPORTED = 0x0209
    SESSION_DOES_NOT_EXIST = 0x020A
    INVALID_DURING_LOGIN = 0x020B
    TARGET_ERROR = 0x0300
    SERVICE_UNAVAILABLE = 0x0301
    OUT_OF_RESOURCES = 0x0302


class TaskFunction(IntEnum):
    """RFC 7143, section 11.5.1."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_ACA = 3
    CLEAR_TASK_SET = 4
    LOGICAL_UNIT_RESET = 5
    TARGET_WARM_RESET = 6
    TARGET_COLD_RESET = 7
    TASK_REASSIGN = 8


class TaskResult(IntEnum):
    """RFC 7143, section 11.6.1."""

    COMPLETE = 0
    NO_TASK = 1
    NO_LUN = 2
    STILL_ALLEGIANT = 3
    NO_REASSIGN = 4
    NOT_SUPPORTED = 5
    NOT_AUTHORIZED = 6
    REJECTED = 255


class PduError(Exception):
    """The peer sent something that is no PDU it may send. `reason` is what a Reject says of it."""

    def __init__(self, message: str, reason: RejectReason = RejectReason.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.reason = reason


# Whole headers, opcode and lengths included.
SCSI_COMMAND: Final = Struct(">BBHIQIIII16s")  # opcode flags - lengths lun itt edtl cmdsn expstatsn cdb
DATA_OUT: Final = Struct(">BBHIQII4xI4xII4x")  # opcode flags - lengths lun itt ttt expstatsn datasn offset
# opcode flags response status lengths itt snack statsn expcmdsn maxcmdsn expdatasn bidi residual
SCSI_RESPONSE: Final = Struct(">BBBBI8xIIIIIIII")
# opcode flags - status lengths lun itt ttt statsn expcmdsn maxcmdsn datasn offset residual
DATA_IN: Final = Struct(">BBBBIQIIIIIIII")
R2T: Final = Struct(">BBHIQIIIIIIII")  # opcode flags - lengths lun itt ttt statsn expcmdsn maxcmdsn r2tsn offset length


def padding(length: int) -> bytes:
    """The zeros that bring `length` bytes to a multiple of 4."""
    return bytes(-length & 3)


def lengths(header: bytes | memoryview, at: int = 0) -> tuple[int, int]:
    """Bytes of the additional headers and of the data segment (without padding) that the header at `at` announces."""
    return header[at + 4] * 4, header[at + 5] << 16 | header[at + 6] << 8 | header[at + 7]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pdu:
    """What every PDU has. Subclasses add the header's fields, in the order of their LAYOUT."""

    OPCODE: ClassVar[Opcode]
    LAYOUT: ClassVar[Struct]

    immediate: bool = False
    ahs: bytes = b""
    data: bytes = b""

    def encode(self) -> bytes:
        """The PDU's bytes, padded, without digests."""
        values = [getattr(self, f.name) for f in fields(self) if f.name not in _COMMON]
        header = bytearray(self.LAYOUT.pack(*values))
        header[0] = self.OPCODE | (IMMEDIATE if self.immediate else 0)
        header[4] = len(self.ahs) // 4
        header[5:8] = len(self.data).to_bytes(3, "big")
        return bytes(header) + self.ahs + self.data + padding(len(self.data))

    @classmethod
    def decode(cls, header: bytes | memoryview, data: bytes = b"", ahs: bytes = b"") -> Self:
        """From a 48-byte header of this opcode, and its segments without padding."""
        names = [f.name for f in fields(cls) if f.name not in _COMMON]
        values = dict(zip(names, cls.LAYOUT.unpack(header), strict=True))
        return cls(immediate=bool(header[0] & IMMEDIATE), ahs=ahs, data=data, **values)


_COMMON: Final = ("immediate", "ahs", "data")


@dataclass(frozen=True, slots=True, kw_only=True)
class NopOut(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.NOP_OUT
    LAYOUT: ClassVar[Struct] = Struct(">xB2x4xQIIII16x")
    flags: int = FINAL
    lun: int = 0
    itt: int
    ttt: int = NO_TAG
    cmdsn: int = 0
    expstatsn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsiCommand(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.SCSI_COMMAND
    LAYOUT: ClassVar[Struct] = Struct(">xB2x4xQIIII16s")
    flags: int = FINAL
    lun: int = 0
    itt: int
    expected: int = 0  # Expected Data Transfer Length, bytes
    cmdsn: int = 0
    expstatsn: int = 0
    cdb: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.TASK_REQUEST
    LAYOUT: ClassVar[Struct] = Struct(">xB2x4xQIIIIII8x")
    function: int  # with FINAL set in it
    lun: int = 0
    itt: int
    referenced: int = NO_TAG
    cmdsn: int = 0
    expstatsn: int = 0
    refcmdsn: int = 0
    expdatasn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRequest(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.LOGIN_REQUEST
    LAYOUT: ClassVar[Struct] = Struct(">xBBB4x6sHIH2xII16x")
    flags: int  # transit, continue, current stage << 2, next stage
    version_max: int = 0
    version_min: int = 0
    isid: bytes
    tsih: int = 0
    itt: int
    cid: int = 0
    cmdsn: int = 0
    expstatsn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.TEXT_REQUEST
    LAYOUT: ClassVar[Struct] = Struct(">xB2x4xQIIII16x")
    flags: int = FINAL
    lun: int = 0
    itt: int
    ttt: int = NO_TAG
    cmdsn: int = 0
    expstatsn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOut(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.DATA_OUT
    LAYOUT: ClassVar[Struct] = Struct(">xB2x4xQII4xI4xII4x")
    flags: int = FINAL
    lun: int = 0
    itt: int
    ttt: int = NO_TAG
    expstatsn: int = 0
    datasn: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutRequest(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.LOGOUT_REQUEST
    LAYOUT: ClassVar[Struct] = Struct(">xB2x4x8xIH2xII16x")
    reason: int = FINAL  # with FINAL set in it
    itt: int
    cid: int = 0
    cmdsn: int = 0
    expstatsn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NopIn(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.NOP_IN
    LAYOUT: ClassVar[Struct] = Struct(">xB2x4xQIIIII12x")
    flags: int = FINAL
    lun: int = 0
    itt: int
    ttt: int = NO_TAG
    statsn: int
    expcmdsn: int
    maxcmdsn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsiResponse(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.SCSI_RESPONSE
    LAYOUT: ClassVar[Struct] = Struct(">xBBB4x8xIIIIIIII")
    flags: int = FINAL
    response: int = 0
    status: int = 0
    itt: int
    snack: int = 0
    statsn: int
    expcmdsn: int
    maxcmdsn: int
    expdatasn: int = 0
    bidirectional_residual: int = 0
    residual: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResponse(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.TASK_RESPONSE
    LAYOUT: ClassVar[Struct] = Struct(">xBBx4x8xI4xIII12x")
    flags: int = FINAL
    response: int
    itt: int
    statsn: int
    expcmdsn: int
    maxcmdsn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginResponse(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.LOGIN_RESPONSE
    LAYOUT: ClassVar[Struct] = Struct(">xBBB4x6sHI4xIIIH10x")
    flags: int
    version_max: int = 0
    version_active: int = 0
    isid: bytes
    tsih: int
    itt: int
    statsn: int
    expcmdsn: int
    maxcmdsn: int
    status: int = LoginStatus.SUCCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class TextResponse(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.TEXT_RESPONSE
    LAYOUT: ClassVar[Struct] = Struct(">xB2x4xQIIIII12x")
    flags: int = FINAL
    lun: int = 0
    itt: int
    ttt: int = NO_TAG
    statsn: int
    expcmdsn: int
    maxcmdsn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataIn(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.DATA_IN
    LAYOUT: ClassVar[Struct] = Struct(">xBxB4xQIIIIIIII")
    flags: int
    status: int = 0
    lun: int = 0
    itt: int
    ttt: int = NO_TAG
    statsn: int = 0
    expcmdsn: int
    maxcmdsn: int
    datasn: int = 0
    offset: int = 0
    residual: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutResponse(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.LOGOUT_RESPONSE
    LAYOUT: ClassVar[Struct] = Struct(">xBBx4x8xI4xIII4xHH4x")
    flags: int = FINAL
    response: int = 0
    itt: int
    statsn: int
    expcmdsn: int
    maxcmdsn: int
    time2wait: int = 0
    time2retain: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyToTransfer(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.R2T
    LAYOUT: ClassVar[Struct] = Struct(">xB2x4xQIIIIIIII")
    flags: int = FINAL
    lun: int = 0
    itt: int
    ttt: int
    statsn: int
    expcmdsn: int
    maxcmdsn: int
    r2tsn: int = 0
    offset: int = 0
    desired: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.REJECT
    LAYOUT: ClassVar[Struct] = Struct(">xBBx4x8xI4xIIII8x")
    flags: int = FINAL
    reason: int
    itt: int = NO_TAG
    statsn: int
    expcmdsn: int
    maxcmdsn: int
    datasn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncMessage(Pdu):
    OPCODE: ClassVar[Opcode] = Opcode.ASYNC_MESSAGE
    LAYOUT: ClassVar[Struct] = Struct(">xB2x4xQI4xIIIBBHHH4x")
    flags: int = FINAL
    lun: int = 0
    itt: int = NO_TAG
    statsn: int
    expcmdsn: int
    maxcmdsn: int
    event: int
    vendor_code: int = 0
    parameter1: int = 0
    parameter2: int = 0
    parameter3: int = 0


PDUS: Final[dict[int, type[Pdu]]] = {
    kind.OPCODE: kind
    for kind in (
        *(NopOut, ScsiCommand, TaskRequest, LoginRequest, TextRequest, DataOut, LogoutRequest),
        *(NopIn, ScsiResponse, TaskResponse, LoginResponse, TextResponse, DataIn, LogoutResponse),
        *(ReadyToTransfer, Reject, AsyncMessage),
    )
}


def decode(header: bytes | memoryview, data: bytes = b"", ahs: bytes = b"") -> Pdu:
    """The PDU with this 48-byte header. PduError if its opcode is unknown, or it is a SNACK (error recovery > 0)."""
    kind = PDUS.get(header[0] & OPCODE_MASK)
    if kind is None:
        raise PduError(f"opcode 0x{header[0] & OPCODE_MASK:02x} is not supported", RejectReason.NOT_SUPPORTED)
    return kind.decode(header, data, ahs)


class Inbox:
    """The bytes of a connection that are not consumed yet: less than one PDU, or what its user chose to leave.

    `take(chunk)` gives all that is there as one piece, or None while that is less than was said to be needed. The
    user consumes whole PDUs from the front and gives the rest back with `keep`. A large PDU that arrives in many
    chunks is joined once.
    """

    __slots__ = ("_chunks", "_needed", "held")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._needed = 0
        self.held = 0  # bytes

    def take(self, chunk: bytes) -> bytes | None:
        if not self._chunks:
            return chunk
        if chunk:
            self._chunks.append(chunk)
            self.held += len(chunk)
        if self.held < self._needed:
            return None
        whole = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.held = 0
        return whole

    def keep(self, data: bytes, start: int, needed: int) -> None:
        """Hold data[start:]. `take` gives nothing until `needed` bytes are there."""
        rest = data[start:]
        self._chunks = [rest] if rest else []
        self.held = len(rest)
        self._needed = needed
