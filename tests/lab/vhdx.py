"""VHDX files written down from the specification ([MS-VHDX]), for parsers to be tried on.

A file is a list of parts: `Vhdx` has a field for each that a test may want otherwise, and `bytes()` puts them together.

    0  identifier, headers, region tables | 1 MiB log | 2 MiB metadata | 3 MiB BAT | blocks from 4 MiB on
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from bootlink_disks import vhdx_header, vhdx_metadata
from bootlink_disks.vhdx_header import BAT, METADATA, MIB, NIL, Header, Region, region_table, sealed

DATA_WRITE = uuid.UUID("4f1b9e52-6a0d-4b57-9c53-1d7c1f0a8e11")
LOG = uuid.UUID("0a6c7f52-93e1-4d0b-8a51-2b7e5d1c9f22")
BLOCKS_AT = 4  # MiB
RATIO = 4096  # blocks of 1 MiB per chunk
PAGE = 4096

FULL, PART, ZERO, UNMAPPED, UNDEFINED = 6, 7, 2, 3, 1


def locator(parent: uuid.UUID, name: str = "parent.vhdx", **more: str) -> bytes:
    """A parent locator."""
    pairs = {"parent_linkage": f"{{{parent}}}", "relative_path": f".\\{name}", **more}
    head = vhdx_metadata.LOCATOR_TYPE.bytes_le + struct.pack("<HH", 0, len(pairs))
    at, table, strings = 20 + 12 * len(pairs), b"", b""
    for key, value in pairs.items():
        k, v = key.encode("utf-16-le"), value.encode("utf-16-le")
        table += struct.pack("<IIHH", at, at + len(k), len(k), len(v))
        strings += k + v
        at += len(k) + len(v)
    return head + table + strings


@dataclass
class Vhdx:
    """A VHDX of blocks of 1 MiB."""

    size: int = 4 * MIB
    blocks: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # number: state, data (of FULL and PART)
    parent: bytes | None = None  # a locator
    bits: dict[int, int] = field(default_factory=dict)  # block: its sectors' bits, the first one the lowest
    data_write: uuid.UUID = DATA_WRITE
    sector: int = 512
    block_size: int = MIB
    items: dict[uuid.UUID, bytes] = field(default_factory=dict)  # metadata beside or instead of the usual
    log: bytes = b""
    log_guid: uuid.UUID = NIL

    def metadata(self) -> bytes:
        flags = vhdx_metadata.HAS_PARENT if self.parent is not None else 0
        items = {
            vhdx_metadata.FILE_PARAMETERS: struct.pack("<II", self.block_size, flags),
            vhdx_metadata.VIRTUAL_SIZE: struct.pack("<Q", self.size),
            vhdx_metadata.DISK_ID: DATA_WRITE.bytes_le,
            vhdx_metadata.LOGICAL_SECTOR: struct.pack("<I", self.sector),
            vhdx_metadata.PHYSICAL_SECTOR: struct.pack("<I", 4096),
        }
        if self.parent is not None:
            items[vhdx_metadata.PARENT_LOCATOR] = self.parent
        items |= self.items
        table, data = struct.pack("<8sHH20x", b"metadata", 0, len(items)), b""
        for guid, item in items.items():
            table += struct.pack("<16sIIII", guid.bytes_le, (64 << 10) + len(data), len(item), 4, 0)
            data += item
        return (table.ljust(64 << 10, b"\0") + data).ljust(MIB, b"\0")

    def __bytes__(self) -> bytes:
        total = -(-self.size // MIB)
        count = -(-total // RATIO) * (RATIO + 1)
        bat = [0] * count
        at, body = BLOCKS_AT, bytearray()
        for number, (state, data) in self.blocks.items():
            place = 0
            if state in (FULL, PART):
                place, at = at, at + 1
                body += data.ljust(MIB, b"\0")
            bat[number + number // RATIO] = place << 20 | state
        for chunk in sorted({number // RATIO for number in self.bits}):
            bat[chunk * (RATIO + 1) + RATIO] = at << 20 | FULL
            at += 1
            bitmap = bytearray(MIB)
            for number, bits in self.bits.items():
                if number // RATIO == chunk:
                    start = number % RATIO * 256
                    bitmap[start : start + 256] = bits.to_bytes(256, "little")
            body += bitmap
        regions = {BAT: Region(3 * MIB, MIB), METADATA: Region(2 * MIB, MIB)}
        header = Header(1, DATA_WRITE, self.data_write, self.log_guid, Region(MIB, MIB))
        parts = {
            0: vhdx_header.IDENTIFIER + "bootlink test".encode("utf-16-le"),
            64 << 10: bytes(header),
            128 << 10: bytes(replace(header, sequence=2)),
            192 << 10: region_table(regions),
            256 << 10: region_table(regions),
            MIB: self.log,
            2 * MIB: self.metadata(),
            3 * MIB: struct.pack(f"<{count}Q", *bat),
        }
        file = bytearray(BLOCKS_AT * MIB)
        for offset, data in parts.items():
            file[offset : offset + len(data)] = data
        return bytes(file + body)


def log_entry(
    sequence: int,
    pages: Iterable[tuple[int, bytes]] = (),
    zeros: Iterable[tuple[int, int]] = (),
    *,
    tail: int = 0,
    guid: uuid.UUID = LOG,
    flushed: int = 0,
    last: int = 0,
) -> bytes:
    """A log entry: pages of 4 KiB for offsets in the file, and (offset, length) of zeros."""
    descriptors, data = b"", b""
    for offset, page in pages:
        descriptors += struct.pack("<4s4s8sQQ", b"desc", page[-4:], page[:8], offset, sequence)
        data += struct.pack("<4sI4084sI", b"data", sequence >> 32, page[8:-4], sequence & 0xFFFF_FFFF)
    for offset, length in zeros:
        descriptors += struct.pack("<4sIQQQ", b"zero", 0, length, offset, sequence)
    count = len(descriptors) // 32
    head = -(-(64 + len(descriptors)) // PAGE) * PAGE
    fields = struct.pack(
        "<4sIIIQII16sQQ", b"loge", 0, head + len(data), tail, sequence, count, 0, guid.bytes_le, flushed, last
    )
    return sealed((fields + descriptors).ljust(head, b"\0") + data)
