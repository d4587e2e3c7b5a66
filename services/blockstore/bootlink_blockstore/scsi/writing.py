"""WRITE, WRITE AND VERIFY, the atomic commands, and SYNCHRONIZE CACHE.

A write is ordered, stored and made stable by the disk. Data may be shorter than the CDB asks for (the initiator
announced less): a WRITE then writes what came, in whole sectors (RFC 7143, section 11.4.5.1: the target may not touch
more than was announced). COMPARE AND WRITE, ORWRITE and WRITE ATOMIC write all or nothing, so theirs must be announced
whole.

Atomic are COMPARE AND WRITE and ORWRITE by `Disk.update`, which reads, changes and writes in the disk's write order:
no other write of any session comes between. WRITE ATOMIC takes the same way, and is written by one system call. It is
atomic among writes, and whole once it is answered. Where the process dies within the call, each page of it is there or
is not, as the kernel looks at signals between pages: so page B0 promises one page (docs/conformance.md).
"""

from __future__ import annotations

from bootlink_blockstore.image import Buffer
from bootlink_blockstore.scsi.blocks import (
    ATOMIC_LIMIT,
    ATOMIC_UNIT,
    ORWRITE_LIMIT,
    after,
    byte_check_size,
    check,
    compare,
    disk_of,
    settle,
    span,
    stable,
    transfer,
)
from bootlink_blockstore.scsi.device import GOOD, LogicalUnit, Nexus, Outcome, Running
from bootlink_blockstore.scsi.reading import read_back
from bootlink_wire import scsi_cdb as cdbs
from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_cdb import SECTOR
from bootlink_wire.scsi_sense import CheckCondition


def write(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
    offset, _, flags = transfer(unit, cdb)
    return after(disk_of(unit).write(offset, data, fua=stable(unit, flags))) if data else GOOD


def write_and_verify_size(unit: LogicalUnit, cdb: bytes) -> int:
    """Bytes that come with a WRITE AND VERIFY: all, whatever is compared afterwards."""
    byte_check_size(unit, cdb)
    return transfer(unit, cdb)[1]


def write_and_verify(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
    """Write to the medium, and with BYTCHK 01 compare what it holds (11b writes the same, and compares as much)."""
    offset, _, _ = transfer(unit, cdb)
    return _write_and_verify(unit, offset, data, compared=bool(cdb[1] & cdbs.BYTE_CHECK)) if data else GOOD


async def _write_and_verify(unit: LogicalUnit, offset: int, data: Buffer, *, compared: bool) -> Outcome:
    await settle(disk_of(unit).write(offset, data, fua=True))
    if not compared:
        return GOOD
    outcome = read_back(unit, offset, bytes(data))
    return outcome if isinstance(outcome, Outcome) else await outcome


def compare_and_write_size(unit: LogicalUnit, cdb: bytes) -> int:
    """Bytes that come with a COMPARE AND WRITE: what to compare with, and what to write."""
    return 2 * check(unit, cdbs.compare_and_write(cdb))[1]


def compare_and_write(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
    """Write the second half if the disk holds the first (SBC-3, section 5.2)."""
    offset, length, flags = check(unit, cdbs.compare_and_write(cdb))
    if not length:
        return GOOD
    expected, wanted = bytes(data[:length]), bytes(data[length:])

    def change(held: bytes) -> bytes:
        compare(held, expected)
        return wanted

    return after(disk_of(unit).update(offset, length, change, fua=stable(unit, flags)))


def orwrite_size(unit: LogicalUnit, cdb: bytes) -> int:
    return transfer(unit, cdb, ORWRITE_LIMIT)[1]


def orwrite(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
    """Set the bits that are set in the data (SBC-3, section 5.7)."""
    offset, length, flags = transfer(unit, cdb, ORWRITE_LIMIT)
    if not length:
        return GOOD
    bits = int.from_bytes(data, "little")

    def change(held: bytes) -> bytes:
        return (int.from_bytes(held, "little") | bits).to_bytes(length, "little")

    return after(disk_of(unit).update(offset, length, change, fua=stable(unit, flags)))


def write_atomic_size(unit: LogicalUnit, cdb: bytes) -> int:
    return _atomic(unit, cdb)[1]


def write_atomic(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
    """WRITE ATOMIC(16): no other write comes between its blocks (SBC-4, section 5.48)."""
    offset, length, flags = _atomic(unit, cdb)
    if not length:
        return GOOD
    whole = bytes(data)
    return after(disk_of(unit).update(offset, length, lambda _held: whole, fua=stable(unit, flags)))


def _atomic(unit: LogicalUnit, cdb: bytes) -> tuple[int, int, int]:
    named, boundary = cdbs.write_atomic(cdb)
    offset, length, flags = check(unit, named)
    if boundary:
        raise CheckCondition(sense.INVALID_FIELD.at(10))  # page B0: there is no boundary
    # More than page B0 tells is taken, up to a limit of ours: libiscsi's tests write 256 blocks whatever it tells.
    if length > ATOMIC_LIMIT * SECTOR or length % (ATOMIC_UNIT * SECTOR):
        raise CheckCondition(sense.INVALID_FIELD.at(12))
    if offset % (ATOMIC_UNIT * SECTOR):
        raise CheckCondition(sense.INVALID_FIELD.at(2))
    return offset, length, flags


def synchronize_cache(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    """All of the disk, whatever the range; and no earlier answer with IMMED: a flush that is not done is no flush."""
    span(unit, cdb)
    return after(disk_of(unit).flush())
