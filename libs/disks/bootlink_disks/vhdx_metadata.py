"""The metadata of a VHDX file: what the disk is. Bytes in, a dataclass out. No I/O.

Source: [MS-VHDX] v20180912, section 2.6. The region begins with a table of 64 KiB:

    table   "metadata", number of entries; then 32 bytes for each: GUID, offset in the region, length, flags
    items   from 64 KiB on

Items that are known: file parameters (block size, whether there is a parent), size of the disk, its sectors, the disk's
own GUID, and the **parent locator** of a differencing disk: pairs of UTF-16LE strings, of which `parent_linkage` (and,
after a merge, `parent_linkage2`) is the parent's data write GUID, and the others are paths. An item that is flagged as
required and not known makes the file one that cannot be read.

**Sectors of 4096 bytes are refused.** It is only a number, and the bytes could be served under 512; but the partition
table of such a disk counts in 4096, so a client would find no partition where its table says, and BIOS boots from no
such disk in any case.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bootlink_disks.blocks import DAMAGED
from bootlink_disks.errors import DiskError, printable
from bootlink_disks.layer import SECTOR, ParentReference
from bootlink_disks.vhdx_header import MIB

TABLE_SIZE: Final = 64 << 10
SIGNATURE: Final = b"metadata"
MAX_ENTRIES: Final = 2047  # as the specification has it: what fits into 64 KiB

FILE_PARAMETERS: Final = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
VIRTUAL_SIZE: Final = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
DISK_ID: Final = uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
LOGICAL_SECTOR: Final = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL_SECTOR: Final = uuid.UUID("cda348c7-445d-4471-9cc9-e9885251c556")
PARENT_LOCATOR: Final = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
LOCATOR_TYPE: Final = uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")

PHYSICAL: Final = 4096  # bytes of a physical sector in what is written here, so that clients write whole pages

MIN_BLOCK_SIZE: Final = MIB
MAX_BLOCK_SIZE: Final = 256 * MIB
MAX_SIZE: Final = 64 << 40  # bytes of a disk

MAX_LOCATOR: Final = 64 << 10
"""Bytes. The specification lets an item have 1 MiB; what Hyper-V writes has under 1 KiB, and paths end at 64 KiB."""

MAX_LOCATOR_ENTRIES: Final = 16
"""The specification knows five keys."""

LINKAGES: Final = ("parent_linkage", "parent_linkage2")
PATHS: Final = ("absolute_win32_path", "relative_path", "volume_path")  # in the order in which one is shown

HAS_PARENT: Final = 2  # file parameters, flags
REQUIRED: Final = 4  # of an item's flags
OF_THE_DISK: Final = 2  # of an item's flags: it speaks of the disk, and not of the file

_HEADER = struct.Struct("<8sHH20x")
_ENTRY = struct.Struct("<16sIIIxxxx")
_LOCATOR = struct.Struct("<16sHH")
_PAIR = struct.Struct("<IIHH")

_SIZES: Final = {FILE_PARAMETERS: 8, VIRTUAL_SIZE: 8, DISK_ID: 16, LOGICAL_SECTOR: 4, PHYSICAL_SECTOR: 4}
_CONVERT: Final = "convert it: qemu-img convert -O vhdx FILE NEW.vhdx"

ReadItem = Callable[[int, int], bytes]
"""(offset in the region, length) -> bytes of the metadata region, fewer only at its end."""


@dataclass(frozen=True, slots=True)
class Metadata:
    size: int  # of the disk, in bytes
    block_size: int  # bytes
    parent: ParentReference | None  # None: the disk is fixed or dynamic


def parse(read: ReadItem, region_length: int) -> Metadata:
    """The metadata of a disk that can be served. DiskError if it is damaged, or no such disk."""
    items = _items(read, region_length)
    block_size, flags = struct.unpack("<II", items[FILE_PARAMETERS])
    size = int.from_bytes(items[VIRTUAL_SIZE], "little")
    sector = int.from_bytes(items[LOGICAL_SECTOR], "little")
    if sector == 4096:
        raise DiskError(
            "the VHDX is a disk of 4096-byte sectors, and clients see 512-byte sectors",
            "make the image from a disk with 512-byte sectors (New-VHD -LogicalSectorSizeBytes 512)",
        )
    if sector != SECTOR:
        raise DiskError(f"the VHDX says that its disk has sectors of {sector} bytes", DAMAGED)
    if block_size & (block_size - 1) or not MIN_BLOCK_SIZE <= block_size <= MAX_BLOCK_SIZE:
        raise DiskError(f"its block size is {block_size} bytes, which no VHDX has", _CONVERT)
    if size == 0 or size % SECTOR or size > MAX_SIZE:
        raise DiskError(f"the VHDX says that its disk has {size} bytes, which no VHDX has", DAMAGED)
    parent = None
    if flags & HAS_PARENT:
        if PARENT_LOCATOR not in items:
            raise DiskError("it is a differencing VHDX, and names no parent", DAMAGED)
        parent = parse_locator(items[PARENT_LOCATOR])
    return Metadata(size, block_size, parent)


def _items(read: ReadItem, region_length: int) -> dict[uuid.UUID, bytes]:
    """The items that are known, each of its right size. DiskError if one is missing, or one is needed and unknown."""
    table = read(0, TABLE_SIZE)
    if len(table) != TABLE_SIZE or table[:8] != SIGNATURE:
        raise DiskError("there is no VHDX metadata where the region table says", DAMAGED)
    count = _HEADER.unpack_from(table)[2]
    if count > MAX_ENTRIES:
        raise DiskError(f"its metadata claims {count} entries; the limit is {MAX_ENTRIES}", DAMAGED)
    items: dict[uuid.UUID, bytes] = {}
    for at in range(_HEADER.size, _HEADER.size + count * _ENTRY.size, _ENTRY.size):
        guid_, offset, length, flags = _ENTRY.unpack_from(table, at)
        guid = uuid.UUID(bytes_le=guid_)
        if guid not in _SIZES and guid != PARENT_LOCATOR:
            if flags & REQUIRED:
                raise DiskError(f"it needs the metadata {guid}, which is unknown", _CONVERT)
            continue
        if guid in items:
            raise DiskError(f"its metadata has the item {guid} twice", DAMAGED)
        right = length <= MAX_LOCATOR if guid == PARENT_LOCATOR else length == _SIZES[guid]
        if not right or offset < TABLE_SIZE or offset + length > region_length:
            raise DiskError(f"its metadata has {length} bytes at {offset} for the item {guid}", DAMAGED)
        items[guid] = read(offset, length)
        if len(items[guid]) != length:
            raise DiskError("its metadata lies past the end of the file", DAMAGED)
    for guid in (FILE_PARAMETERS, VIRTUAL_SIZE, LOGICAL_SECTOR):
        if guid not in items:
            raise DiskError(f"its metadata has no item {guid}", DAMAGED)
    return items


def encode(size: int, block_size: int, disk_id: uuid.UUID) -> bytes:
    """The metadata of a whole disk of 512-byte sectors, from the region's start on."""
    table, data = _HEADER.pack(SIGNATURE, 0, len(_SIZES)), b""
    for guid, item, flags in (
        (FILE_PARAMETERS, struct.pack("<II", block_size, 0), REQUIRED),
        (VIRTUAL_SIZE, struct.pack("<Q", size), REQUIRED | OF_THE_DISK),
        (DISK_ID, disk_id.bytes_le, REQUIRED | OF_THE_DISK),
        (LOGICAL_SECTOR, struct.pack("<I", SECTOR), REQUIRED | OF_THE_DISK),
        (PHYSICAL_SECTOR, struct.pack("<I", PHYSICAL), REQUIRED | OF_THE_DISK),
    ):
        table += _ENTRY.pack(guid.bytes_le, TABLE_SIZE + len(data), len(item), flags)
        data += item
    return table.ljust(TABLE_SIZE, b"\0") + data


