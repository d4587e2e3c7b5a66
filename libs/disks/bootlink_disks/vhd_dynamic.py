"""Dynamic VHD: a table of blocks, each in the file or not. Structures and terms: see `vhd`.

How it works. `read_tables` reads the footer, the dynamic header and the BAT, and proves before anything is served that
every block which the BAT names lies inside the file, overlaps no other block and no metadata. The map then is the BAT
itself (`blocks.BlockMap`), four bytes per block, kept whole in memory.

**The footer.** A dynamic VHD has two: the copy at 0 and the one at the end. The copy is required, as it is what QEMU,
libvhdi and others read. The one at the end may be missing or damaged: QEMU (and others that grow a file) overwrite it
with a new block's bitmap before they write the next, so a writer that was killed leaves such a file. It is readable,
and a note says so. Where both are whole they must agree on what the disk is.

**The sector bitmap is not read.** The specification says of dynamic disks that sectors whose bit is 0 were never
written and "must contain 512 bytes of zero on disk", so a reader may skip them but need not: both read the same bytes.
We need not: it costs no second read on a cache miss, agrees with QEMU byte for byte, and is kind to files whose writer
forgot the bits. `check` reports blocks that break the rule, as readers which honour the bitmap (VirtualBox, libvhdi)
see other bytes there. (In differencing disks the bit tells child from parent and is read: `vhd_differencing`.)

Deliberately not here: writing, the batmap and other private extensions.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bootlink_disks import vhd
from bootlink_disks.blocks import DAMAGED, MAX_BLOCKS, BlockMap, prove_apart
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import SECTOR, Kind, Pread, Structure

MIN_BLOCK_SIZE = 4096
"""Bytes. Everyone writes 512 KiB or 2 MiB; below a page a block would cost more than it holds."""

MAX_BLOCK_SIZE = 256 << 20
"""Bytes. Far past what anyone writes, and still less than a small disk."""

_CHECK_CHUNK = 1 << 20  # bytes that `check_bitmaps` holds at a time


@dataclass(frozen=True, slots=True)
class Tables:
    """What a dynamic or differencing VHD says of itself, with every place that it names proved."""

    footer: vhd.Footer
    header: vhd.DynamicHeader
    places: array[int]  # the BAT: the sector of each of the disk's blocks, or blocks.NOWHERE, which is VHD's number too
    used: int  # blocks that are in the file
    notes: tuple[str, ...]

    def map(self, missing: Kind, partial: Mapping[int, bytes] | None = None) -> BlockMap:
        block_size = self.header.block_size
        return BlockMap(
            self.footer.current_size,
            block_size,
            self.places,
            unit=SECTOR,
            lead=vhd.bitmap_size(block_size),
            missing=missing,
            partial=partial,
        )


def parse(pread: Pread, file_size: int) -> Structure:
    """The structure of a dynamic VHD of `file_size` bytes. DiskError if it is none, or none that can be served.

    Memory: the BAT (at most 4 MiB), and while it is checked a list of its used entries.
    """
    tables = read_tables(pread, file_size)
    footer, header = tables.footer, tables.header
    if footer.type != vhd.DYNAMIC:
        raise DiskError("the VHD is a differencing one, and was dynamic when it was added", "add the image anew")
    return Structure(
        "vhd-dynamic",
        tables.map(Kind.ZERO),
        stored=min(tables.used * header.block_size, footer.current_size),
        block_size=header.block_size,
        uuid=footer.uuid,
        timestamp=footer.timestamp,
        creator=footer.creator,
        notes=tables.notes,
    )


def read_tables(pread: Pread, file_size: int) -> Tables:
    """Footer, header and BAT of a dynamic or differencing VHD. DiskError if they are not sound."""
    footer, end, notes = _footers(pread, file_size)
    if footer.data_offset + vhd.HEADER_SIZE > end:
        raise DiskError("the VHD footer points to a dynamic header past the end of the file", DAMAGED)
    header = vhd.parse_dynamic_header(pread(footer.data_offset, vhd.HEADER_SIZE))
    _judge(header, footer.current_size, end)
    places = _read_bat(pread, header, -(-footer.current_size // header.block_size))
    used = sorted(places)
    del used[bisect_left(used, vhd.NO_BLOCK) :]
    structures = sorted(
        (
            (0, vhd.FOOTER_SIZE),
            (footer.data_offset, footer.data_offset + vhd.HEADER_SIZE),
            (header.table_offset, header.table_offset + header.entries * 4),
        )
    )
    prove_apart(used, SECTOR, vhd.bitmap_size(header.block_size) + header.block_size, structures, end)
    return Tables(footer, header, places, len(used), notes)


def check_bitmaps(pread: Pread, disk: BlockMap) -> Iterator[str]:
    """One line per block that holds data in sectors which its bitmap calls never written. Reads every bitmap."""
    header = vhd.bitmap_size(disk.block_size)
    for block, offset in disk.blocks():
        bits = pread(offset, header)[: disk.block_size // SECTOR // 8]
        if bits.count(0xFF) == len(bits):
            continue
        start = block * disk.block_size
        clear = _count_clear_with_data(pread, bits, offset + header, min(disk.block_size, disk.size - start))
        if clear:
            yield f"{clear} sectors of block {block} hold data, but its bitmap calls them never written"


def _footers(pread: Pread, file_size: int) -> tuple[vhd.Footer, int, tuple[str, ...]]:
    """The footer to believe, the end of what blocks may occupy, and what to tell of it."""
    first = pread(0, vhd.FOOTER_SIZE)
    last = pread(max(file_size - vhd.FOOTER_SIZE, 0), vhd.FOOTER_SIZE)
    if not first.startswith(vhd.FOOTER_COOKIE) and last.startswith(vhd.FOOTER_COOKIE):
        raise DiskError("the copy of the VHD footer at the start of the file was overwritten", DAMAGED)
    footer = vhd.parse_footer(first)
    if footer.type == vhd.FIXED:
        raise DiskError("the VHD footer at the start of the file says fixed; a fixed VHD has none there", DAMAGED)
    if not last.startswith(vhd.FOOTER_COOKIE):
        return footer, file_size, ("the footer at its end is missing, as after a crash; the copy at 0 is used",)
    end = file_size - vhd.FOOTER_SIZE
    try:
        other = vhd.parse_footer(last)
    except DiskError:
        return footer, end, ("the footer at its end is damaged; the copy at 0 is used",)
    if (other.type, other.current_size, other.data_offset) != (footer.type, footer.current_size, footer.data_offset):
        raise DiskError("the two VHD footers disagree on the disk's type, size or place of the header", DAMAGED)
    return footer, end, ()


def _judge(header: vhd.DynamicHeader, size: int, end: int) -> None:
    """DiskError unless the header's numbers are sound and small enough to allocate for."""
    block_size, entries = header.block_size, header.entries
    if block_size & (block_size - 1) or not MIN_BLOCK_SIZE <= block_size <= MAX_BLOCK_SIZE:
        raise DiskError(
            f"its block size is {block_size} bytes; a power of two from {MIN_BLOCK_SIZE} to {MAX_BLOCK_SIZE} is served",
            "convert it: qemu-img convert -O vpc -o force_size=on FILE NEW.vhd",
        )
    blocks = -(-size // block_size)
    if blocks > MAX_BLOCKS:
        raise DiskError(
            f"its disk has {blocks} blocks of {block_size} bytes; {MAX_BLOCKS} are served",
            "convert it to larger blocks: qemu-img convert -O vpc -o force_size=on FILE NEW.vhd",
        )
    if entries * block_size < size:
        raise DiskError(
            f"its block table has {entries} entries of {block_size} bytes, too few for a disk of {size} bytes", DAMAGED
        )
    if header.table_offset + entries * 4 > end:
        raise DiskError("its block table (BAT) lies past the end of the file", DAMAGED)


def _read_bat(pread: Pread, header: vhd.DynamicHeader, blocks: int) -> array[int]:
    """The BAT's entries for the disk's blocks; more than that are allowed (the table is padded) and mean nothing."""
    data = pread(header.table_offset, blocks * 4)
    if len(data) != blocks * 4:
        raise DiskError("its block table (BAT) lies past the end of the file", DAMAGED)
    bat = array("I", data)
    if bat.itemsize != 4:  # pragma: no cover
        raise NotImplementedError("this platform's unsigned int has not 32 bits")
    if sys.byteorder == "little":
        bat.byteswap()
    return bat


def _count_clear_with_data(pread: Pread, bits: bytes, data_offset: int, length: int) -> int:
    """Sectors among the block's first `length` bytes whose bit is 0 and that are not zeros."""
    found = 0
    zeros = bytes(SECTOR)
    for at in range(0, length, _CHECK_CHUNK):
        data = pread(data_offset + at, min(_CHECK_CHUNK, length - at))
        for inner in range(0, len(data), SECTOR):
            sector = (at + inner) // SECTOR
            if not bits[sector >> 3] & 0x80 >> (sector & 7) and data[inner : inner + SECTOR] != zeros:
                found += 1
    return found
