"""Partition tables: where the partitions of a disk are, by its GPT or its MBR. Bytes in, no I/O of its own.

Sources: UEFI 2.10, section 5 (GPT, protective MBR); the MBR and its extended partitions as every BIOS has them.

How it works. A GPT counts if the checksums of its header and of its entries are right, at the disk's start or else at
its end. Without one, the MBR's four entries count, and the logical partitions in a chain of further tables that an
extended one begins. A disk whose first sector is a file system's has no table: it is one partition.

A partition that reaches past the disk's end, or over another, makes the table one that is not believed (DiskError).
"""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from typing import Final, NamedTuple

from bootlink_disks.errors import DiskError
from bootlink_disks.layer import SECTOR, Pread
from bootlink_disks.raw import BOOT_SIGNATURE, BOOT_SIGNATURE_OFFSET, GPT_SIGNATURE

MAX_ENTRIES: Final = 1024  # of a GPT; everybody writes 128
MAX_ENTRY_SIZE: Final = 1024  # bytes; everybody writes 128
MAX_LOGICAL: Final = 128  # partitions in an extended one; Linux ends at 60 and Windows at 26 letters

_GPT: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY: Final = struct.Struct("<16s16sQQ")
_MBR_ENTRY: Final = struct.Struct("<B3sB3sII")
_MBR_ENTRIES_AT: Final = 446
_EXTENDED: Final = frozenset({0x05, 0x0F, 0x85})
_PROTECTIVE: Final = 0xEE
_NTFS: Final = b"NTFS    "  # at byte 3 of a boot sector
_CUT: Final = "the file is cut short or its table is damaged; copy it again from where it came"


class Partition(NamedTuple):
    """A part of the disk, in bytes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def partitions(read: Pread, size: int) -> list[Partition]:
    """The partitions of a disk of `size` bytes, in disk order; the whole disk, if there is no table. DiskError."""
    found = _gpt(read, size)
    if found is None:
        found = _mbr(read)
    if not found:
        return [Partition(0, size)]
    found.sort()
    for one, other in pairwise(found):
        if one.end > other.offset:
            raise DiskError(
                f"its partitions at byte {one.offset} and {other.offset} lie over each other", "repair the table"
            )
    if found[-1].end > size:
        raise DiskError(f"its partition at byte {found[-1].offset} reaches past the end of the disk", _CUT)
    return found


def _gpt(read: Pread, size: int) -> list[Partition] | None:
    """By the first GPT that is whole; None if there is none, and none is announced."""
    first = read(SECTOR, SECTOR)
    announced = first.startswith(GPT_SIGNATURE)
    for header in (first, read(size - SECTOR, SECTOR) if announced and size > SECTOR else b""):
        found = _entries(read, header)
        if found is not None:
            last = max(struct.unpack_from("<QQ", header, 24))  # this header, and the other one: one is the disk's end
            if (last + 1) * SECTOR > size:
                raise DiskError(f"its partition table is for a disk of {(last + 1) * SECTOR} bytes", _CUT)
            return found
    if announced:
        raise DiskError("both its partition tables (GPT) are damaged", _CUT)
    return None


def _entries(read: Pread, header: bytes) -> list[Partition] | None:
    if not header.startswith(GPT_SIGNATURE) or len(header) < SECTOR:
        return None
    _, _, length, checksum, _, _, _, _, _, _, at, count, each, entries_checksum = _GPT.unpack_from(header)
    if not _GPT.size <= length <= SECTOR or not 128 <= each <= MAX_ENTRY_SIZE or not 0 < count <= MAX_ENTRIES:
        return None
    if zlib.crc32(header[:16] + bytes(4) + header[20:length]) != checksum or at >= 1 << 54:
        return None
    entries = read(at * SECTOR, count * each)
    if len(entries) != count * each or zlib.crc32(entries) != entries_checksum:
        return None
    found = []
    for start in range(0, count * each, each):
        kind, _, first, last = _ENTRY.unpack_from(entries, start)
        if any(kind) and first <= last:
            found.append(Partition(first * SECTOR, (last + 1 - first) * SECTOR))
    return found


def _mbr(read: Pread) -> list[Partition]:
    table = _table(read(0, SECTOR))
    found = []
    for kind, start, count in table:
        if kind in _EXTENDED:
            found.extend(_logical(read, start))
        elif kind != _PROTECTIVE:
            found.append(Partition(start * SECTOR, count * SECTOR))
    return found


def _logical(read: Pread, extended: int) -> list[Partition]:
    """The partitions of an extended one that begins at sector `extended`: each has a table, which names the next."""
    found = []
    at = extended
    for _ in range(MAX_LOGICAL):
        following = None
        for kind, start, count in _table(read(at * SECTOR, SECTOR)):
            if kind in _EXTENDED:
                following = extended + start
            else:
                found.append(Partition((at + start) * SECTOR, count * SECTOR))
        if following is None or following <= at:  # ascending, so that it ends
            return found
        at = following
    raise DiskError(f"it has more than {MAX_LOGICAL} logical partitions", "repair the table")


def _table(sector: bytes) -> list[tuple[int, int, int]]:
    """(type, first sector, sectors) of a table's entries that are used. None where the sector has no table."""
    if sector[BOOT_SIGNATURE_OFFSET:] != BOOT_SIGNATURE or sector[3:11] == _NTFS:
        return []
    entries = (_MBR_ENTRY.unpack_from(sector, _MBR_ENTRIES_AT + 16 * number) for number in range(4))
    used = [(kind, start, count) for active, _, kind, _, start, count in entries if kind and start and count]
    # A boot sector without a table has code there, or text: then the first byte of an entry is neither 0 nor 0x80.
    actives = sector[_MBR_ENTRIES_AT : _MBR_ENTRIES_AT + 64 : 16]
    return used if all(active in (0, 0x80) for active in actives) else []
