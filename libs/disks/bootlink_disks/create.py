"""Writing a dynamic VHD from another disk.

The file has the layout of `vhd`: footer copy, dynamic header, BAT, blocks in disk order, footer. Blocks that are all
zeros are left out, and longer zeros inside a block stay holes; holes of the source file are not even read. Every
bitmap is all ones, as QEMU and Hyper-V write it, so readers that honour bitmaps and readers that do not see the same
bytes. Each block's data begins at a multiple of 4 KiB in the file (the bitmap sits right before it), so that an
aligned read of the disk is an aligned read of the file: otherwise each costs one page more.

The file appears under its name complete or not at all: it is written beside it, flushed, and renamed.
Deliberately not here: growing or changing a VHD that exists.
"""

from __future__ import annotations

import os
import time
import uuid
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from sys import byteorder

from bootlink_disks import vhd
from bootlink_disks.blocks import MAX_BLOCKS
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import SECTOR, Disk, ImageInfo
from bootlink_disks.open import open_layer, probe
from bootlink_disks.vhd_dynamic import MAX_BLOCK_SIZE, MIN_BLOCK_SIZE
from bootlink_disks.writing import appearing, stored_blocks, write_at, write_sparse

DEFAULT_BLOCK_SIZE = 2 << 20  # bytes; the specification's own
DATA_ALIGNMENT = 4096  # bytes; a page

HEADER_AT = vhd.FOOTER_SIZE
TABLE_AT = HEADER_AT + vhd.HEADER_SIZE


def create_vhd_dynamic(
    path: str | os.PathLike[str],
    source: Disk | str | os.PathLike[str],
    *,
    block_size: int = DEFAULT_BLOCK_SIZE,
    unique_id: uuid.UUID | None = None,
    timestamp: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImageInfo:
    """Make `path` a dynamic VHD with the bytes of `source`: an open layer, a stack of them, or the path of a raw file.

    `unique_id` and `timestamp` (seconds since 2000) are how children name it; new ones if they are not given.
    `progress` is called now and then with the bytes of the disk done so far. Blocks: call it in a thread.
    DiskError if the source cannot be read, is too large for VHD, `path` exists, or it cannot be written.
    """
    path = Path(path)
    with ExitStack() as stack:
        disk = stack.enter_context(open_layer(source, "raw")) if isinstance(source, str | os.PathLike) else source
        with appearing(path) as fd:
            write_vhd_dynamic(
                fd, disk, block_size=block_size, unique_id=unique_id, timestamp=timestamp, progress=progress
            )
    return probe(path)


def write_vhd_dynamic(
    fd: int,
    disk: Disk,
    *,
    block_size: int = DEFAULT_BLOCK_SIZE,
    unique_id: uuid.UUID | None = None,
    timestamp: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """`create_vhd_dynamic` into an open, empty file. The flush and the name are the caller's. OSError if it cannot be
    written."""
    require_block_size(block_size)
    require_room(disk.path, disk.size, block_size)
    # The largest geometry makes QEMU take the size from the footer, for creators that it does not know.
    footer = vhd.Footer(vhd.DYNAMIC, disk.size, unique_id or uuid.uuid4(), HEADER_AT, now(timestamp))
    _write(fd, disk, block_size, bytes(footer), progress or (lambda _done: None))


def require_block_size(block_size: int) -> None:
    """ValueError unless it is one that VHDs are made with here."""
    if block_size & (block_size - 1) or not MIN_BLOCK_SIZE <= block_size <= MAX_BLOCK_SIZE:
        raise ValueError(f"a block of {block_size} bytes is no power of two from {MIN_BLOCK_SIZE} to {MAX_BLOCK_SIZE}")


def require_room(source: Path, size: int, block_size: int) -> None:
    """DiskError unless a VHD can hold a disk of that size."""
    if size > vhd.MAX_SIZE or -(-size // block_size) > MAX_BLOCKS:
        raise DiskError(
            f"{source}: a disk of {size} bytes does not fit into a VHD with this block size",
            "use the default block size; a VHD ends at 2040 GiB",
        )


def now(timestamp: int | None) -> int:
    """A footer's time: the one that was given, or this moment."""
    return int(time.time()) - vhd.EPOCH if timestamp is None else timestamp


def empty_table(entries: int) -> array[int]:
    """A BAT without a block, padded to a sector."""
    return array("I", [vhd.NO_BLOCK]) * (-(-entries * 4 // SECTOR) * SECTOR // 4)


def table_bytes(table: array[int]) -> bytes:
    """The BAT as it stands in the file."""
    if byteorder == "little":
        table = table[:]
        table.byteswap()
    return table.tobytes()


def next_block(end: int, bitmap: int) -> int:
    """Where the next block begins, behind `end`, so that the data behind its bitmap is aligned."""
    return -(-(end + bitmap) // DATA_ALIGNMENT) * DATA_ALIGNMENT - bitmap


def _write(fd: int, disk: Disk, block_size: int, footer: bytes, progress: Callable[[int], None]) -> None:
    entries = -(-disk.size // block_size)
    table = empty_table(entries)
    bitmap = b"\xff" * vhd.bitmap_size(block_size)
    end = TABLE_AT + len(table) * 4
    for block, data in stored_blocks(disk, block_size, progress):
        start = next_block(end, len(bitmap))
        write_at(fd, start, bitmap)
        write_sparse(fd, start + len(bitmap), data)
        table[block] = start // SECTOR
        end = start + len(bitmap) + block_size  # the last block is whole too, with a hole past the disk's end
    write_at(fd, 0, footer + bytes(vhd.DynamicHeader(TABLE_AT, entries, block_size)) + table_bytes(table))
    write_at(fd, end, footer)
