"""Differencing VHD: the sectors that differ from a parent's. Structures and terms: `vhd`; the tables: `vhd_dynamic`.

How it works. The file is laid out as a dynamic VHD. A block that the BAT does not name is the parent's. In a block that
it does name, the sector bitmap says for each sector whether it is here (1) or the parent's (0), so here the bitmaps are
the disk: each is read when the layer is opened, within `blocks.BITMAP_LIMIT`, and the map answers from memory.

A bitmap is trusted only for the disk's own sectors; bits past its end mean nothing.

**The parent** is named by the UUID of its footer, a time stamp, a file name and paths. The first two are compared with
what the registry says the parent is (`chain`). Names and paths are shown, and never followed: whoever wrote the file
would otherwise choose which of our files a client reads.

Deliberately not here: writing (`create_differencing`), and merging.
"""

from __future__ import annotations

from bootlink_disks import vhd
from bootlink_disks.blocks import DAMAGED, NOWHERE, ZEROED, Bitmaps
from bootlink_disks.errors import DiskError, printable
from bootlink_disks.layer import SECTOR, Kind, ParentReference, Pread, Structure
from bootlink_disks.vhd_dynamic import read_tables


def parse(pread: Pread, file_size: int) -> Structure:
    """The structure of a differencing VHD of `file_size` bytes. DiskError if it is none, or cannot be served.

    Memory: the BAT (at most 4 MiB) and the bitmaps (at most BITMAP_LIMIT, and as much again for what holds them).
    """
    tables = read_tables(pread, file_size)
    footer, header, places = tables.footer, tables.header, tables.places
    if footer.type != vhd.DIFFERENCING:
        raise DiskError("the VHD is a dynamic one, and was differencing when it was added", "add the image anew")
    bitmaps = Bitmaps(footer.current_size, header.block_size)
    bitmaps.reserve(tables.used)
    length = header.block_size // SECTOR // 8
    for block, place in enumerate(places):
        if place < ZEROED:
            bits = pread(place * SECTOR, length)
            if len(bits) != length:
                raise DiskError(f"the bitmap of block {block} lies past the end of the file", DAMAGED)
            if not bitmaps.add(block, bits):
                places[block] = NOWHERE
    return Structure(
        "vhd-differencing",
        tables.map(Kind.ABSENT, bitmaps.partial),
        stored=bitmaps.sectors * SECTOR,
        block_size=header.block_size,
        uuid=footer.uuid,
        timestamp=footer.timestamp,
        parent=ParentReference((header.parent_uuid,), printable(header.parent_name), header.parent_timestamp),
        creator=footer.creator,
        notes=tables.notes,
    )
