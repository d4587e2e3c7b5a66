"""The loader folders: boot files read whole into memory, and nothing but what lies in these folders.

Folders are searched in order, so a user's own loader takes precedence over the distribution's. Inside a folder a
name is walked segment by segment, each opened relative to the one before it and without following a symbolic link
(what openat2's RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS would do): no race and no link can lead out. Where a segment
does not exist as asked, the one entry that differs in upper and lower case only is taken, because firmware that
comes from Windows asks in any case.

Loaders are smaller than 2 MB and a whole room asks for the same one at once, so a file is read once and kept in a
cache that is bounded in bytes; it is read anew when its size or time changed. Reading is done on a thread: the event
loop waits for no disk, nor for a FIFO that somebody put there.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

FILE_MAX: Final = 64 << 20  # bytes of one file in memory, ample for a kernel; what is larger is for HTTP alone
CACHE_MAX: Final = 256 << 20  # bytes of all cached files: two folders of loaders fit many times over
ENTRIES_MAX: Final = 4_096  # directory entries looked at for a name in other case

_FOLLOW_NONE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_Taken = TypeVar("_Taken")
_Stamp = tuple[int, int, int, int]  # device, inode, size, modification time


class FileMissing(Exception):
    """No folder has this file."""


class FileRefused(Exception):
    """There is something of this name, but it is not served; the text says why."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that is read piece by piece. It is as large as when it was opened."""

    descriptor: int
    size: int

    def read(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start`; fewer where the file became shorter. Blocks. Raises OSError."""
        return os.pread(self.descriptor, size, start)

    def close(self) -> None:
        os.close(self.descriptor)


class Folders:
    """Several folders as one. Safe to use from threads."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)
        self._cache: OrderedDict[_Stamp, bytes] = OrderedDict()
        self._cached = 0
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The files on the top level of the folders, sorted: what the administrator can expect to be served."""
        found: set[str] = set()
        for root in self.roots:
            try:
                found.update(
                    entry.name
                    for entry in os.scandir(root)
                    if entry.is_file(follow_symlinks=False) and not entry.name.startswith(".")
                )
            except OSError:
                continue
        return sorted(found)

    def read(self, path: Sequence[str]) -> bytes:
        """The contents of a file. `path` is what `names.parts` returns. Raises FileMissing or FileRefused. Blocks."""
        return self._find(path, self._contents)

    def fetch(self, path: Sequence[str]) -> bytes | OpenFile:
        """As `read`; a file that is larger than one in memory may be is opened, and to be closed by the caller."""
        return self._find(path, self._contents_or_open)

    def _find(self, path: Sequence[str], take: Callable[[int, str], _Taken]) -> _Taken:
        refused: FileRefused | None = None
        for root in self.roots:
            try:
                return self._take_below(root, path, take)
            except FileMissing:
                continue
            except FileRefused as error:
                refused = refused or error  # another folder may have it all the same
        raise refused or FileMissing("/".join(path))

    def _take_below(self, root: Path, path: Sequence[str], take: Callable[[int, str], _Taken]) -> _Taken:
        opened: list[int] = []
        try:
            try:
                folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise FileMissing(str(root)) from error
            except OSError as error:  # not permitted, or no descriptor is left: the file may well be there
                raise _why(error, path[-1]) from error
            opened.append(folder)
            for segment in path[:-1]:
                folder = _open_in(folder, segment, os.O_DIRECTORY)
                opened.append(folder)
            file = _open_in(folder, path[-1], 0)
            opened.append(file)
            return take(file, path[-1])
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _contents_or_open(self, file: int, name: str) -> bytes | OpenFile:
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_size > FILE_MAX:
            return OpenFile(os.dup(file), status.st_size)
        return self._contents(file, name)

    def _contents(self, file: int, name: str) -> bytes:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise FileRefused(f"{name} is no regular file")
        if status.st_size > FILE_MAX:
            raise FileRefused(f"{name} is larger than the {FILE_MAX >> 20} MiB that TFTP serves; fetch it over HTTP")
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:  # held while reading: a room that asks for one loader reads it once
            if (cached := self._cache.get(stamp)) is not None:
                self._cache.move_to_end(stamp)
                return cached
            contents = b""
            while chunk := os.read(file, FILE_MAX + 1 - len(contents)):
                contents += chunk
                if len(contents) > FILE_MAX:
                    raise FileRefused(f"{name} grew while it was read")
            self._cache[stamp] = contents
            self._cached += len(contents)
            while self._cached > CACHE_MAX:
                self._cached -= len(self._cache.popitem(last=False)[1])
            return contents


def _open_in(folder: int, name: str, flags: int) -> int:
    """Open one segment inside an open folder. Raises FileMissing or FileRefused."""
    try:
        return os.open(name, _FOLLOW_NONE | flags, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise _why(error, name) from error
    other = _in_other_case(folder, name)
    try:
        return os.open(other, _FOLLOW_NONE | flags, dir_fd=folder)
    except OSError as error:
        raise _why(error, other) from error


def _in_other_case(folder: int, name: str) -> str:
    wanted = name.lower()
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count >= ENTRIES_MAX:
                break
            if entry.name.lower() == wanted:
                return entry.name
    raise FileMissing(name)


def _why(error: OSError, name: str) -> Exception:
    if error.errno == errno.ENOENT:
        return FileMissing(name)
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        # O_NOFOLLOW on a link: ELOOP; with O_DIRECTORY: ENOTDIR.
        return FileRefused(f"{name} is a symbolic link or no folder; links are not followed, so put a copy there")
    return FileRefused(f"{name} cannot be read ({error.strerror})")
