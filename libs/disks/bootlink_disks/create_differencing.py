"""Writing a differencing VHD: what changed of a parent's disk.

The file has the layout of `create`, and after the BAT the parent's path in the two ways that Windows looks for:
relative to the file (W2ru) and absolute (W2ku). A block that has a changed sector gets its place in the file; only the
changed sectors of it are written, and only their bits are set. Longer zeros stay holes in the file.

**The order.** Data, flush; bitmaps, flush; then BAT, header and footers. In a differencing disk each of these steps
uncovers the one before: a BAT entry without its bitmap, or a bitmap without its data, would show zeros where the parent
has bytes. The file has no name until all are done, so this holds for whoever finds the unfinished file too.

Deliberately not here: changing a differencing VHD that exists (a layer is written once), copying from the parent (a
sector is the unit, and changes are whole sectors), and VHDX, which takes seven flushes to say the same.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from bootlink_disks import vhd
from bootlink_disks.blocks import BITMAP_LIMIT
from bootlink_disks.chain import NIL
from bootlink_disks.create import (
    DEFAULT_BLOCK_SIZE,
    HEADER_AT,
    TABLE_AT,
    empty_table,
    next_block,
    now,
    require_block_size,
    require_room,
    table_bytes,
)
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import SECTOR, ImageInfo
from bootlink_disks.open import probe
from bootlink_disks.writing import appearing, write_at, write_sparse


def create_vhd_differencing(
    path: str | os.PathLike[str],
    parent: ImageInfo,
    changes: Iterable[tuple[int, bytes]],
    *,
    size: int | None = None,
    block_size: int = DEFAULT_BLOCK_SIZE,
    unique_id: uuid.UUID | None = None,
    timestamp: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImageInfo:
    """Make `path` a differencing VHD on `parent` with these changes: (offset, bytes), ascending and apart.

    Offsets and lengths are whole sectors within the disk (ValueError), which has the parent's size or a larger `size`.
    `unique_id` and `timestamp` (seconds since 2000) are how its own children name it; new ones if they are not given.
    `progress` is called with the bytes of the disk done so far. Blocks: call it in a thread. DiskError if the disk is
    too large for VHD, `path` exists, or it cannot be written. What iterating `changes` raises passes through.
    """
    path = Path(path)
    with appearing(path) as fd:
        write_vhd_differencing(
            fd,
            path,
            parent,
            changes,
            size=size,
            block_size=block_size,
            unique_id=unique_id,
            timestamp=timestamp,
            progress=progress,
        )
    return probe(path)


def write_vhd_differencing(
    fd: int,
    path: Path,
    parent: ImageInfo,
    changes: Iterable[tuple[int, bytes]],
    *,
    size: int | None = None,
    block_size: int = DEFAULT_BLOCK_SIZE,
    unique_id: uuid.UUID | None = None,
    timestamp: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """`create_vhd_differencing` into an open, empty file that is going to be `path`. The last flush and the name are
    the caller's; until both are done nobody may take the file for a disk. OSError if it cannot be written."""
    size = size or parent.virtual_size
    require_block_size(block_size)
    if size < parent.virtual_size or size % SECTOR:
        raise ValueError(f"a child of {size} bytes does not fit on a parent of {parent.virtual_size}")
    require_room(parent.path, size, block_size)
    footer = vhd.Footer(vhd.DIFFERENCING, size, unique_id or uuid.uuid4(), HEADER_AT, now(timestamp))
    _Writer(fd, size, block_size).write(path, parent, changes, bytes(footer), progress)


def bitmaps_fit(blocks: int, block_size: int = DEFAULT_BLOCK_SIZE) -> bool:
    """Whether a differencing VHD may have changes in so many blocks."""
    return blocks * vhd.bitmap_size(block_size) <= BITMAP_LIMIT


