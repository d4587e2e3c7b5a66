"""Free space: which bytes of a disk belong to no file, by the file systems on it. For compaction.

How it works. `find` walks the partitions and asks each known file system (`FILE_SYSTEMS`) whether it is its own. One
that was closed well answers its allocation bitmap, a bit per block, least significant first, 1 for "in use"; it is kept
whole (`bitmap.MAX_BITMAP`) and asked for a part of the disk at a time. One that was not closed well, is damaged, or has
features that change what its bitmap means, is left as it is, and a note says why: what is in doubt is in use.

The bytes of free space may be anything, and nobody misses them: a file system never reads a block before it has
written it. So a disk with zeros there shows all files as before, and is yet another content.

Deliberately not here: FAT, swap, LVM and encrypted partitions. Their blocks of zeros are left out like anybody's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from bootlink_disks import ext4, ntfs
from bootlink_disks.bitmap import FreeSpace
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import Pread
from bootlink_disks.partitions import partitions


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A file system that tells its free space."""

    name: str
    is_it: Callable[[Pread], bool]  # by its first bytes
    free_space: Callable[[Pread, int], FreeSpace]  # of a partition of that many bytes; DiskError


FILE_SYSTEMS: Final = (
    FileSystem("NTFS", ntfs.is_it, ntfs.free_space),
    FileSystem("ext4", ext4.is_it, ext4.free_space),
)


class DiskSpace:
    """The free space of a disk, and notes on file systems that were left as they are."""

    def __init__(self, spaces: list[FreeSpace], notes: tuple[str, ...]) -> None:
        self._spaces = spaces
        self.notes = notes

    def within(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of each free range within [offset, offset + length), in disk order."""
        for space in self._spaces:
            yield from space.within(offset, length)


def find(read: Pread, size: int) -> DiskSpace:
    """The free space of a disk of `size` bytes. What `read` raises passes through, as the disk itself fails then."""
    spaces: list[FreeSpace] = []
    notes: list[str] = []
    try:
        found = partitions(_part(read, 0, size), size)
    except DiskError as error:
        return DiskSpace([], (f"the disk: {error.problem}",))
    for partition in found:
        part = _part(read, partition.offset, partition.length)
        for system in FILE_SYSTEMS:
            if system.is_it(part):
                try:
                    spaces.append(system.free_space(part, partition.length).moved(partition.offset))
                except DiskError as error:
                    notes.append(f"{system.name} at byte {partition.offset}: {error.problem}; {error.remedy}")
                break
    return DiskSpace(spaces, tuple(notes))


def _part(read: Pread, start: int, length: int) -> Pread:
    """A part of the disk as a thing of its own; past its end there is nothing."""

    def pread(offset: int, count: int) -> bytes:
        count = min(count, length - offset)
        return read(start + offset, count) if offset >= 0 and count > 0 else b""

    return pread
