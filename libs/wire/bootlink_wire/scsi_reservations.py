"""The data of PERSISTENT RESERVE IN and OUT (SPC-4, sections 6.15 and 6.16).

Keys are 64-bit numbers, nexuses are named by their initiator port: initiator name, ",i,0x" and the ISID in hex
(RFC 7143, section 4.2.7.1), as a TransportID carries it (SPC-4, section 7.6.4.6).
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct, pack
from typing import Final, NamedTuple

from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_sense import CheckCondition


class In(IntEnum):
    """Service actions of PERSISTENT RESERVE IN."""

    READ_KEYS = 0
    READ_RESERVATION = 1
    REPORT_CAPABILITIES = 2
    READ_FULL_STATUS = 3


class Out(IntEnum):
    """Service actions of PERSISTENT RESERVE OUT."""

    REGISTER = 0
    RESERVE = 1
    RELEASE = 2
    CLEAR = 3
    PREEMPT = 4
    PREEMPT_AND_ABORT = 5
    REGISTER_AND_IGNORE = 6


PARAMETERS: Final = 24  # bytes of a parameter list without SPEC_I_PT
SPEC_I_PT: Final = 0x08
ALL_TG_PT: Final = 0x04
APTPL: Final = 0x01

RELATIVE_PORT: Final = 1  # of our one target port
ISCSI_PORT: Final = 0x45  # TransportID: format 01b (initiator port), iSCSI
COMPATIBLE: Final = 0x10  # CRH: RESERVE(6) and RELEASE(6) of the holder succeed without effect
TYPE_MASK_VALID: Final = 0x80
ALLOWED_COMMANDS: Final = 0x10  # 001b: TEST UNIT READY is allowed under every type
# Types 1, 3, 5, 6, 7 in byte 4 and 8 in byte 5 (SPC-4, table 211).
TYPE_MASK: Final = bytes((0xEA, 0x01))

_OUT: Final = Struct(">QQ4xBxxx")


class Request(NamedTuple):
    """What a PERSISTENT RESERVE OUT brings."""

    key: int  # RESERVATION KEY: the caller's own
    action_key: int  # SERVICE ACTION RESERVATION KEY


def parse(data: bytes) -> Request:
    """The parameter list of PERSISTENT RESERVE OUT. CheckCondition for what is not supported: other initiator ports,
    all target ports, and reservations that outlive a loss of power."""
    if len(data) != PARAMETERS:
        raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
    key, action_key, flags = _OUT.unpack(data)
    if flags & (SPEC_I_PT | ALL_TG_PT | APTPL):
        raise CheckCondition(sense.INVALID_PARAMETER.at(20))
    return Request(key, action_key)


def keys(generation: int, registered: list[int]) -> bytes:
    """READ KEYS."""
    return _header(generation, 8 * len(registered)) + b"".join(key.to_bytes(8, "big") for key in registered)


def reservation(generation: int, key: int, kind: int) -> bytes:
    """READ RESERVATION; `kind` 0: there is none."""
    return _header(generation, 16 if kind else 0) + (pack(">Q5xBxx", key, kind) if kind else b"")


def capabilities() -> bytes:
    """REPORT CAPABILITIES: neither SIP, ATP nor PTPL."""
    return bytes((0, 8, COMPATIBLE, TYPE_MASK_VALID | ALLOWED_COMMANDS)) + TYPE_MASK + bytes(2)


def full_status(generation: int, registered: list[tuple[str, int, bool]], kind: int) -> bytes:
    """READ FULL STATUS of (port, key, whether it holds the reservation)."""
    parts = b""
    for port, key, holds in registered:
        identity = transport_id(port)
        flags = 0x01 if holds else 0
        parts += pack(">Q4xBB4xHI", key, flags, kind if holds else 0, RELATIVE_PORT, len(identity)) + identity
    return _header(generation, len(parts)) + parts


def transport_id(port: str) -> bytes:
    """The TransportID of an iSCSI initiator port."""
    name = port.encode() + b"\0"
    name += bytes(-len(name) % 4)
    return bytes((ISCSI_PORT, 0)) + len(name).to_bytes(2, "big") + name


def _header(generation: int, length: int) -> bytes:
    return pack(">II", generation & 0xFFFFFFFF, length)
