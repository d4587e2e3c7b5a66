"""Files that appear whole or not at all: written beside their place, flushed, and renamed."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bootlink_disks.errors import DiskError
from bootlink_disks.layer import Disk

PIECE: Final = 64 << 10
"""Bytes. A piece that is all zeros is left a hole in the file: small enough to save space, large enough to keep what
remains together."""

_ZEROS: Final = bytes(PIECE)
_AFTER: Final = ".part"


@contextmanager
def appearing(path: Path) -> Iterator[int]:
    """A descriptor whose file gets its name `path` when the body ends well, and is removed otherwise.

    DiskError if there is a file of that name, or it cannot be written.
    """
    with drafted(path) as draft:
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            yield fd
        finally:
            os.close(fd)


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A name beside `path` for a file to be written to, by whomever: it is flushed and gets the name `path` when the
    body ends well, and is removed otherwise.

    DiskError if there is a file of that name, or it cannot be written.
    """
    if path.exists():
        raise DiskError(f"{path}: a file of this name exists", "choose another name; layers are never overwritten")
    draft = _beside(path)
    try:
        yield draft
        _flush(draft, os.O_RDWR)
        draft.rename(path)
        _flush(path.parent, os.O_RDONLY | os.O_DIRECTORY)  # or the name may not survive a power cut
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the folder"
            raise DiskError(f"{path}: it cannot be written ({error.strerror})", remedy) from error
        raise


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A name beside `path` for a file that is needed meanwhile, and removed when the body ends."""
    name = _beside(path)
    try:
        yield name
    finally:
        name.unlink(missing_ok=True)


def clear(path: Path) -> None:
    """Remove what a writer of `path` left behind that was killed. Call it only where no other may be at work."""
    with suppress(FileNotFoundError):
        for name in os.listdir(path.parent):  # noqa: PTH208  (names are all that is asked)
            if name.startswith(f".{path.name}.") and name.endswith(_AFTER):
                path.with_name(name).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{_AFTER}")


def _flush(path: Path, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_at(fd: int, offset: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`. OSError if that fails."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written


def write_sparse(fd: int, offset: int, data: bytes | memoryview) -> None:
    """Write `data` without its pieces that are all zeros. OSError if that fails."""
    start = 0  # of what is to be written at once
    for at in range(0, len(data), PIECE):
        piece = data[at : at + PIECE]
        if piece == _ZEROS[: len(piece)]:
            if start < at:
                write_at(fd, offset + start, memoryview(data)[start:at])
            start = at + len(piece)
    if start < len(data):
        write_at(fd, offset + start, memoryview(data)[start:])


def stored_blocks(disk: Disk, block_size: int, progress: Callable[[int], None]) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of each block that is not all zeros; the last may be shorter than the others.

    `progress` is told the bytes of the disk looked at so far. DiskError if the disk cannot be read.
    """
    zeros = bytes(block_size)
    for block in range(-(-disk.size // block_size)):
        offset = block * block_size
        length = min(block_size, disk.size - offset)
        if not disk.is_empty(offset, length):
            data = disk.read(offset, length)
            if data != zeros[:length]:
                yield block, data
        progress(offset + length)
