"""SCSI command descriptor blocks: operation codes, and the fields of those that address blocks (SBC-3, SPC-4).

The commands that read, write or check a range of blocks come in 6, 10, 12 and 16 byte forms that differ only in where
the fields stand. `BLOCK_FORMS` says where, by operation code; `blocks` reads any of them.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

SECTOR: Final = 512  # bytes per logical block; BIOS boots from no other size


class Op(IntEnum):
    """Operation codes."""

    TEST_UNIT_READY = 0x00
    REQUEST_SENSE = 0x03
    READ_6 = 0x08
    WRITE_6 = 0x0A
    INQUIRY = 0x12
    MODE_SELECT_6 = 0x15
    RESERVE_6 = 0x16
    RELEASE_6 = 0x17
    MODE_SENSE_6 = 0x1A
    START_STOP_UNIT = 0x1B
    PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1E
    READ_CAPACITY_10 = 0x25
    READ_10 = 0x28
    WRITE_10 = 0x2A
    WRITE_AND_VERIFY_10 = 0x2E
    VERIFY_10 = 0x2F
    PREFETCH_10 = 0x34
    SYNCHRONIZE_CACHE_10 = 0x35
    READ_DEFECT_DATA_10 = 0x37
    WRITE_SAME_10 = 0x41
    UNMAP = 0x42
    LOG_SENSE = 0x4D
    MODE_SELECT_10 = 0x55
    MODE_SENSE_10 = 0x5A
    PERSISTENT_RESERVE_IN = 0x5E
    PERSISTENT_RESERVE_OUT = 0x5F
    EXTENDED_COPY = 0x83
    RECEIVE_COPY_RESULTS = 0x84
    READ_16 = 0x88
    COMPARE_AND_WRITE = 0x89
    WRITE_16 = 0x8A
    ORWRITE_16 = 0x8B
    WRITE_AND_VERIFY_16 = 0x8E
    VERIFY_16 = 0x8F
    PREFETCH_16 = 0x90
    SYNCHRONIZE_CACHE_16 = 0x91
    WRITE_SAME_16 = 0x93
    WRITE_ATOMIC_16 = 0x9C
    SERVICE_ACTION_IN_16 = 0x9E
    REPORT_LUNS = 0xA0
    MAINTENANCE_IN = 0xA3
    READ_12 = 0xA8
    WRITE_12 = 0xAA
    WRITE_AND_VERIFY_12 = 0xAE
    VERIFY_12 = 0xAF
    READ_DEFECT_DATA_12 = 0xB7


# Service actions, each of the operation code named.
READ_CAPACITY_16: Final = 0x10  # SERVICE ACTION IN(16)
GET_LBA_STATUS: Final = 0x12
REPORT_SUPPORTED_OPCODES: Final = 0x0C  # MAINTENANCE IN
REPORT_SUPPORTED_FUNCTIONS: Final = 0x0D
ACTION_OPCODES: Final = frozenset(  # whose meaning byte 1 completes
    (
        *(Op.PERSISTENT_RESERVE_IN, Op.PERSISTENT_RESERVE_OUT),
        *(Op.EXTENDED_COPY, Op.RECEIVE_COPY_RESULTS, Op.SERVICE_ACTION_IN_16, Op.MAINTENANCE_IN),
    )
)


def code(cdb: bytes) -> int:
    """What a CDB asks for: operation code << 8 | service action, where it has one."""
    return cdb[0] << 8 | (cdb[1] & 0x1F if cdb[0] in ACTION_OPCODES else 0)


_GROUP_LENGTH: Final = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}


def length(opcode: int) -> int:
    """Bytes of a CDB with this operation code (SPC-4, table 30); 16 for the groups that have no fixed length."""
    return _GROUP_LENGTH.get(opcode >> 5, 16)


class Blocks(NamedTuple):
    """A range of blocks that a CDB names, and byte 1's flags (protection, DPO, FUA, BYTCHK and the like)."""

    lba: int
    sectors: int
    flags: int


_FORM_6: Final = Struct(">xBHB")
_FORM_10: Final = Struct(">xBIxH")
_FORM_12: Final = Struct(">xBII")
_FORM_16: Final = Struct(">xBQI")

DPO: Final = 0x10  # disable page out: a hint
FUA: Final = 0x08  # force unit access
PROTECT: Final = 0xE0  # RDPROTECT, WRPROTECT, VRPROTECT
BYTE_CHECK: Final = 0x06  # VERIFY, WRITE AND VERIFY
IMMEDIATE: Final = 0x02  # PRE-FETCH, SYNCHRONIZE CACHE
ANCHOR: Final = 0x10  # WRITE SAME; bit 0 in UNMAP
UNMAP: Final = 0x08  # WRITE SAME
NO_DATA: Final = 0x01  # WRITE SAME(16): NDOB


def blocks(cdb: bytes) -> Blocks:
    """The range of a READ, WRITE, VERIFY, SYNCHRONIZE CACHE or the like, of any length."""
    group = cdb[0] >> 5
    if group == 0:
        # 21 bits of address, and a count of 0 means 256 (SBC-3, section 5.7).
        high, low, count = _FORM_6.unpack_from(cdb)
        return Blocks((high & 0x1F) << 16 | low, count or 256, 0)
    if group == 4:
        flags, lba, count = _FORM_16.unpack_from(cdb)
    elif group == 5:
        flags, lba, count = _FORM_12.unpack_from(cdb)
    else:
        flags, lba, count = _FORM_10.unpack_from(cdb)
    return Blocks(lba, count, flags)


def compare_and_write(cdb: bytes) -> Blocks:
    """The range of a COMPARE AND WRITE, whose count has one byte (SBC-3, section 5.2)."""
    return blocks(cdb)._replace(sectors=cdb[13])


def write_atomic(cdb: bytes) -> tuple[Blocks, int]:
    """The range of a WRITE ATOMIC(16), and its atomic boundary (SBC-4, section 5.48)."""
    count = int.from_bytes(cdb[12:14], "big")
    return blocks(cdb)._replace(sectors=count), int.from_bytes(cdb[10:12], "big")


def lun(field: int) -> int:
    """The number of a logical unit from the 64-bit field that names it (SAM-5, section 4.7). -1: none we could have."""
    if field & 0x0000FFFFFFFFFFFF:
        return -1  # a second level of addressing
    method, number = field >> 62, field >> 48 & 0x3FFF
    if method == 0:
        return number if number < 256 else -1  # peripheral device addressing on bus 0
    return number if method == 1 else -1  # flat space addressing


def lun_field(number: int) -> int:
    """The 64-bit field for logical unit `number` (0 to 255)."""
    return number << 48
