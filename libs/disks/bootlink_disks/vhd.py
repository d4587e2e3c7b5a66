"""The structures of a VHD file, bytes in and dataclasses out (and back). No I/O.

Source: Microsoft, "Virtual Hard Disk Image Format Specification", version 1.0 (2006). All numbers are big-endian.

    fixed     disk bytes | footer
    dynamic   footer (a copy) | dynamic header | BAT | block ... block | footer
    differencing  the same, with a parent

- The **footer** (512 bytes, cookie "conectix") says what the disk is: type, size, UUID. Its place is the file's end.
- The **dynamic header** (1024 bytes, cookie "cxsparse") says where the BAT is, how many entries it has and how large a
  block is. A differencing disk also names its parent there: UUID, time stamp, file name, and up to eight **locators**,
  each a platform's way to write the parent's path, kept elsewhere in the file.
- The **BAT** has an entry per block: the sector number of the block in the file, or 0xFFFFFFFF if it has none.
- A **block** is its sector bitmap (a bit per sector, most significant first, padded to a sector) and its data.

The **size** of the disk is the footer's current size, as Hyper-V, Azure and disk2vhd have it. QEMU computes it from the
footer's geometry instead, unless it knows the creator ("qem2", "win ", "d2v ", "tap", "CTXS") or the geometry is the
largest there is. For what qemu-img makes both are the same number, as it rounds the disk up to a geometry. For a disk
made by VirtualBox the geometry is a little less than the size, and a GPT's second header would be lost with the rest.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

from bootlink_disks.errors import DiskError, printable
from bootlink_disks.layer import SECTOR

FOOTER_COOKIE = b"conectix"
HEADER_COOKIE = b"cxsparse"
FOOTER_SIZE = 512
HEADER_SIZE = 1024
VERSION = 0x0001_0000  # of both structures: major 1, minor 0
NO_OFFSET = 0xFFFF_FFFF_FFFF_FFFF  # "no next structure"
NO_BLOCK = 0xFFFF_FFFF  # a BAT entry without a block
NO_PARENT = uuid.UUID(int=0)
EPOCH = 946_684_800  # VHD time 0 (2000-01-01 00:00 UTC) in Unix time

FIXED = 2
DYNAMIC = 3
DIFFERENCING = 4

MAX_SIZE = 2040 << 30
"""Bytes. The specification's limit: past it, 32-bit sector numbers in the BAT no longer reach every block."""

MAX_GEOMETRY = (65535, 16, 255)
"""Cylinders, heads, sectors: the largest that the footer can say, and the sign that the geometry is not the size."""

WINDOWS_ABSOLUTE = b"W2ku"  # UTF-16LE
WINDOWS_RELATIVE = b"W2ru"  # UTF-16LE, relative to the child's folder
MAX_PARENT_NAME = 255  # UTF-16 units: what the header has room for, and a last zero

FEATURE_RESERVED = 2  # footer, "Features": this bit must always be set

_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
_HEADER = struct.Struct(">8sQQIIII16sII512s192s256x")
_LOCATOR = struct.Struct(">4sIIIQ")
_FOOTER_CHECKSUM = slice(64, 68)
_HEADER_CHECKSUM = slice(36, 40)

_CUT = "copy it again from where it came, or restore it from a copy"


