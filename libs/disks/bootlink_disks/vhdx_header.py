"""The outermost structures of a VHDX file: identifier, headers, region tables. Bytes in, dataclasses out. No I/O.

Source: Microsoft, [MS-VHDX] v20180912, section 2.2. All numbers are little-endian; GUIDs have their first three fields
so. Structures with a checksum have a CRC-32C over all their bytes, those of the checksum taken as zeros.

    0 KiB     identifier    "vhdxfile", and the program that made the file
    64, 128   header 1, 2   4 KiB each. The one with the higher sequence number counts; the other is the one before it
    192, 256  region table  64 KiB each, and alike. Where the metadata and the BAT are
    1 MiB     log, metadata, BAT and blocks, in any order, each at a multiple of 1 MiB

A **header** says where the log is. Its GUIDs change with each session that writes to the file: the **data write GUID**
whenever the disk's bytes do, which is how a child knows its parent; the **log GUID** is nil when the log is empty, and
else names the entries in the log that must be replayed before anything but headers and identifier is believed.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from typing import Final, NamedTuple

import google_crc32c

from bootlink_disks.blocks import DAMAGED
from bootlink_disks.errors import DiskError, printable

MIB: Final = 1 << 20
IDENTIFIER: Final = b"vhdxfile"
IDENTIFIER_SIZE: Final = 520  # bytes: the signature and 256 UTF-16 units of creator
HEADERS_AT: Final = (64 << 10, 128 << 10)
HEADER_SIZE: Final = 4096
TABLES_AT: Final = (192 << 10, 256 << 10)
TABLE_SIZE: Final = 64 << 10
FIRST_REGION: Final = MIB  # nothing but the structures above lies before it

NIL: Final = uuid.UUID(int=0)
BAT: Final = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA: Final = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")

VERSION: Final = 1
LOG_VERSION: Final = 0
MAX_TABLE_ENTRIES: Final = 2047  # as the specification has it: what fits into 64 KiB
CREATOR_SHOWN: Final = 60  # characters

_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
_TABLE = struct.Struct("<4sIII")
_ENTRY = struct.Struct("<16sQII")


class Region(NamedTuple):
    """A part of the file, in bytes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Header:
    sequence: int
    file_write: uuid.UUID
    data_write: uuid.UUID
    log_guid: uuid.UUID
    log: Region

    def __bytes__(self) -> bytes:
        fields = _HEADER.pack(
            b"head", 0, self.sequence, self.file_write.bytes_le, self.data_write.bytes_le, self.log_guid.bytes_le,
            LOG_VERSION, VERSION, self.log.length, self.log.offset,
        )  # fmt: skip
        return sealed(fields.ljust(HEADER_SIZE, b"\0"))


def parse_creator(data: bytes) -> str:
    """The program that made the file, fit to be shown, from the identifier's first IDENTIFIER_SIZE bytes."""
    if not data.startswith(IDENTIFIER):
        raise DiskError("there is no VHDX identifier at its start", DAMAGED)
    text = data[len(IDENTIFIER) : IDENTIFIER_SIZE].decode("utf-16-le", "replace").split("\0", 1)[0]
    return printable(text)[:CREATOR_SHOWN]


def parse_header(data: bytes) -> Header | None:
    """The header in exactly 4 KiB; None if it is none or is damaged: the other may be whole.

    DiskError if it is whole, and of a version that we do not know.
    """
    if len(data) != HEADER_SIZE or data[:4] != b"head" or not is_sealed(data):
        return None
    _, _, sequence, file_write, data_write, log_guid, log_version, version, log_length, log_at = _HEADER.unpack_from(
        data
    )
    if version != VERSION or log_version != LOG_VERSION:
        raise DiskError(f"VHDX version {version} with log version {log_version} is unknown", "convert it to VHDX 1")
    return Header(sequence, _guid(file_write), _guid(data_write), _guid(log_guid), Region(log_at, log_length))


def current_header(first: bytes, second: bytes) -> tuple[Header, tuple[str, ...]]:
    """The header that counts, and notes. DiskError if none does."""
    one, two = parse_header(first), parse_header(second)
    if one is None and two is None:
        raise DiskError("both its VHDX headers are damaged", DAMAGED)
    if one is None or two is None:
        # As after a crash while it was written: the other is what the file was before, and its log makes it whole.
        header = one or two
        assert header is not None
        return header, ("one of its two headers is damaged; the other is used",)
    if one.sequence == two.sequence and one != two:
        raise DiskError("its two VHDX headers have one sequence number and differ", DAMAGED)
    return (two if two.sequence > one.sequence else one), ()


def parse_regions(first: bytes, second: bytes) -> tuple[dict[uuid.UUID, Region], tuple[str, ...]]:
    """Where BAT and metadata are, by the first region table that is whole, and notes. DiskError if none is."""
    tables = [data for data in (first, second) if _is_table(data)]
    if not tables:
        raise DiskError("both its VHDX region tables are damaged", DAMAGED)
    notes = () if len(tables) == 2 else ("one of its two region tables is damaged; the other is used",)
    count = _TABLE.unpack_from(tables[0])[2]
    if count > MAX_TABLE_ENTRIES:
        raise DiskError(f"its region table claims {count} entries; the limit is {MAX_TABLE_ENTRIES}", DAMAGED)
    regions: dict[uuid.UUID, Region] = {}
    for at in range(_TABLE.size, _TABLE.size + count * _ENTRY.size, _ENTRY.size):
        guid_, offset, length, required = _ENTRY.unpack_from(tables[0], at)
        guid = _guid(guid_)
        if guid in regions:
            raise DiskError(f"its region table names the region {guid} twice", DAMAGED)
        regions[guid] = require_place(f"the region {guid}", Region(offset, length))
        if required & 1 and guid not in (BAT, METADATA):
            raise DiskError(f"it needs the region {guid}, which is unknown", "convert it to another VHDX or a VHD")
    for guid, name in ((BAT, "block table (BAT)"), (METADATA, "metadata")):
        if guid not in regions:
            raise DiskError(f"its region table names no {name}", DAMAGED)
    return regions, notes


def region_table(regions: dict[uuid.UUID, Region]) -> bytes:
    """A region table of required regions."""
    entries = b"".join(_ENTRY.pack(guid.bytes_le, offset, length, 1) for guid, (offset, length) in regions.items())
    return sealed((_TABLE.pack(b"regi", 0, len(regions), 0) + entries).ljust(TABLE_SIZE, b"\0"))


def require_place(what: str, region: Region) -> Region:
    """DiskError unless a region begins and ends at whole MiB behind the headers. It may still lie past the file."""
    if region.offset % MIB or region.length % MIB or region.offset < FIRST_REGION or not region.length:
        raise DiskError(f"{what} has {region.length} bytes at {region.offset}, which is no place in a VHDX", DAMAGED)
    return region


def is_sealed(data: bytes) -> bool:
    """True if the CRC-32C at byte 4 is right for all of `data`."""
    return int.from_bytes(data[4:8], "little") == _checksum(data)


def sealed(data: bytes) -> bytes:
    """`data` with its CRC-32C at byte 4."""
    return data[:4] + _checksum(data).to_bytes(4, "little") + data[8:]


def _checksum(data: bytes) -> int:
    found: int = google_crc32c.extend(google_crc32c.value(data[:4] + bytes(4)), data[8:])
    return found


def _is_table(data: bytes) -> bool:
    return len(data) == TABLE_SIZE and data[:4] == b"regi" and is_sealed(data)


def _guid(data: bytes) -> uuid.UUID:
    return uuid.UUID(bytes_le=data)
