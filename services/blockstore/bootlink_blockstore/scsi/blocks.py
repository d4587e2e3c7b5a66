"""Ranges of blocks that CDBs name, the limits on them, and the common ways to answer.

Every limit bounds what one command may hold in memory or how long it may take. Page B0 states those of `LIMITS`; it has
no field for `ORWRITE_LIMIT`, and of atomic writes it states less than `ATOMIC_LIMIT` on purpose (`scsi_vpd`).
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from bootlink_blockstore.scsi.device import GOOD, Disk, LogicalUnit, Outcome, Running
from bootlink_wire import scsi_cdb as cdbs
from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_cdb import FUA, PROTECT, SECTOR, Blocks
from bootlink_wire.scsi_sense import CheckCondition
from bootlink_wire.scsi_vpd import Limits

TRANSFER_LIMIT: Final = 8_192  # sectors (4 MiB) per command: bounds what one command may hold in memory
COMPARE_LIMIT: Final = 255  # sectors of a COMPARE AND WRITE: its count has one byte
ATOMIC_LIMIT: Final = 256  # sectors of a WRITE ATOMIC: 128 KiB go to the overlay in one system call
ATOMIC_UNIT: Final = 8  # sectors that one begins at a multiple of, and is a multiple of: a page of the overlay
ORWRITE_LIMIT: Final = 256  # sectors of an ORWRITE: it is computed on the event loop, in about a millisecond
UNMAP_LIMIT: Final = 1 << 20  # sectors (512 MiB) that one UNMAP may name in all
UNMAP_DESCRIPTORS: Final = 256  # ranges that one UNMAP may name, each a system call of its own
WRITE_SAME_LIMIT: Final = 1 << 16  # sectors (32 MiB): a pattern is really written, piece by piece

LIMITS: Final = Limits(
    transfer=TRANSFER_LIMIT,
    prefetch=TRANSFER_LIMIT,
    compare_and_write=COMPARE_LIMIT,
    unmap=UNMAP_LIMIT,
    unmap_descriptors=UNMAP_DESCRIPTORS,
    write_same=WRITE_SAME_LIMIT,
)


def disk_of(unit: LogicalUnit) -> Disk:
    """The unit's disk. CheckCondition if it has none."""
    if unit.disk is None:
        raise CheckCondition(sense.NO_LOGICAL_UNIT)
    return unit.disk


def check(unit: LogicalUnit, named: Blocks) -> tuple[int, int, int]:
    """Offset and length in bytes, and byte 1's flags, of a named range. CheckCondition if it goes too far."""
    lba, sectors, flags = named
    if flags & PROTECT:
        raise CheckCondition(sense.INVALID_FIELD.at(1))  # protection information was never formatted
    if lba + sectors > unit.sectors:
        raise CheckCondition(sense.LBA_OUT_OF_RANGE)
    return lba * SECTOR, sectors * SECTOR, flags


def span(unit: LogicalUnit, cdb: bytes) -> tuple[int, int, int]:
    """The same of a CDB of the common forms."""
    return check(unit, cdbs.blocks(cdb))


def transfer(unit: LogicalUnit, cdb: bytes, limit: int = TRANSFER_LIMIT) -> tuple[int, int, int]:
    """The same for a command that may move so many sectors and no more (page B0)."""
    offset, length, flags = span(unit, cdb)
    if length > limit * SECTOR:
        raise CheckCondition(sense.INVALID_FIELD.at(2))
    return offset, length, flags


def transfer_size(unit: LogicalUnit, cdb: bytes) -> int:
    """Bytes that a command moves."""
    return transfer(unit, cdb)[1]


def byte_check_size(unit: LogicalUnit, cdb: bytes) -> int:
    """Bytes that come with a VERIFY: none, all, or one block that each is compared with (BYTCHK 00, 01, 11)."""
    byte_check = cdb[1] & cdbs.BYTE_CHECK
    if byte_check == 0x04:
        raise CheckCondition(sense.INVALID_FIELD.at(1))
    length = transfer(unit, cdb)[1] if byte_check else span(unit, cdb)[1]
    return {0x00: 0, 0x02: length, 0x06: min(length, SECTOR)}[byte_check]


def stable(unit: LogicalUnit, flags: int) -> bool:
    """Whether a write must be stable before it is answered: FUA, or no write cache."""
    return bool(flags & FUA) or not unit.modes.write_cache


def cut(data: bytes, allocation: int) -> Outcome:
    """Parameter data, as much of it as the initiator has room for."""
    return Outcome(data=[data[:allocation]]) if allocation and data else GOOD


def after(doing: Coroutine[Any, Any, None] | None) -> Running:
    """GOOD, once it is done."""
    return GOOD if doing is None else _after(doing)


async def _after(doing: Coroutine[Any, Any, None]) -> Outcome:
    await doing
    return GOOD


async def settle(doing: Coroutine[Any, Any, None] | None) -> None:
    """Wait, if there is anything to wait for."""
    if doing is not None:
        await doing


def compare(held: bytes, expected: bytes) -> None:
    """CheckCondition with the offset of the first difference, in bytes, if there is one (SBC-3, section 5.2)."""
    if held == expected:
        return
    # By halves: byte by byte would hold the event loop for a second where 4 MiB differ at their end.
    at, size = 0, len(held)
    while size > 1:
        half = size // 2
        if held[at : at + half] == expected[at : at + half]:
            at += half
            size -= half
        else:
            size = half
    raise CheckCondition(sense.Sense(sense.MISCOMPARE.key, sense.MISCOMPARE.code, information=at))
