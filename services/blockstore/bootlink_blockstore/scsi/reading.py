"""READ, VERIFY and PRE-FETCH.

A read that the cache can serve is answered at once; else it gives a coroutine. VERIFY with BYTCHK 00 checks nothing:
what can be read was checked when it was read. PRE-FETCH reads what it names into the RAM cache, where others find it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from bootlink_blockstore.image import Buffer, Buffers
from bootlink_blockstore.scsi.blocks import TRANSFER_LIMIT, compare, disk_of, span, transfer
from bootlink_blockstore.scsi.device import GOOD, LogicalUnit, Nexus, Outcome, Running
from bootlink_wire import scsi_cdb as cdbs
from bootlink_wire.scsi_cdb import SECTOR
from bootlink_wire.scsi_sense import Status

MET = Outcome(Status.CONDITION_MET)


def read(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    offset, length, _ = transfer(unit, cdb)
    if not length:
        return GOOD
    buffers = disk_of(unit).read(offset, length)
    return Outcome(data=buffers) if isinstance(buffers, list) else _read_later(buffers)


async def _read_later(reading: Coroutine[Any, Any, Buffers]) -> Outcome:
    return Outcome(data=await reading)


def verify_reads(unit: LogicalUnit, cdb: bytes) -> int:
    """Bytes that a VERIFY reads."""
    return transfer(unit, cdb)[1] if cdb[1] & cdbs.BYTE_CHECK else 0


def verify(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
    """Compare with what came, all of it or one block with each."""
    if not cdb[1] & cdbs.BYTE_CHECK or not data:
        return GOOD
    offset, length, _ = transfer(unit, cdb)
    expected = bytes(data) * (length // SECTOR) if cdb[1] & cdbs.BYTE_CHECK == cdbs.BYTE_CHECK else bytes(data)
    return read_back(unit, offset, expected)


def read_back(unit: LogicalUnit, offset: int, expected: bytes) -> Running:
    """Whether the disk holds these bytes there."""
    buffers = disk_of(unit).read(offset, len(expected))
    if not isinstance(buffers, list):
        return _compare_later(buffers, expected)
    compare(b"".join(buffers), expected)
    return GOOD


async def _compare_later(reading: Coroutine[Any, Any, Buffers], expected: bytes) -> Outcome:
    compare(b"".join(await reading), expected)
    return GOOD


def prefetched(unit: LogicalUnit, cdb: bytes) -> int:
    """Bytes that a PRE-FETCH reads: what it names, or all that follows, and no more than one read may."""
    offset, length, _ = span(unit, cdb)
    return min(length or unit.sectors * SECTOR - offset, TRANSFER_LIMIT * SECTOR)


def prefetch(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    """CONDITION MET: all that was named is in the cache. GOOD: a part of it, or nothing yet (SBC-3, section 5.8)."""
    offset, length, flags = span(unit, cdb)
    size = prefetched(unit, cdb)
    if flags & cdbs.IMMEDIATE or not size:
        return GOOD  # it was asked for without waiting, and a hint that nobody waits for is not worth a read
    done = MET if size == (length or unit.sectors * SECTOR - offset) else GOOD
    reading = disk_of(unit).read(offset, size)
    return done if isinstance(reading, list) else _prefetch_later(reading, done)


async def _prefetch_later(reading: Coroutine[Any, Any, Buffers], done: Outcome) -> Outcome:
    await reading
    return done
