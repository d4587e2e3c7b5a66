"""Dynamic VHD: a table of blocks, each in the file or not. Structures and terms: see `vhd`.

How it works. `parse` reads the footer, the dynamic header and the BAT, and proves before anything is served that every
block which the BAT names lies inside the file, overlaps no other block and no metadata. The map then is the BAT
itself, four bytes per block, kept whole in memory: a look-up is a shift and an index.

**The footer.** A dynamic VHD has two: the copy at 0 and the one at the end. The copy is required, as it is what QEMU,
libvhdi and others read. The one at the end may be missing or damaged: QEMU (and others that grow a file) overwrite it
with a new block's bitmap before they write the next, so a writer that was killed leaves such a file. It is readable,
and a note says so. Where both are whole they must agree on what the disk is.

**The sector bitmap is not read.** The specification says of dynamic disks that sectors whose bit is 0 were never
written and "must contain 512 bytes of zero on disk", so a reader may skip them but need not: both read the same bytes.
We need not: it costs no second read on a cache miss, agrees with QEMU byte for byte, and is kind to files whose writer
forgot the bits. `check` reports blocks that break the rule, as readers which honour the bitmap (VirtualBox, libvhdi)
see other bytes there. (In differencing disks the bit tells child from parent and must be read; none is served here.)

Deliberately not here: parents, writing, the batmap and other private extensions.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

from bootlink_disks import vhd
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import SECTOR, Kind, Pread, Run, Structure

MIN_BLOCK_SIZE = 4096
"""Bytes. Everyone writes 512 KiB or 2 MiB; below a page a block would cost more than it holds."""

MAX_BLOCK_SIZE = 256 << 20
"""Bytes. Far past what anyone writes, and still less than a small disk."""

MAX_ENTRIES = vhd.MAX_SIZE // (512 << 10)
"""BAT entries, 16 MiB of them: the largest disk in the smallest block (512 KiB) that Windows can make."""

_DAMAGED = "the file is damaged; copy it again from where it came, or restore it from a copy"
_CHECK_CHUNK = 1 << 20  # bytes that `check_bitmaps` holds at a time


class DynamicMap:
    """The BAT as a map. `bat` has one entry per block of the disk, each proved to lie in the file."""

    __slots__ = ("_bat", "_data_in_block", "_mask", "_shift", "block_size", "size")

    def __init__(self, size: int, block_size: int, bat: array[int]) -> None:
        self.size = size
        self.block_size = block_size
        self._bat = bat
        self._shift = block_size.bit_length() - 1
        self._mask = block_size - 1
        self._data_in_block = vhd.bitmap_size(block_size)

    def locate(self, offset: int, length: int) -> list[Run]:
        end = offset + length
        if offset < 0 or length <= 0 or end > self.size:
            raise ValueError(f"{length} bytes at {offset} are not within a disk of {self.size} bytes")
        within = offset & self._mask
        if within + length <= self.block_size:  # in one block, as every aligned read of the block store is
            sector = self._bat[offset >> self._shift]
            if sector == vhd.NO_BLOCK:
                return [Run(Kind.ZERO, 0, length)]
            return [Run(Kind.DATA, sector * SECTOR + self._data_in_block + within, length)]
        runs: list[Run] = []
        while offset < end:
            within = offset & self._mask
            part = min(end - offset, self.block_size - within)
            sector = self._bat[offset >> self._shift]
            if sector != vhd.NO_BLOCK:
                runs.append(Run(Kind.DATA, sector * SECTOR + self._data_in_block + within, part))
            elif runs and runs[-1].kind is Kind.ZERO:
                runs[-1] = Run(Kind.ZERO, 0, runs[-1].length + part)
            else:
                runs.append(Run(Kind.ZERO, 0, part))
            offset += part
        return runs

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(block number, offset in the file of its bitmap) of each block that is in the file, in disk order."""
        return ((block, sector * SECTOR) for block, sector in enumerate(self._bat) if sector != vhd.NO_BLOCK)


