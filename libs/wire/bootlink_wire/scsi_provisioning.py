"""The data of UNMAP and GET LBA STATUS (SBC-3, sections 5.28 and 5.9), and of SANITIZE (SBC-4, section 5.26)."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct, pack
from typing import Final, NamedTuple

from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_cdb import SECTOR
from bootlink_wire.scsi_sense import CheckCondition

MAPPED: Final = 0  # provisioning status
DEALLOCATED: Final = 1

# Service actions of SANITIZE.
OVERWRITE: Final = 1
BLOCK_ERASE: Final = 2
CRYPTOGRAPHIC_ERASE: Final = 3
EXIT_FAILURE_MODE: Final = 0x1F

_DESCRIPTOR: Final = Struct(">QI4x")
_STATUS: Final = Struct(">QIB3x")


class Extent(NamedTuple):
    """A range of blocks."""

    lba: int
    sectors: int


def unmap_list(data: bytes, limit: int) -> list[Extent]:
    """The ranges of an UNMAP's parameter list, at most `limit` of them. CheckCondition if it is none."""
    if not data:
        return []
    if len(data) < 8:
        raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
    size = int.from_bytes(data[2:4], "big")
    if size > len(data) - 8:
        raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
    # Less than a whole descriptor at the end is no descriptor (SBC-3, section 5.28.2).
    size -= size % _DESCRIPTOR.size
    if size // _DESCRIPTOR.size > limit:
        raise CheckCondition(sense.INVALID_PARAMETER.at(2))
    return [Extent(*_DESCRIPTOR.unpack_from(data, at)) for at in range(8, 8 + size, _DESCRIPTOR.size)]


def lba_status(runs: Iterable[tuple[bool, Extent]]) -> bytes:
    """The parameter data of GET LBA STATUS, of (mapped?, range)."""
    parts = [_STATUS.pack(extent.lba, extent.sectors, MAPPED if mapped else DEALLOCATED) for mapped, extent in runs]
    return pack(">I4x", 4 + _STATUS.size * len(parts)) + b"".join(parts)


class Overwrite(NamedTuple):
    """What SANITIZE is to overwrite with."""

    pattern: bytes  # one block
    passes: int


def overwrite_list(data: bytes) -> Overwrite:
    """The parameter list of SANITIZE's OVERWRITE. CheckCondition if it is none: its faults count as the CDB's, as
    its length is in the CDB (SBC-4, table 87)."""
    if not 4 < len(data) <= 4 + SECTOR:
        raise CheckCondition(sense.INVALID_FIELD.at(7))
    passes, size = data[0] & 0x1F, int.from_bytes(data[2:4], "big")
    if not passes or not 0 < size <= SECTOR or size > len(data) - 4:
        raise CheckCondition(sense.INVALID_FIELD.at(7))
    piece = data[4 : 4 + size]
    block = (piece * -(-SECTOR // size))[:SECTOR]
    if data[0] & 0x80 and not passes % 2:
        block = bytes(byte ^ 0xFF for byte in block)  # INVERT: every other pass; what remains is the last one's
    return Overwrite(block, passes)
