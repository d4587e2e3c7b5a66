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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from sys import byteorder

from bootlink_disks import vhd
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import SECTOR, ImageInfo, Kind, OpenLayer
from bootlink_disks.open import open_layer, probe
from bootlink_disks.vhd_dynamic import MAX_BLOCK_SIZE, MAX_ENTRIES, MIN_BLOCK_SIZE

DEFAULT_BLOCK_SIZE = 2 << 20  # bytes; the specification's own
DATA_ALIGNMENT = 4096  # bytes; a page
_PIECE = 64 << 10  # bytes; a piece of a block that is all zeros is left a hole in the file
_ZEROS = bytes(_PIECE)

_HEADER_AT = vhd.FOOTER_SIZE
_TABLE_AT = _HEADER_AT + vhd.HEADER_SIZE


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
    if block_size & (block_size - 1) or not MIN_BLOCK_SIZE <= block_size <= MAX_BLOCK_SIZE:
        raise ValueError(f"a block of {block_size} bytes is no power of two from {MIN_BLOCK_SIZE} to {MAX_BLOCK_SIZE}")
    with ExitStack() as stack:
        layer = source if isinstance(source, OpenLayer) else stack.enter_context(open_layer(source, "raw"))
        if layer.size > vhd.MAX_SIZE or -(-layer.size // block_size) > MAX_ENTRIES:
            raise DiskError(
                f"{layer.info.path}: a disk of {layer.size} bytes does not fit into a VHD with this block size",
                "use the default block size; a VHD ends at 2040 GiB",
            )
        with _appearing(path) as fd:
            _write(fd, layer, block_size, unique_id or uuid.uuid4(), progress or (lambda _done: None))
    return probe(path)


def _write(fd: int, layer: OpenLayer, block_size: int, unique_id: uuid.UUID, progress: Callable[[int], None]) -> None:
    entries = -(-layer.size // block_size)
    table = array("I", [vhd.NO_BLOCK]) * (-(-entries * 4 // SECTOR) * SECTOR // 4)
    footer = bytes(
        # The largest geometry makes QEMU take the size from the footer, for creators that it does not know.
        vhd.Footer(vhd.DYNAMIC, layer.size, unique_id, _HEADER_AT, timestamp=int(time.time()) - vhd.EPOCH)
    )
    bitmap = b"\xff" * vhd.bitmap_size(block_size)
    end = _TABLE_AT + len(table) * 4
    for block, data in _blocks(layer, block_size):
        start = -(-(end + len(bitmap)) // DATA_ALIGNMENT) * DATA_ALIGNMENT - len(bitmap)
        _write_at(fd, start, bitmap)
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            if piece != _ZEROS[: len(piece)]:
                _write_at(fd, start + len(bitmap) + at, piece)
        table[block] = start // SECTOR
        end = start + len(bitmap) + block_size  # the last block is whole too, with a hole past the disk's end
        progress(block * block_size + len(data))
    if byteorder == "little":
        table.byteswap()
    _write_at(fd, 0, footer + bytes(vhd.DynamicHeader(_TABLE_AT, entries, block_size)) + table.tobytes())
    _write_at(fd, end, footer)
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


def _write_at(fd: int, offset: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written


@contextmanager
def _appearing(path: Path) -> Iterator[int]:
    """A descriptor whose file gets its name `path` when the body ends well, and is removed otherwise."""
    if path.exists():
        raise DiskError(f"{path}: a file of this name exists", "choose another name; layers are never overwritten")
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            yield fd
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # or the name may not survive a power cut
        finally:
            os.close(directory)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the folder"
            raise DiskError(f"{path}: it cannot be written ({error.strerror})", remedy) from error
        raise
