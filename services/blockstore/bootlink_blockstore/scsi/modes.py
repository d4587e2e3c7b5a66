"""MODE SENSE and MODE SELECT, in both lengths.

The pages belong to the unit: what one initiator changes holds for all, and the others are told by a unit attention.
Turning the write cache off makes stable first what was written so far, and what is on its way: that was taken under a
cache, and is answered when there is none.
"""

from __future__ import annotations

from typing import Final

from bootlink_blockstore.image import Buffer
from bootlink_blockstore.scsi.blocks import after, cut, disk_of
from bootlink_blockstore.scsi.device import GOOD, LogicalUnit, Nexus, Running
from bootlink_wire import scsi_modes as codec
from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_cdb import Op
from bootlink_wire.scsi_sense import CheckCondition

NO_DESCRIPTOR: Final = 0x08  # DBD
LONG_LBA: Final = 0x10  # LLBAA
PAGE_FORMAT: Final = 0x10  # PF
SAVE: Final = 0x01  # SP
PARAMETERS_LIMIT: Final = 1_024  # bytes of a MODE SELECT: all our pages and a descriptor are 60


def _pages(unit: LogicalUnit, cdb: bytes) -> bytes:
    control = cdb[2] >> 6
    if control == codec.SAVED:
        raise CheckCondition(sense.SAVING_NOT_SUPPORTED)
    pages = unit.modes.pages(cdb[2] & 0x3F, control) if cdb[3] in (0, 0xFF) else None
    if pages is None:
        raise CheckCondition(sense.INVALID_FIELD.at(2 if cdb[3] in (0, 0xFF) else 3))
    return pages


def sense_6(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    parameters = unit.modes.sense_6(_pages(unit, cdb), unit.sectors, descriptor=not cdb[1] & NO_DESCRIPTOR)
    return cut(parameters, cdb[4])


def sense_10(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    descriptor, long_lba = not cdb[1] & NO_DESCRIPTOR, bool(cdb[1] & LONG_LBA)
    parameters = unit.modes.sense_10(_pages(unit, cdb), unit.sectors, descriptor=descriptor, long_lba=long_lba)
    return cut(parameters, int.from_bytes(cdb[7:9], "big"))


def select_size(_unit: LogicalUnit, cdb: bytes) -> int:
    """Bytes of a MODE SELECT's parameter list."""
    if not cdb[1] & PAGE_FORMAT or cdb[1] & SAVE:
        raise CheckCondition(sense.INVALID_FIELD.at(1))
    size = cdb[4] if cdb[0] == Op.MODE_SELECT_6 else int.from_bytes(cdb[7:9], "big")
    if size > PARAMETERS_LIMIT:
        raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
    return size


def select(unit: LogicalUnit, nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
    former = unit.modes
    unit.modes = former.select(bytes(data), unit.sectors, long_header=cdb[0] == Op.MODE_SELECT_10)
    if unit.modes == former:
        return GOOD
    unit.attend(sense.MODE_PARAMETERS_CHANGED, but=nexus)
    uncached = former.write_cache and not unit.modes.write_cache
    return after(disk_of(unit).flush(queued=True)) if uncached else GOOD
