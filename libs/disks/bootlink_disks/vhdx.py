"""VHDX: dynamic, fixed (the same with every block in the file) and differencing. How a file is laid out: `vhdx_header`.

Source: [MS-VHDX] v20180912, section 2.5 for the BAT.

How it works. `parse` picks the current header, replays the log in memory if there is one (`vhdx_log`), finds metadata
and BAT by the region table, and proves that all blocks, regions and the log lie apart and within the file.

The **BAT** has 64 bits for each block of the disk (the payload): its state, and its place in MiB. After the entries of
each **chunk**, 4 GiB of disk, comes one for the chunk's **sector bitmap block**, 1 MiB: a bit for each sector, least
significant first. What a state means:

    0 NOT_PRESENT        zeros; in a differencing disk the parent's bytes
    1 UNDEFINED          anything may be read; zeros are, which is what was never written elsewhere either
    2 ZERO               zeros
    3 UNMAPPED           zeros: the client gave the block back, and the parent's bytes must not come through
    6 FULLY_PRESENT      in the file
    7 PARTIALLY_PRESENT  differencing only: sector by sector in the file (1) or the parent's (0), by the bitmap block

Places are kept as 32-bit numbers of MiB, as no file system holds a file of 4 PiB.

Deliberately not here: writing; and the names of parents (see `vhd_differencing`, where the same holds).
"""

from __future__ import annotations

import operator
import sys
from array import array
from bisect import bisect_left
from itertools import repeat
from typing import Final

from bootlink_disks import vhdx_header, vhdx_metadata
from bootlink_disks.blocks import DAMAGED, MAX_BLOCKS, NOWHERE, ZEROED, Bitmaps, BlockMap, prove_apart
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import SECTOR, Kind, Map, Pread, Structure
from bootlink_disks.vhdx_header import MIB, NIL, Header, Region
from bootlink_disks.vhdx_log import Replayed, ReplayedMap, replay
from bootlink_disks.vhdx_metadata import Metadata

CHUNK: Final = (1 << 23) * SECTOR  # bytes of the disk that one sector bitmap block speaks of
BITMAP_BLOCK: Final = MIB

FULLY_PRESENT: Final = 6
PARTIALLY_PRESENT: Final = 7
_EMPTY: Final = (NOWHERE, ZEROED, ZEROED, ZEROED)  # by payload states without a place
_WHOLE_STATES: Final = bytes((0, 1, 2, 3, FULLY_PRESENT))
_STATES: Final = bytes((*_WHOLE_STATES, PARTIALLY_PRESENT))
_STATE_OF: Final = bytes(byte & 7 for byte in range(256))
_MIRROR: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # bytes with their bits turned around


def parse(pread: Pread, file_size: int) -> Structure:
    """The structure of a fixed or dynamic VHDX. DiskError if it is none, or none that can be served.

    Memory: four bytes per block (at most 4 MiB); while it is checked the BAT and a list of its used entries.
    """
    return _parse(pread, file_size, differencing=False)


def parse_differencing(pread: Pread, file_size: int) -> Structure:
    """The structure of a differencing VHDX. DiskError if it is none, or none that can be served.

    Memory: as `parse`, and the bitmaps of blocks that are there in part (at most BITMAP_LIMIT).
    """
    return _parse(pread, file_size, differencing=True)


def has_parent(pread: Pread, file_size: int) -> bool:
    """True if it is a differencing VHDX. DiskError if its structures are not sound so far."""
    return _Opened(pread, file_size).metadata.parent is not None


class _Opened:
    """Headers, log, regions and metadata of a file."""

    def __init__(self, pread: Pread, file_size: int) -> None:
        self.creator = vhdx_header.parse_creator(pread(0, vhdx_header.IDENTIFIER_SIZE))
        headers = [pread(at, vhdx_header.HEADER_SIZE) for at in vhdx_header.HEADERS_AT]
        header, notes = vhdx_header.current_header(*headers)
        self.header: Header = header
        self.file: Replayed = replay(pread, file_size, header.log, header.log_guid)
        tables = [self.file.pread(at, vhdx_header.TABLE_SIZE) for at in vhdx_header.TABLES_AT]
        self.regions, more = vhdx_header.parse_regions(*tables)
        if self.file.entries:
            more += ("it was not closed well; its log is replayed in memory whenever it is opened",)
        elif header.log_guid != NIL:
            more += ("it was not closed well; its log holds nothing to be replayed",)
        self.notes = notes + more
        prove_apart((), MIB, MIB, sorted(self.structures()), self.file.size)
        region = self.regions[vhdx_header.METADATA]
        self.metadata: Metadata = vhdx_metadata.parse(self._metadata, region.length)

    def _metadata(self, offset: int, length: int) -> bytes:
        return self.file.pread(self.regions[vhdx_header.METADATA].offset + offset, length)

    def structures(self) -> list[tuple[int, int]]:
        """(start, stop) in bytes of all that is neither payload nor bitmap."""
        found = [(0, vhdx_header.FIRST_REGION), *((region.offset, region.end) for region in self.regions.values())]
        log = self.header.log
        if log.length:
            found.append((log.offset, log.end))
        return found


