"""UNMAP, WRITE SAME and GET LBA STATUS: blocks that take no space (SBC-3, section 4.7).

Theory of operation. The disk is thin: what a client unmaps reads as zeros from then on (LBPRZ=1), also where the image
has other bytes, and whole 4 KiB pages give their space back. A range that has been zeroed is `deallocated`, as is one
that the image itself holds as zeros and nobody has written; all else is `mapped`. Nothing can be anchored.

WRITE SAME of zeros takes the same way, UNMAP bit or not: a thin disk with LBPRZ=1 may let a block that holds zeros go
(SBC-3, section 4.7.3.5). Other patterns are written, PIECE by PIECE, so that neither memory nor other commands suffer;
a command may fail half way, as any WRITE may.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from bootlink_blockstore.image import Buffer
from bootlink_blockstore.scsi.blocks import (
    UNMAP_DESCRIPTORS,
    UNMAP_LIMIT,
    WRITE_SAME_LIMIT,
    cut,
    disk_of,
    settle,
    span,
)
from bootlink_blockstore.scsi.device import GOOD, LogicalUnit, Nexus, Outcome, Running
from bootlink_wire import scsi_cdb as cdbs
from bootlink_wire import scsi_provisioning as codec
from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_cdb import SECTOR, Op
from bootlink_wire.scsi_provisioning import Extent
from bootlink_wire.scsi_sense import CheckCondition

PIECE: Final = 1 << 20  # bytes of a pattern that are written at once
STATUS_DESCRIPTORS: Final = 256  # of GET LBA STATUS: who wants more asks again from where it ends
STATUS_SPAN: Final = 1 << 32  # bytes that it looks at, in some 5 ms at worst; the same


def unmap_size(_unit: LogicalUnit, cdb: bytes) -> int:
    """Bytes of the parameter list."""
    if cdb[1] & 0x01:
        raise CheckCondition(sense.INVALID_FIELD.at(1))  # ANCHOR
    return int.from_bytes(cdb[7:9], "big")


def unmap(unit: LogicalUnit, _nexus: Nexus, _cdb: bytes, data: Buffer) -> Running:
    """All ranges are checked before any is unmapped."""
    extents = codec.unmap_list(bytes(data), UNMAP_DESCRIPTORS)
    if any(lba + sectors > unit.sectors for lba, sectors in extents):
        raise CheckCondition(sense.LBA_OUT_OF_RANGE)
    if sum(sectors for _, sectors in extents) > UNMAP_LIMIT:
        raise CheckCondition(sense.INVALID_PARAMETER.at(8))
    return _unmap(unit, extents) if extents else GOOD


async def _unmap(unit: LogicalUnit, extents: list[Extent]) -> Outcome:
    disk = disk_of(unit)
    for lba, sectors in extents:
        if sectors:
            await settle(disk.zero(lba * SECTOR, sectors * SECTOR))
    if not unit.modes.write_cache:
        await settle(disk.flush())
    return GOOD


def write_same_size(unit: LogicalUnit, cdb: bytes) -> int:
    """One block, or with NDOB none: then it is zeros."""
    _same(unit, cdb)
    return 0 if _no_data(cdb) else SECTOR


def piece_size(unit: LogicalUnit, cdb: bytes) -> int:
    """Bytes that a WRITE SAME holds."""
    return min(PIECE, _same(unit, cdb)[1])


def _no_data(cdb: bytes) -> bool:
    return cdb[0] == Op.WRITE_SAME_16 and bool(cdb[1] & cdbs.NO_DATA)


def _same(unit: LogicalUnit, cdb: bytes) -> tuple[int, int]:
    offset, length, flags = span(unit, cdb)
    if flags & 0x06 or (flags & cdbs.ANCHOR) or (flags & cdbs.NO_DATA and cdb[0] == Op.WRITE_SAME_10):
        raise CheckCondition(sense.INVALID_FIELD.at(1))  # LBDATA and PBDATA are obsolete
    if not length or length > WRITE_SAME_LIMIT * SECTOR:
        # 0 is "to the end", which page B0 excludes (WSNZ).
        raise CheckCondition(sense.INVALID_FIELD.at(10 if cdb[0] == Op.WRITE_SAME_16 else 7))
    return offset, length


def write_same(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
    offset, length = _same(unit, cdb)
    return _fill_and_settle(unit, offset, length, bytes(SECTOR) if _no_data(cdb) else bytes(data))


async def _fill_and_settle(unit: LogicalUnit, offset: int, length: int, block: bytes) -> Outcome:
    await _fill(unit, offset, length, block)
    if not unit.modes.write_cache:
        await settle(disk_of(unit).flush())
    return GOOD


async def _fill(unit: LogicalUnit, offset: int, length: int, block: bytes) -> None:
    """Let a range hold this block again and again."""
    disk = disk_of(unit)
    if not any(block):
        await settle(disk.zero(offset, length))
        return
    piece = block * (min(PIECE, length) // SECTOR)
    for at in range(offset, offset + length, PIECE):
        await settle(disk.write(at, piece[: offset + length - at]))


def get_lba_status(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    """Runs of blocks in one state, from the one that the CDB names (SBC-3, section 5.9)."""
    lba, allocation = int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
    if lba >= unit.sectors:
        raise CheckCondition(sense.LBA_OUT_OF_RANGE)
    wanted = min(max((allocation - 8) // 16, 1), STATUS_DESCRIPTORS)
    runs = disk_of(unit).mapped(lba * SECTOR, min(unit.sectors * SECTOR - lba * SECTOR, STATUS_SPAN))
    found = ((mapped, Extent(low // SECTOR, (high - low) // SECTOR)) for mapped, low, high in islice(runs, wanted))
    return cut(codec.lba_status(found), allocation)