@dataclass(frozen=True, slots=True)
class Footer:
    type: int  # FIXED, DYNAMIC or DIFFERENCING
    current_size: int  # bytes
    uuid: uuid.UUID
    data_offset: int = NO_OFFSET  # of the dynamic header
    timestamp: int = 0  # of the last change, in seconds since 2000
    creator_app: bytes = b"btlk"
    creator_version: int = VERSION
    creator_os: bytes = b"Wi2k"  # the specification knows Windows and Macintosh
    original_size: int = 0
    geometry: tuple[int, int, int] = MAX_GEOMETRY
    features: int = FEATURE_RESERVED
    saved_state: int = 0

    @property
    def creator(self) -> str:
        """The creator's four letters, such as "qemu" or "win", fit to be shown."""
        return printable(self.creator_app.decode("latin-1").rstrip(" \0"))

    def __bytes__(self) -> bytes:
        return _sealed(
            _FOOTER.pack(
                FOOTER_COOKIE, self.features, VERSION, self.data_offset, self.timestamp, self.creator_app,
                self.creator_version, self.creator_os, self.original_size or self.current_size, self.current_size,
                *self.geometry, self.type, 0, self.uuid.bytes, self.saved_state,
            ),
            _FOOTER_CHECKSUM,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Locator:
    """Where one way to write the parent's path lies in the file."""

    platform: bytes  # WINDOWS_ABSOLUTE, WINDOWS_RELATIVE, or one of the older ones
    space: int  # bytes set aside. The specification counts sectors, Windows writes bytes: readers take it for either
    length: int  # bytes used
    offset: int  # from the start of the file


@dataclass(frozen=True, slots=True)
class DynamicHeader:
    table_offset: int  # bytes from the start of the file to the BAT
    entries: int  # of the BAT
    block_size: int  # bytes of data per block, the bitmap not counted
    parent_uuid: uuid.UUID = NO_PARENT
    parent_timestamp: int = 0
    parent_name: str = ""
    locators: tuple[Locator, ...] = ()  # written; a reader here has no use for them, as it follows no path

    def __bytes__(self) -> bytes:
        return _sealed(
            _HEADER.pack(
                HEADER_COOKIE, NO_OFFSET, self.table_offset, VERSION, self.entries, self.block_size, 0,
                self.parent_uuid.bytes, self.parent_timestamp, 0, self.parent_name.encode("utf-16-be", "replace"),
                b"".join(_LOCATOR.pack(one.platform, one.space, one.length, 0, one.offset) for one in self.locators),
            ),
            _HEADER_CHECKSUM,
        )  # fmt: skip


def bitmap_size(block_size: int) -> int:
    """Bytes of the sector bitmap before each block: a bit per sector, padded to a sector."""
    return -(-block_size // (SECTOR * 8 * SECTOR)) * SECTOR


def parse_footer(data: bytes) -> Footer:
    """The footer in exactly 512 bytes. DiskError if it is none, is damaged, or describes no disk that can be."""
    if len(data) < FOOTER_SIZE or data[:8] != FOOTER_COOKIE:
        raise DiskError("there is no VHD footer where one belongs", _CUT)
    fields = _FOOTER.unpack(data[:FOOTER_SIZE])
    (_, features, version, data_offset, timestamp, app, app_version, os, original, current) = fields[:10]
    (cylinders, heads, sectors, kind, checksum, unique_id, saved_state) = fields[10:]
    if checksum != _checksum(data[:FOOTER_SIZE], _FOOTER_CHECKSUM):
        raise DiskError("the checksum of the VHD footer is wrong; the file is damaged", _CUT)
    if version >> 16 != VERSION >> 16:
        raise DiskError(f"VHD format version {version >> 16}.{version & 0xFFFF} is unknown", "convert it to VHD 1.0")
    if kind not in (FIXED, DYNAMIC, DIFFERENCING):
        raise DiskError(f"VHD disk type {kind} is unknown", "use a fixed (2) or dynamic (3) VHD")
    if current == 0 or current % SECTOR:
        raise DiskError(f"the VHD says that its disk has {current} bytes, which is no number of sectors", _CUT)
    if current > MAX_SIZE:
        raise DiskError(
            f"the VHD says that its disk has {current} bytes; the format ends at 2040 GiB", "use a smaller disk"
        )
    return Footer(
        kind, current, uuid.UUID(bytes=unique_id), data_offset, timestamp, app, app_version, os, original,
        (cylinders, heads, sectors), features, saved_state,
    )  # fmt: skip


def parse_dynamic_header(data: bytes) -> DynamicHeader:
    """The dynamic header in exactly 1024 bytes. DiskError if it is none or is damaged. Its numbers are not judged."""
    if len(data) < HEADER_SIZE or data[:8] != HEADER_COOKIE:
        raise DiskError("there is no dynamic VHD header where the footer says", _CUT)
    fields = _HEADER.unpack(data[:HEADER_SIZE])
    (_, _, table_offset, version, entries, block_size, checksum, parent, parent_time, _, name, _) = fields
    if checksum != _checksum(data[:HEADER_SIZE], _HEADER_CHECKSUM):
        raise DiskError("the checksum of the dynamic VHD header is wrong; the file is damaged", _CUT)
    if version >> 16 != VERSION >> 16:
        raise DiskError(f"dynamic VHD header version {version >> 16} is unknown", "convert it to VHD 1.0")
    text = name.decode("utf-16-be", "replace").split("\0", 1)[0]
    return DynamicHeader(table_offset, entries, block_size, uuid.UUID(bytes=parent), parent_time, text)


def _checksum(data: bytes, field: slice) -> int:
    """One's complement of the sum of all bytes, those of the checksum itself left out."""
    return ~(sum(data) - sum(data[field])) & 0xFFFF_FFFF


def _sealed(data: bytes, field: slice) -> bytes:
    return data[: field.start] + _checksum(data, field).to_bytes(4, "big") + data[field.stop :]
