"""The overlay: what one client wrote and what it gave back, in two sparse files of its own.

Format on disk. `X.overlay`: the file's offsets are the disk's offsets; its size is the disk's, rounded up to a page of
4 KiB. A page is either a hole (the client has nothing there) or data (the whole page is here). There is nothing else in
the file, so nothing that could disagree: which pages are there *is* the file system's extent map (SEEK_DATA,
SEEK_HOLE). A write of part of a page is made whole first (see `disk`), so a page is never half here.

`X.zeros`: one byte per page of the disk, at the page's number. 0, or a hole: nothing. ZERO_MARK: the client gave the
page back, and it reads as zeros until it is written again. Anything else is damage, and the overlay is not opened: no
single bit that flips can turn one into the other. A page that is in the overlay is in the overlay, whatever its mark
says; the mark stays when a page is written again, so a page needs no two writes to come back. There is no log and
nothing to compact: the file is bounded by the disk's size / 4,096, and marking twice is marking once.

In memory. Opening reads the marks, then walks the extents once, and builds a `PageMap`.

Order. A page counts as present only after its write returned. Killed before that, the client got no answer; killed
after, the extent is there and the next opening finds it. Across a power cut the file system decides what is there,
and only `sync` gives a promise. Giving back is marking, then punching the hole: whoever is killed between has the
page's bytes still, and never the image's. Where a power cut must not bring the image back either, `sync_marks` stands
between the two (see `disk`).

The file system must report holes page by page, also for pages of zeros, and punch them: `probe` tries, and a service
that cannot rely on it does not start. (ext4, XFS, Btrfs and tmpfs do, in blocks of a page; ZFS with compression makes
holes of zeros.)
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bootlink_blockstore.image import Buffer
from bootlink_blockstore.pagemap import ABSENT, CHUNK, PAGE, PAGE_BITS, ZEROED, PageMap

ZERO_MARK: Final = 0x5A
PROBE_SIZE: Final = 16 << 20  # larger than a huge page, which tmpfs may give a whole file, and report as one extent
VECTORS: Final = 512  # buffers per system call, well under IOV_MAX (1,024)
KEEP_SIZE: Final = 0x01  # linux/falloc.h
PUNCH_HOLE: Final = 0x02

_MARKED: Final = re.compile(bytes((ZERO_MARK,)) + b"+")
_KNOWN_MARKS: Final = bytes((0, ZERO_MARK))
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class HoleError(Exception):
    """The file system does not report holes as the overlay needs them."""


def span(size: int) -> int:
    """Bytes of the file for a disk of `size` bytes."""
    return -(-size >> PAGE_BITS) << PAGE_BITS


def zeros_path(path: Path) -> Path:
    """The file of marks that belongs to an overlay."""
    return path.with_suffix(".zeros")


def punch(fd: int, offset: int, length: int) -> None:
    """Make a hole of a range of a file. Blocks. OSError if the file system cannot."""
    if _fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Overlay(PageMap):
    """One client's pages. `fd` and `zeros_fd` are open for reading and writing; close them with `close`."""

    __slots__ = ("_marks_dirty", "fd", "nowait", "path", "zeros_fd")

    def __init__(self, path: Path, fd: int, zeros_fd: int, size: int) -> None:
        super().__init__(size)
        self.path = path
        self.fd = fd
        self.zeros_fd = zeros_fd
        self.nowait = True
        self._marks_dirty = False

    @classmethod
    def create(cls, path: Path, size: int) -> Overlay:
        """A new, empty overlay. Blocks. FileExistsError if there is one."""
        made: list[int] = []
        try:
            for file, length in ((path, span(size)), (zeros_path(path), span(size) >> PAGE_BITS)):
                made.append(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                os.ftruncate(made[-1], length)
        except OSError:
            for fd, file in zip(made, (path, zeros_path(path)), strict=False):
                os.close(fd)
                file.unlink()
            raise
        return cls(path, made[0], made[1], size)

    @classmethod
    def reopen(cls, path: Path, size: int, *, writable: bool = True) -> Overlay:
        """An overlay that is there, with its map rebuilt. Blocks. ValueError if its files are not as they must be."""
        opened: list[int] = []
        try:
            for file, length in ((path, span(size)), (zeros_path(path), span(size) >> PAGE_BITS)):
                opened.append(os.open(file, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC))
                held = os.fstat(opened[-1]).st_size
                if held != length:
                    raise ValueError(f"{file}: {held} bytes, not the {length} of its disk")
            overlay = cls(path, opened[0], opened[1], size)
            overlay.recall(0, span(size))
            overlay._marks_dirty = True  # who had it before may have died, or closed it, before a flush
        except (OSError, ValueError):
            for fd in opened:
                os.close(fd)
            raise
        return overlay

    @property
    def disk_usage(self) -> int:
        """Bytes that the files take on their file system."""
        return (os.fstat(self.fd).st_blocks + os.fstat(self.zeros_fd).st_blocks) * 512

    def recall(self, offset: int, length: int) -> None:
        """Bring the map of this range in line with the files: at opening, or after a failure half way. Blocks.

        ValueError if there is a mark that nobody made.
        """
        first, end = offset >> PAGE_BITS, -(-(offset + length) >> PAGE_BITS)
        self.mark(first, end, ABSENT)
        for start, stop in extents(self.zeros_fd, end, first):
            for position in range(start, stop, CHUNK):
                marks = os.pread(self.zeros_fd, min(CHUNK, stop - position), position)
                if marks.translate(None, _KNOWN_MARKS):
                    raise ValueError(f"{zeros_path(self.path)}: damaged near byte {position}")
                for run in _MARKED.finditer(marks):
                    self.mark(position + run.start(), position + run.end(), ZEROED)
        found = extents(self.fd, offset + length, offset)
        self.fill((start >> PAGE_BITS, -(-stop >> PAGE_BITS)) for start, stop in found)

    def read_now(self, offset: int, length: int) -> bytes | None:
        """Bytes of present pages, if they are in the page cache."""
        if not self.nowait:
            return None
        data = bytearray(length)
        try:
            if os.preadv(self.fd, [data], offset, os.RWF_NOWAIT) != length:
                return None
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                self.nowait = False
            return None  # EAGAIN, or an error that comes again in the thread
        return bytes(data)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of present pages. Blocks."""
        data = os.pread(self.fd, length, offset)
        while len(data) < length:
            more = os.pread(self.fd, length - len(data), offset + len(data))
            if not more:
                raise OSError(errno.EIO, "the overlay has become shorter", str(self.path))
            data += more
        return data

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write whole pages, or parts of present ones. May block; the caller marks them afterwards.

        OSError if that fails: some pages may be there then, each as a whole, and the caller must `recall` them.
        """
        for first in range(0, len(buffers), VECTORS):
            batch = list(buffers[first : first + VECTORS])
            wanted = sum(map(len, batch))
            written = os.pwritev(self.fd, batch, offset)
            offset += written
            if written != wanted:
                rest = memoryview(b"".join(batch))[written:]
                while rest:
                    written = os.pwrite(self.fd, rest, offset)
                    rest = rest[written:]
                    offset += written

    def write_now(self, offset: int, data: Buffer) -> bool:
        """Write whole pages by one system call. False: not, or not all of them, and `write` must be asked."""
        try:
            return os.pwrite(self.fd, data, offset) == len(data)
        except OSError:
            return False

    def mark_zeros(self, first: int, end: int) -> None:
        """Put down that pages first..end are given back. Blocks; the caller tells the map."""
        marks = memoryview(bytes((ZERO_MARK,)) * (end - first))
        try:
            while marks:
                written = os.pwrite(self.zeros_fd, marks, first)
                marks = marks[written:]
                first += written
        finally:
            self._marks_dirty = True  # and not earlier: a sync in between would take the flag and miss the marks

    def punch(self, first: int, end: int) -> None:
        """Give the space of pages first..end back, which are marked. Blocks; the caller tells the map."""
        punch(self.fd, first << PAGE_BITS, end - first << PAGE_BITS)

    def sync_marks(self) -> None:
        """What was marked survives a power cut. Blocks. After an error nothing may be believed any more."""
        if self._marks_dirty:
            self._marks_dirty = False
            os.fdatasync(self.zeros_fd)

    def sync(self) -> None:
        """What was written and given back survives a power cut. Blocks. After an error nothing may be believed."""
        self.sync_marks()
        os.fdatasync(self.fd)

    def close(self) -> None:
        for fd in (self.fd, self.zeros_fd):
            if fd >= 0:
                with contextlib.suppress(OSError):  # NFS and FUSE tell late errors here; it is closed all the same
                    os.close(fd)
        self.fd = self.zeros_fd = -1


def extents(fd: int, size: int, position: int = 0) -> Iterator[tuple[int, int]]:
    """The file's data from `position` to `size` as (start, end) in bytes."""
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here to the end
                return
            raise
        if start >= size:
            return
        position = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, min(position, size)


def probe(folder: Path) -> None:
    """Make sure that the file system reports and punches holes page by page. HoleError, with what it did, if not."""
    path = folder / f".probe-{os.getpid()}"
    # Neighbours, a lone page, a page of zeros, which is as much a write as any other, and a sector: where blocks are
    # smaller than a page, a crash or a full disk could leave a page half there.
    writes = {2: b"\1" * PAGE, 3: b"\2" * PAGE, 17: b"\3" * PAGE, 40: bytes(PAGE), 60: b"\4" * 512}
    expected = [(2 * PAGE, 4 * PAGE), *((page * PAGE, (page + 1) * PAGE) for page in (17, 40, 60))]
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, PROBE_SIZE)
        for page, data in writes.items():
            os.pwrite(fd, data, page * PAGE)
        for moment in ("after a write", "after a sync"):
            found = list(extents(fd, PROBE_SIZE))
            if found != expected:
                raise HoleError(f"{moment} it reports data at {found}, and {expected} was written")
            os.fsync(fd)
        try:
            punch(fd, 3 * PAGE, PAGE)
        except OSError as error:
            raise HoleError(f"it punches no holes ({error.strerror})") from error
        expected[0] = (2 * PAGE, 3 * PAGE)
        found = list(extents(fd, PROBE_SIZE))
        if found != expected:
            raise HoleError(f"after a hole was punched it reports data at {found}, and {expected} should be left")
    finally:
        os.close(fd)
        path.unlink()
