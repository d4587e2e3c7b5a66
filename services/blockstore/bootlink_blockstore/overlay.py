"""The overlay: what one client wrote, in a sparse file of its own.

Format on disk. The file's offsets are the disk's offsets; its size is the disk's, rounded up to a page of 4 KiB. A
page is either a hole (the client did not write it; the image below has the bytes) or data (the whole page is here).
There is nothing else in the file, so nothing that could disagree: which pages are there *is* the file system's extent
map (SEEK_DATA, SEEK_HOLE). A write of part of a page is made whole first (see `disk`), so a page is never half here.

In memory. Opening walks the extents once and builds a map of two levels: a dictionary of chunks of 4,096 pages (16 MiB
of disk), each a `bytearray` with one state per page. A client that wrote nothing costs nothing, and what most reads
ask ("has it written here at all?") is one look-up.

Order. A page counts as present only after its write returned. Killed before that, the client got no answer; killed
after, the extent is there and the next opening finds it. Across a power cut the file system decides what is there,
and only `sync` gives a promise.

The file system must report holes page by page, also for pages of zeros: `probe` tries, and a service that cannot rely
on it does not start. (ext4, XFS, Btrfs and tmpfs do, in blocks of a page; ZFS with compression makes holes of zeros.)

Deliberately not here: zeroed ranges (UNMAP), which need a record beside the file, and quotas.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bootlink_blockstore.image import Buffer

PAGE_BITS: Final = 12
PAGE: Final = 1 << PAGE_BITS
CHUNK_BITS: Final = 12
CHUNK: Final = 1 << CHUNK_BITS  # pages
ABSENT: Final = 0
PRESENT: Final = 1
PROBE_SIZE: Final = 16 << 20  # larger than a huge page, which tmpfs may give a whole file, and report as one extent
VECTORS: Final = 512  # buffers per system call, well under IOV_MAX (1,024)


class HoleError(Exception):
    """The file system does not report holes as the overlay needs them."""


def span(size: int) -> int:
    """Bytes of the file for a disk of `size` bytes."""
    return -(-size >> PAGE_BITS) << PAGE_BITS


class Overlay:
    """One client's pages. `fd` is open for reading and writing; close it with `close`."""

    __slots__ = ("chunks", "fd", "nowait", "pages", "path", "size")

    def __init__(self, path: Path, fd: int, size: int) -> None:
        self.path = path
        self.fd = fd
        self.size = size
        self.chunks: dict[int, bytearray] = {}
        self.pages = 0
        self.nowait = True

    @classmethod
    def create(cls, path: Path, size: int) -> Overlay:
        """A new, empty overlay. Blocks. FileExistsError if there is one."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, span(size))
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        return cls(path, fd, size)

    @classmethod
    def reopen(cls, path: Path, size: int) -> Overlay:
        """An overlay that is there, with its map rebuilt from its extents. Blocks. ValueError if its size is wrong."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            held = os.fstat(fd).st_size
            if held != span(size):
                raise ValueError(f"{path}: {held} bytes, not the {span(size)} of its disk")
            overlay = cls(path, fd, size)
            overlay.recall(0, held)
        except (OSError, ValueError):
            os.close(fd)
            raise
        return overlay

    @property
    def disk_usage(self) -> int:
        """Bytes that the file takes on its file system."""
        return os.fstat(self.fd).st_blocks * 512

    def mark(self, first: int, end: int) -> None:
        """Pages first..end are present."""
        while first < end:
            number, at = first >> CHUNK_BITS, first & CHUNK - 1
            count = min(CHUNK - at, end - first)
            chunk = self.chunks.get(number)
            if chunk is None:
                chunk = self.chunks[number] = bytearray(CHUNK)
            self.pages += chunk.count(ABSENT, at, at + count)
            chunk[at : at + count] = bytes((PRESENT,)) * count
            first += count

    def recall(self, offset: int, length: int) -> None:
        """Mark what the file has of this range: all of it at opening, or after a write that failed half way. Blocks."""
        for start, end in extents(self.fd, offset + length, offset):
            self.mark(start >> PAGE_BITS, -(-end >> PAGE_BITS))

    def touches(self, offset: int, length: int) -> bool:
        """Is any page of this range present?"""
        first, last = offset >> PAGE_BITS, offset + length - 1 >> PAGE_BITS
        number = first >> CHUNK_BITS
        if number == last >> CHUNK_BITS:
            chunk = self.chunks.get(number)
            return chunk is not None and chunk.find(PRESENT, first & CHUNK - 1, (last & CHUNK - 1) + 1) >= 0
        return any(present for present, _, _ in self.runs(offset, length))

    def present(self, page: int) -> bool:
        chunk = self.chunks.get(page >> CHUNK_BITS)
        return chunk is not None and chunk[page & CHUNK - 1] == PRESENT

    def runs(self, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
        """The range as runs (present, start, end) in bytes, in order. Runs do not cross chunks."""
        position, stop = offset, offset + length
        while position < stop:
            page = position >> PAGE_BITS
            number, at = page >> CHUNK_BITS, page & CHUNK - 1
            chunk = self.chunks.get(number)
            if chunk is None:
                present, end = False, CHUNK
            else:
                present = chunk[at] == PRESENT
                end = chunk.find(ABSENT if present else PRESENT, at)
                if end < 0:
                    end = CHUNK
            until = min(stop, (number << CHUNK_BITS) + end << PAGE_BITS)
            yield present, position, until
            position = until

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

    def sync(self) -> None:
        """What was written survives a power cut. Blocks. After an error nothing may be believed any more."""
        os.fdatasync(self.fd)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


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
    """Make sure that the file system reports holes page by page. HoleError, with what it did, if it does not."""
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
    finally:
        os.close(fd)
        path.unlink()
