"""iSCSI protocol data units (RFC 7143, section 11) in both directions: a target's, and an initiator's for tests.

Theory of operation. A PDU on the wire is

    header 48 bytes | additional header segments (4 x n) | [header digest] | data | padding to 4 | [data digest]

Byte 0 holds the opcode and the immediate bit, byte 4 the length of the additional headers in words, bytes 5 to 7 the
length of the data. All else depends on the opcode. Each class below is one opcode: its `LAYOUT` is the header as a
struct, with the opcode and the lengths left out (they are pad bytes there), and its dataclass fields are the layout's
values in their order. So a PDU's documentation, its encoder and its decoder are the same four lines.

The hottest PDUs of a target are also packed directly, with `SCSI_COMMAND`, `DATA_IN`, `SCSI_RESPONSE` and `R2T`, which
are whole headers: a block store answers a cached read without building an object per PDU.

`PduError` is the peer's fault, and names the answer.

Deliberately not here: what the numbers in them mean (`iscsi_codes`), cutting a stream into them (`iscsi_inbox`),
digests (`iscsi_digest`), sequence numbers, negotiation and every decision.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from struct import Struct
from typing import ClassVar, Final, Self

from bootlink_wire.iscsi_codes import FINAL, IMMEDIATE, NO_TAG, OPCODE_MASK, LoginStatus, Opcode, RejectReason

BHS: Final = 48  # bytes of a basic header segment (RFC 7143, section 11.2.1)


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