def parse_locator(data: bytes) -> ParentReference:
    """What a parent locator says. DiskError if it is damaged or names no data write GUID."""
    if len(data) < _LOCATOR.size:
        raise DiskError("its parent locator is cut short", DAMAGED)
    kind, _, count = _LOCATOR.unpack_from(data)
    if kind != LOCATOR_TYPE.bytes_le:
        raise DiskError(f"its parent locator is of the unknown type {uuid.UUID(bytes_le=kind)}", _CONVERT)
    if count > MAX_LOCATOR_ENTRIES or _LOCATOR.size + count * _PAIR.size > len(data):
        raise DiskError(f"its parent locator claims {count} entries", DAMAGED)
    said: dict[str, str] = {}
    for at in range(_LOCATOR.size, _LOCATOR.size + count * _PAIR.size, _PAIR.size):
        key_at, value_at, key_length, value_length = _PAIR.unpack_from(data, at)
        if key_at + key_length > len(data) or value_at + value_length > len(data):
            raise DiskError("its parent locator names bytes past its end", DAMAGED)
        key = data[key_at : key_at + key_length].decode("utf-16-le", "replace")
        said[key] = data[value_at : value_at + value_length].decode("utf-16-le", "replace")
    try:
        ids = tuple(uuid.UUID(said[key]) for key in LINKAGES if key in said)
    except ValueError:
        raise DiskError("its parent locator names the parent by no GUID", DAMAGED) from None
    if not ids:
        raise DiskError("its parent locator names no parent", DAMAGED)
    return ParentReference(ids, printable(next((said[key] for key in PATHS if said.get(key)), "")))
