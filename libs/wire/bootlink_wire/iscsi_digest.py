"""Header and data digests of iSCSI PDUs: CRC-32C, checked and put in (RFC 7143, sections 11.2.3 and 13.1).

Theory of operation. Once a login has agreed on them, every PDU of both directions after the last login response is

    header 48 | additional headers | header digest 4 | data | padding | data digest 4

each digest where it was agreed on, and a data digest only where there is data. The header digest covers the additional
headers too, the data digest the padding too. A digest is the CRC of RFC 3720's appendix B.4, least significant byte
first. Login PDUs are never digested, so one list of output may hold the last of a login and what follows it.

`Digests` is what was agreed on. `seal` takes PDUs as lists of buffers and gives the buffers to be sent; no data is
copied, but memory that is not `bytes` must be, for as long as its CRC is computed: the library takes nothing else.

Deliberately not here: what follows from a wrong digest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import google_crc32c

from bootlink_wire.iscsi_codes import OPCODE_MASK, Opcode, RejectReason
from bootlink_wire.iscsi_pdu import BHS, Pdu, PduError, decode, lengths

SIZE: Final = 4  # bytes of a digest
_LOGIN: Final = (Opcode.LOGIN_REQUEST, Opcode.LOGIN_RESPONSE)

Buffer = bytes | memoryview


def crc32c(*buffers: Buffer) -> bytes:
    """The digest of these bytes, one after the other, as it goes onto the wire."""
    crc = 0
    for buffer in buffers:
        crc = google_crc32c.extend(crc, buffer if isinstance(buffer, bytes) else bytes(buffer))
    return crc.to_bytes(SIZE, "little")


@dataclass(frozen=True, slots=True)
class Digests:
    """Which digests a session has. False where it has none."""

    header: bool = False
    data: bool = False

    def __bool__(self) -> bool:
        return self.header or self.data

    def header_size(self, ahs: int) -> int:
        """Bytes of a PDU before its data, with `ahs` bytes of additional headers."""
        return BHS + ahs + (SIZE if self.header else 0)

    def data_size(self, size: int) -> int:
        """Bytes of a data segment of `size` bytes with all that follows it."""
        return size + (-size & 3) + (SIZE if self.data and size else 0)

    def header_right(self, header: bytes) -> bool:
        """`header` is as long as `header_size` says."""
        return not self.header or crc32c(header[:-SIZE]) == header[-SIZE:]

    def data_right(self, data: bytes) -> bool:
        """`data` is as long as `data_size` says."""
        return not (self.data and data) or crc32c(data[:-SIZE]) == data[-SIZE:]

    def seal(self, buffers: Iterable[Buffer]) -> list[Buffer]:
        """These PDUs with their digests. A PDU begins with a buffer of its own, and its header is all in that one."""
        out: list[Buffer] = []
        parts: list[Buffer] = []  # of a data segment and its padding
        left = 0  # bytes of it that are still to come
        for buffer in buffers:
            if left:
                out.append(buffer)
                left -= len(buffer)
                if parts:  # it has a data digest
                    parts.append(buffer)
            else:
                left = self._begin(buffer, out, parts)
            if parts and not left:
                out.append(crc32c(*parts))
                parts.clear()
        return out

    def _begin(self, buffer: Buffer, out: list[Buffer], parts: list[Buffer]) -> int:
        """A PDU's first buffer. Returns the bytes of its data that are not in there."""
        ahs, size = lengths(buffer)
        start = BHS + ahs
        left = size + (-size & 3) - (len(buffer) - start)
        if buffer[0] & OPCODE_MASK in _LOGIN:
            out.append(buffer)
            return left
        head, rest = buffer[:start], buffer[start:]
        out.append(head)
        if self.header:
            out.append(crc32c(head))
        if rest:
            out.append(rest)
        if self.data and size:
            parts.append(rest)
        return left


NONE: Final = Digests()


def split(stream: bytes, digests: Digests = NONE) -> tuple[list[Pdu], bytes]:
    """All whole PDUs at the front of `stream`, decoded, and the bytes that are left. For tests and tools.

    PduError if a digest is wrong.
    """
    pdus = []
    while (first := front(stream, digests)) is not None:
        found, stream = first
        pdus.append(found)
    return pdus, stream


def front(stream: bytes, digests: Digests = NONE) -> tuple[Pdu, bytes] | None:
    """The first PDU, and the bytes after it; None if it is not all there. PduError if a digest is wrong."""
    if len(stream) < BHS:
        return None
    if stream[0] & OPCODE_MASK in _LOGIN:
        digests = NONE
    ahs, size = lengths(stream)
    start = digests.header_size(ahs)
    end = start + digests.data_size(size)
    if end > len(stream):
        return None
    if not digests.header_right(stream[:start]) or not digests.data_right(stream[start:end]):
        raise PduError("a digest is wrong", RejectReason.DATA_DIGEST)
    return decode(stream[:BHS], stream[start : start + size], stream[BHS : BHS + ahs]), stream[end:]