def parse(pread: Pread, file_size: int) -> Structure:
    """The structure of a dynamic VHD of `file_size` bytes. DiskError if it is none, or none that can be served.

    Memory: the BAT (at most 16 MiB), and while it is checked a list of its used entries.
    """
    footer, end, notes = _footers(pread, file_size)
    if footer.data_offset + vhd.HEADER_SIZE > end:
        raise DiskError("the VHD footer points to a dynamic header past the end of the file", _DAMAGED)
    header = vhd.parse_dynamic_header(pread(footer.data_offset, vhd.HEADER_SIZE))
    if footer.type == vhd.DIFFERENCING:
        raise vhd.refuse_differencing(header)
    _judge(header, footer.current_size, end)
    bat = _read_bat(pread, header, -(-footer.current_size // header.block_size))
    used = sorted(sector for sector in bat if sector != vhd.NO_BLOCK)
    metadata = sorted(
        (
            (0, vhd.FOOTER_SIZE),
            (footer.data_offset, footer.data_offset + vhd.HEADER_SIZE),
            (header.table_offset, header.table_offset + header.entries * 4),
        )
    )
    _prove_places(used, vhd.bitmap_size(header.block_size) + header.block_size, metadata, end)
    return Structure(
        "vhd-dynamic",
        DynamicMap(footer.current_size, header.block_size, bat),
        stored=min(len(used) * header.block_size, footer.current_size),
        block_size=header.block_size,
        uuid=footer.uuid,
        creator=footer.creator,
        notes=notes,
    )


def check_bitmaps(pread: Pread, disk: DynamicMap) -> Iterator[str]:
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
        raise DiskError("the copy of the VHD footer at the start of the file was overwritten", _DAMAGED)
    footer = vhd.parse_footer(first)
    if footer.type == vhd.FIXED:
        raise DiskError("the VHD footer at the start of the file says fixed; a fixed VHD has none there", _DAMAGED)
    if not last.startswith(vhd.FOOTER_COOKIE):
        return footer, file_size, ("the footer at its end is missing, as after a crash; the copy at 0 is used",)
    end = file_size - vhd.FOOTER_SIZE
    try:
        other = vhd.parse_footer(last)
    except DiskError:
        return footer, end, ("the footer at its end is damaged; the copy at 0 is used",)
    if (other.type, other.current_size, other.data_offset) != (footer.type, footer.current_size, footer.data_offset):
        raise DiskError("the two VHD footers disagree on the disk's type, size or place of the header", _DAMAGED)
    return footer, end, ()


def _judge(header: vhd.DynamicHeader, size: int, end: int) -> None:
    """DiskError unless the header's numbers are sound and small enough to allocate for."""
    block_size, entries = header.block_size, header.entries
    if block_size & (block_size - 1) or not MIN_BLOCK_SIZE <= block_size <= MAX_BLOCK_SIZE:
        raise DiskError(
            f"its block size is {block_size} bytes; a power of two from {MIN_BLOCK_SIZE} to {MAX_BLOCK_SIZE} is served",
            "convert it: qemu-img convert -O vpc -o force_size=on FILE NEW.vhd",
        )
    if entries > MAX_ENTRIES:
        raise DiskError(f"its block table claims {entries} entries; the limit is {MAX_ENTRIES}", _DAMAGED)
    if entries * block_size < size:
        raise DiskError(
            f"its block table has {entries} entries of {block_size} bytes, too few for a disk of {size} bytes", _DAMAGED
        )
    if header.table_offset + entries * 4 > end:
        raise DiskError("its block table (BAT) lies past the end of the file", _DAMAGED)


def _read_bat(pread: Pread, header: vhd.DynamicHeader, blocks: int) -> array[int]:
    """The BAT's entries for the disk's blocks; more than that are allowed (the table is padded) and mean nothing."""
    data = pread(header.table_offset, blocks * 4)
    if len(data) != blocks * 4:
        raise DiskError("its block table (BAT) lies past the end of the file", _DAMAGED)
    bat = array("I", data)
    if bat.itemsize != 4:  # pragma: no cover
        raise NotImplementedError("this platform's unsigned int has not 32 bits")
    if sys.byteorder == "little":
        bat.byteswap()
    return bat


def _prove_places(used: list[int], stride: int, metadata: list[tuple[int, int]], end: int) -> None:
    """DiskError unless all blocks (`used`: sorted first sectors; `stride`: bytes of each) and metadata lie apart."""
    for (_, stop), (start, _) in pairwise(metadata):
        if start < stop:
            raise DiskError("its header and block table overlap", _DAMAGED)
    if not used:
        return
    if used[-1] * SECTOR + stride > end:
        raise DiskError(
            f"its block table names a block that ends at byte {used[-1] * SECTOR + stride}, but the data ends at {end}",
            "the file is cut short or damaged; copy it again from where it came",
        )
    sectors = stride // SECTOR
    for i in range(1, len(used)):
        if used[i] - used[i - 1] < sectors:
            raise DiskError(f"two of its blocks overlap at sector {used[i]} of the file", _DAMAGED)
    for start, stop in metadata:
        before = bisect_left(used, -(-stop // SECTOR)) - 1  # the last block that begins before the metadata ends
        if before >= 0 and used[before] * SECTOR + stride > start:
            raise DiskError(f"one of its blocks overlaps the metadata at byte {start}", _DAMAGED)


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