def _parse(pread: Pread, file_size: int, *, differencing: bool) -> Structure:
    opened = _Opened(pread, file_size)
    metadata, file = opened.metadata, opened.file
    if differencing != (metadata.parent is not None):
        is_, was = ("whole", "differencing") if differencing else ("differencing", "whole")
        raise DiskError(f"the VHDX is a {is_} disk, and was a {was} one when it was added", "add the image anew")
    block_size, size = metadata.block_size, metadata.size
    payload, chunks = _read_bat(file, opened.regions[vhdx_header.BAT], metadata)
    places, partial = _places(payload, differencing)
    bitmap_blocks = _bitmap_blocks(partial, chunks, CHUNK // block_size)
    used = sorted(places)
    del used[bisect_left(used, ZEROED) :]
    structures = opened.structures() + [(at, at + BITMAP_BLOCK) for at in bitmap_blocks.values()]
    prove_apart(used, MIB, block_size, sorted(structures), file.size)
    bitmaps = Bitmaps(size, block_size)
    bitmaps.reserve(len(partial))
    length = block_size // SECTOR // 8
    for block in partial:
        chunk, index = divmod(block, CHUNK // block_size)
        bits = file.pread(bitmap_blocks[chunk] + index * length, length)
        if not bitmaps.add(block, bits.translate(_MIRROR)):
            places[block] = NOWHERE
    disk: Map = BlockMap(
        size,
        block_size,
        places,
        unit=MIB,
        missing=Kind.ABSENT if differencing else Kind.ZERO,
        partial=bitmaps.partial,
    )
    if file.entries:
        disk = ReplayedMap(disk, file)
    whole = len(used) - len(partial)
    return Structure(
        "vhdx-differencing" if differencing else "vhdx",
        disk,
        stored=min(whole * block_size + bitmaps.sectors * SECTOR, size),
        block_size=block_size,
        uuid=opened.header.data_write,
        parent=metadata.parent,
        creator=opened.creator,
        notes=opened.notes,
    )


def _read_bat(file: Replayed, region: Region, metadata: Metadata) -> tuple[array[int], array[int]]:
    """The BAT's entries for the disk's blocks, and for its sector bitmap blocks. More than those mean nothing."""
    blocks, ratio = -(-metadata.size // metadata.block_size), CHUNK // metadata.block_size
    if blocks > MAX_BLOCKS:
        raise DiskError(
            f"its disk has {blocks} blocks of {metadata.block_size} bytes; {MAX_BLOCKS} are served",
            "convert it to larger blocks: qemu-img convert -O vhdx -o block_size=32M FILE NEW.vhdx",
        )
    # A whole disk's table ends with its last block, and a differencing one's with the last chunk's bitmap block.
    entries = blocks + (blocks - 1) // ratio if metadata.parent is None else -(-blocks // ratio) * (ratio + 1)
    data = file.pread(region.offset, entries * 8)
    if entries * 8 > region.length or len(data) != entries * 8:
        raise DiskError(f"its block table (BAT) is too short for a disk of {metadata.size} bytes", DAMAGED)
    payload = array("Q", data)
    if sys.byteorder == "big":  # pragma: no cover
        payload.byteswap()
    chunks = payload[ratio :: ratio + 1]
    del payload[ratio :: ratio + 1]
    return payload[:blocks], chunks


def _places(payload: array[int], differencing: bool) -> tuple[array[int], list[int]]:
    """The place of each block, in MiB, and the blocks that are there in part."""
    low_byte = 0 if sys.byteorder == "little" else 7
    states = payload.tobytes()[low_byte::8].translate(_STATE_OF)  # by C functions, as there may be a million
    wrong = states.translate(None, _STATES if differencing else _WHOLE_STATES)
    if wrong:
        block = states.index(wrong[0])
        raise DiskError(f"its block table gives block {block} the state {wrong[0]}, which none has here", DAMAGED)
    entries = zip(states, map(operator.rshift, payload, repeat(20)), strict=True)
    try:
        places = array("I", [place if state >= FULLY_PRESENT else _EMPTY[state] for state, place in entries])
    except OverflowError:
        places = array("I")
    empty = sum(map(states.count, range(len(_EMPTY))))
    if places.count(NOWHERE) + places.count(ZEROED) != empty or not places:
        raise DiskError("its block table puts a block past the end of any file", DAMAGED)
    return places, [block for block, state in enumerate(states) if state == PARTIALLY_PRESENT] if differencing else []


def _bitmap_blocks(partial: list[int], chunks: array[int], ratio: int) -> dict[int, int]:
    """Where in the file the sector bitmap block of each chunk is that has blocks which are there in part."""
    found = {}
    for chunk in dict.fromkeys(block // ratio for block in partial):
        if chunks[chunk] & 7 != FULLY_PRESENT:
            raise DiskError(f"its block table names no sector bitmap for chunk {chunk}, which needs one", DAMAGED)
        found[chunk] = (chunks[chunk] >> 20) * MIB
    return found
