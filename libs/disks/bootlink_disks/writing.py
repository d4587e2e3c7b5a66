"""Files that appear whole or not at all: written beside their place, flushed, and renamed."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bootlink_disks.errors import DiskError


@contextmanager
def appearing(path: Path) -> Iterator[int]:
    """A descriptor whose file gets its name `path` when the body ends well, and is removed otherwise.

    DiskError if there is a file of that name, or it cannot be written.
    """
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


def write_at(fd: int, offset: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`. OSError if that fails."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written
