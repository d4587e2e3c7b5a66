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

import errno
import os
import time
import uuid
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from sys import byteorder

from bootlink_disks import vhd
from bootlink_disks.blocks import MAX_BLOCKS
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import SECTOR, ImageInfo, Kind, OpenLayer
from bootlink_disks.open import open_layer, probe
from bootlink_disks.vhd_dynamic import MAX_BLOCK_SIZE, MIN_BLOCK_SIZE
from bootlink_disks.writing import appearing, write_at

DEFAULT_BLOCK_SIZE = 2 << 20  # bytes; the specification's own
DATA_ALIGNMENT = 4096  # bytes; a page
_PIECE = 64 << 10  # bytes; a piece of a block that is all zeros is left a hole in the file
_ZEROS = bytes(_PIECE)

HEADER_AT = vhd.FOOTER_SIZE
TABLE_AT = HEADER_AT + vhd.HEADER_SIZE


def create_vhd_dynamic(
    path: str | os.PathLike[str],
    source: OpenLayer | str | os.PathLike[str],
    *,
    block_size: int = DEFAULT_BLOCK_SIZE,
    unique_id: uuid.UUID | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImageInfo:
    """Make `path` a dynamic VHD with the bytes of `source`: an open layer, or the path of a raw file.

    `progress` is called now and then with the bytes of the disk done so far. Blocks: call it in a thread.
    DiskError if the source cannot be read, is too large for VHD, `path` exists, or it cannot be written.
    """
    path = Path(path)
    require_block_size(block_size)
    with ExitStack() as stack:
        layer = source if isinstance(source, OpenLayer) else stack.enter_context(open_layer(source, "raw"))
        require_room(layer.info.path, layer.size, block_size)
        with appearing(path) as fd:
            _write(fd, layer, block_size, unique_id or uuid.uuid4(), progress or (lambda _done: None))
    return probe(path)


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


def _write(fd: int, layer: OpenLayer, block_size: int, unique_id: uuid.UUID, progress: Callable[[int], None]) -> None:
    entries = -(-layer.size // block_size)
    table = empty_table(entries)
    footer = bytes(
        # The largest geometry makes QEMU take the size from the footer, for creators that it does not know.
        vhd.Footer(vhd.DYNAMIC, layer.size, unique_id, HEADER_AT, timestamp=int(time.time()) - vhd.EPOCH)
    )
    bitmap = b"\xff" * vhd.bitmap_size(block_size)
    end = TABLE_AT + len(table) * 4
    for block, data in _blocks(layer, block_size):
        start = next_block(end, len(bitmap))
        write_at(fd, start, bitmap)
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            if piece != _ZEROS[: len(piece)]:
                write_at(fd, start + len(bitmap) + at, piece)
        table[block] = start // SECTOR
        end = start + len(bitmap) + block_size  # the last block is whole too, with a hole past the disk's end
        progress(block * block_size + len(data))
    write_at(fd, 0, footer + bytes(vhd.DynamicHeader(TABLE_AT, entries, block_size)) + table_bytes(table))
    write_at(fd, end, footer)
    progress(layer.size)


def _blocks(layer: OpenLayer, block_size: int) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of each block that is not all zeros; the last may be shorter than the others."""
    zeros = bytes(block_size)
    for block in range(-(-layer.size // block_size)):
        offset = block * block_size
        length = min(block_size, layer.size - offset)
        if not any(
            kind is Kind.DATA and not _is_hole(layer.fd, start, size)
            for kind, start, size in layer.locate(offset, length)
        ):
            continue
        try:
            data = layer.read(offset, length)
        except OSError as error:  # told apart here from failures to write
            raise DiskError(f"{layer.info.path}: it cannot be read ({error.strerror})", "check its disk") from error
        if data != zeros[:length]:
            yield block, data


def _is_hole(fd: int, offset: int, length: int) -> bool:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        # ENXIO: no data from here on. Anything else: a file system without SEEK_DATA, so look at the bytes.
        return error.errno == errno.ENXIO
