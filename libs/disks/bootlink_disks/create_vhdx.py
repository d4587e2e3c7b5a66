"""Writing a dynamic VHDX of another disk. How a file is laid out: `vhdx_header`, `vhdx`.

The file has its parts in this order: identifier, headers and region tables; an empty log of 1 MiB; 1 MiB of metadata;
the BAT; blocks in disk order. Blocks that are all zeros are left out (NOT_PRESENT), and longer zeros inside a block
stay holes. Blocks are 2 MiB, or as much larger as it takes to have at most MAX_BLOCKS of them.

The log is empty, so no reader needs to replay one: the file has its name only when all of it was flushed.
Deliberately not here: growing or changing a VHDX that exists, and differencing ones (`create_differencing` says why).
"""

from __future__ import annotations

import os
import sys
import uuid
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from bootlink_disks import vhdx_header, vhdx_metadata
from bootlink_disks.blocks import MAX_BLOCKS
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import Disk, ImageInfo
from bootlink_disks.open import probe
from bootlink_disks.vhdx import CHUNK, FULLY_PRESENT
from bootlink_disks.vhdx_header import BAT, METADATA, MIB, NIL, Header, Region, region_table
from bootlink_disks.writing import appearing, stored_blocks, write_at, write_sparse

SMALLEST_BLOCK: Final = 2 * MIB  # bytes; as VHD's, so that a disk takes as little space as one
CREATOR: Final = "bootlink"

_LOG: Final = Region(MIB, MIB)
_METADATA: Final = Region(2 * MIB, MIB)
_BAT_AT: Final = 3 * MIB


def create_vhdx(
    path: str | os.PathLike[str],
    source: Disk,
    *,
    unique_id: uuid.UUID | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImageInfo:
    """Make `path` a dynamic VHDX with the bytes of `source`. `unique_id` is how children name it (the data write GUID).

    `progress` is called now and then with the bytes of the disk done so far. Blocks: call it in a thread.
    DiskError if the source cannot be read, is too large for VHDX, `path` exists, or it cannot be written.
    """
    path = Path(path)
    if source.size > vhdx_metadata.MAX_SIZE:
        raise DiskError(f"{source.path}: a disk of {source.size} bytes does not fit into a VHDX", "use a smaller disk")
    with appearing(path) as fd:
        _write(fd, source, unique_id or uuid.uuid4(), progress or (lambda _done: None))
    return probe(path)


def block_size_for(size: int) -> int:
    """Bytes of a block for a disk of `size` bytes."""
    block_size = SMALLEST_BLOCK
    while -(-size // block_size) > MAX_BLOCKS:
        block_size *= 2
    return block_size


def _write(fd: int, disk: Disk, unique_id: uuid.UUID, progress: Callable[[int], None]) -> None:
    block_size = block_size_for(disk.size)
    ratio = CHUNK // block_size  # blocks for which there is one entry of a sector bitmap, unused here, behind them
    blocks = -(-disk.size // block_size)
    table = array("Q", bytes(8 * (blocks + (blocks - 1) // ratio)))
    bat = Region(_BAT_AT, -(-len(table) * 8 // MIB) * MIB)
    end = bat.end
    for block, data in stored_blocks(disk, block_size, progress):
        write_sparse(fd, end, data)
        table[block + block // ratio] = end | FULLY_PRESENT  # the place in MiB, from bit 20 on, is the place in bytes
        end += block_size
    os.ftruncate(fd, end)  # the last block is whole too, with a hole past the disk's end
    if sys.byteorder == "big":  # pragma: no cover
        table.byteswap()
    write_at(fd, bat.offset, table.tobytes())
    write_at(fd, _METADATA.offset, vhdx_metadata.encode(disk.size, block_size, uuid.uuid4()))
    header = Header(1, uuid.uuid4(), unique_id, NIL, _LOG)
    for at, one in zip(vhdx_header.HEADERS_AT, (header, replace(header, sequence=2)), strict=True):
        write_at(fd, at, bytes(one))
    for at in vhdx_header.TABLES_AT:
        write_at(fd, at, region_table({BAT: bat, METADATA: _METADATA}))
    write_at(fd, 0, vhdx_header.IDENTIFIER + CREATOR.encode("utf-16-le"))
