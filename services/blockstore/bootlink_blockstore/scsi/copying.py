"""EXTENDED COPY and RECEIVE COPY RESULTS: a disk copies blocks of its own, so that they need not travel (SPC-4, 5.17).

A copy goes segment by segment, each PIECE by PIECE: read, then write, as any client would, but for the network. A
target is named as page 83 names it, and must be this very disk: others' disks are others' affair. Where blocks cannot
be reached, the copy ends with COPY ABORTED, and what was written stays (SPC-4, section 5.17.7.3).

How a copy ended is kept under its list identifier, per nexus, until it is asked for, or RESULTS_LIMIT newer ones are
there. Deliberately not here: other units, inline and held data, and tokens (ODX).
"""

from __future__ import annotations

from typing import Final

from bootlink_blockstore.image import Buffer
from bootlink_blockstore.scsi.blocks import cut, disk_of, settle, stable
from bootlink_blockstore.scsi.device import GOOD, LogicalUnit, Nexus, Outcome, Running
from bootlink_wire import scsi_copy as codec
from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_cdb import SECTOR
from bootlink_wire.scsi_copy import Job, Segment
from bootlink_wire.scsi_sense import CheckCondition

PIECE: Final = 1 << 20  # bytes that one copy holds at once
RESULTS_LIMIT: Final = 16  # results kept per nexus, of some bytes each


def copy_size(_unit: LogicalUnit, cdb: bytes) -> int:
    """Bytes of the parameter list."""
    size = int.from_bytes(cdb[10:14], "big")
    if size > codec.PARAMETERS_LIMIT:
        raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
    return size


def piece_size(_unit: LogicalUnit, _cdb: bytes) -> int:
    return PIECE


def extended_copy(unit: LogicalUnit, nexus: Nexus, _cdb: bytes, data: Buffer) -> Running:
    if not data:
        return GOOD
    job = codec.parse(bytes(data))
    for segment in job.segments:
        _check(unit, job, segment)
    return _copy(unit, nexus, job)


def _check(unit: LogicalUnit, job: Job, segment: Segment) -> None:
    """Before anything is copied: whether the segment's ends are this disk, and its blocks are there."""
    for place in (segment.source, segment.destination):
        if place >= len(job.targets) or job.targets[place] not in unit.identity.designators:
            raise CheckCondition(sense.COPY_TARGET_UNREACHABLE)
    if max(segment.source_lba, segment.destination_lba) + segment.sectors > unit.sectors:
        raise CheckCondition(sense.COPY_TARGET_UNREACHABLE)


async def _copy(unit: LogicalUnit, nexus: Nexus, job: Job) -> Outcome:
    disk, done, written = disk_of(unit), 0, 0
    try:
        for segment in job.segments:
            for at in range(0, segment.sectors * SECTOR, PIECE):
                size = min(PIECE, segment.sectors * SECTOR - at)
                reading = disk.read(segment.source_lba * SECTOR + at, size)
                buffers = reading if isinstance(reading, list) else await reading
                target = segment.destination_lba * SECTOR + at
                await settle(disk.write(target, b"".join(buffers), fua=stable(unit, 0)))
                written += size
            done += 1
    finally:
        if job.identifier is not None:
            nexus.copies[job.identifier] = codec.copy_status(
                failed=done < len(job.segments), segments=done, size=written
            )
            while len(nexus.copies) > RESULTS_LIMIT:
                del nexus.copies[next(iter(nexus.copies))]
    return GOOD


def copy_status(_unit: LogicalUnit, nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    """How a copy of this nexus ended. It is forgotten thereby."""
    held = nexus.copies.pop(cdb[2], None)
    if held is None:
        raise CheckCondition(sense.INVALID_FIELD.at(2))
    return cut(held, int.from_bytes(cdb[10:14], "big"))


def operating_parameters(_unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    return cut(codec.operating_parameters(), int.from_bytes(cdb[10:14], "big"))