class _Writer:
    """One file being written."""

    def __init__(self, fd: int, size: int, block_size: int) -> None:
        self._fd = fd
        self._size = size
        self._block_size = block_size
        self._bitmap_size = vhd.bitmap_size(block_size)
        self._entries = -(-size // block_size)
        self._table = empty_table(self._entries)
        self._bitmaps: dict[int, bytearray] = {}

    def write(
        self,
        path: Path,
        parent: ImageInfo,
        changes: Iterable[tuple[int, bytes]],
        footer: bytes,
        progress: Callable[[int], None] | None,
    ) -> None:
        header, locators = self._header(path, parent)
        end = TABLE_AT + len(self._table) * 4 + len(locators)
        done = 0
        for offset, data in changes:
            if offset < done or offset % SECTOR or len(data) % SECTOR or offset + len(data) > self._size:
                raise ValueError(f"{len(data)} bytes at {offset} are no whole sectors behind {done}, within the disk")
            done = offset + len(data)
            view = memoryview(data)
            while view:
                end, written = self._write_part(end, offset, view)
                offset, view = offset + written, view[written:]
            if progress is not None:
                progress(done)
        os.fdatasync(self._fd)
        for block, bits in self._bitmaps.items():
            write_at(self._fd, self._table[block] * SECTOR, bits)
        os.fdatasync(self._fd)
        write_at(self._fd, 0, footer + bytes(header) + table_bytes(self._table) + locators)
        write_at(self._fd, end, footer)

    def _write_part(self, end: int, offset: int, data: memoryview) -> tuple[int, int]:
        """Write what lies in the first block. The new end of the file, and the bytes written."""
        block, within = divmod(offset, self._block_size)
        part = min(len(data), self._block_size - within)
        if block not in self._bitmaps:
            if not bitmaps_fit(len(self._bitmaps) + 1, self._block_size):
                raise DiskError(
                    f"the changes touch more than {len(self._bitmaps)} blocks of {self._block_size} bytes",
                    "that is too much for one layer; make a whole disk of them instead",
                )
            self._bitmaps[block] = bytearray(self._bitmap_size)
            start = next_block(end, self._bitmap_size)
            self._table[block] = start // SECTOR
            end = start + self._bitmap_size + self._block_size
        _set_bits(self._bitmaps[block], within // SECTOR, (within + part) // SECTOR)
        write_sparse(self._fd, self._table[block] * SECTOR + self._bitmap_size + within, data[:part])
        return end, part

    def _header(self, path: Path, parent: ImageInfo) -> tuple[vhd.DynamicHeader, bytes]:
        """The dynamic header, and the locators' data, which follows the BAT."""
        relative = os.path.relpath(parent.path.absolute(), path.parent.absolute())
        ways = (
            (vhd.WINDOWS_RELATIVE, relative if relative.startswith("..") else f"./{relative}"),
            (vhd.WINDOWS_ABSOLUTE, str(parent.path.absolute())),
        )
        at = TABLE_AT + len(self._table) * 4
        locators, data = [], b""
        for platform, way in ways:
            text = way.replace("/", "\\").encode("utf-16-le", "replace")
            space = -(-len(text) // SECTOR) * SECTOR
            locators.append(vhd.Locator(platform, space, len(text), at + len(data)))
            data += text.ljust(space, b"\0")
        return vhd.DynamicHeader(
            TABLE_AT,
            self._entries,
            self._block_size,
            parent.uuid or NIL,
            parent.timestamp or parent.mtime_ns // 10**9 - vhd.EPOCH,
            parent.path.name[: vhd.MAX_PARENT_NAME],
            tuple(locators),
        ), data


def _set_bits(bits: bytearray, first: int, end: int) -> None:
    """Set the bits of sectors first..end; the highest bit of a byte is its first sector."""
    while first < end and first & 7:
        bits[first >> 3] |= 0x80 >> (first & 7)
        first += 1
    while first < end and end & 7:
        end -= 1
        bits[end >> 3] |= 0x80 >> (end & 7)
    bits[first >> 3 : end >> 3] = b"\xff" * (end - first >> 3)
