"""The data of UNMAP and GET LBA STATUS (SBC-3, sections 5.28 and 5.9)."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct, pack
from typing import Final, NamedTuple

from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_sense import CheckCondition

MAPPED: Final = 0  # provisioning status
DEALLOCATED: Final = 1

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
