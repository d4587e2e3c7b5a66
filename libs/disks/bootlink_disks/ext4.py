"""ext4 (and ext2, ext3): its free blocks. Bytes in, no I/O of its own.

Source: the kernel's Documentation/filesystems/ext4 (superblock, group descriptors, bitmaps). Little-endian.

    0      boot sector
    1024   superblock
    block 1 (block 2 of 1 KiB)   group descriptors: where each group's block bitmap is, and how many blocks are free

How it works. Only a file system that was unmounted well is believed: no journal to be replayed, no errors, no orphans
under way. Each group's bitmap must have as many free blocks as its descriptor says, or nothing of it is believed. A
group that was never used (BLOCK_UNINIT) has no bitmap yet: in use there are copies of superblock and descriptors, where
the group has some, and bitmaps and inode tables that lie in it. If that does not add up either, all of it is in use.

Deliberately not here: META_BG (descriptors elsewhere) and BIGALLOC (bits of clusters); both are rare, and refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from bootlink_disks.bitmap import MAX_BITMAP, FreeSpace
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import Pread

SUPERBLOCK_AT: Final = 1024
SUPERBLOCK_SIZE: Final = 1024
MAGIC: Final = 0xEF53

CLEAN: Final = 1
ERRORS: Final = 2
RECOVER: Final = 0x4
META_BG: Final = 0x10
WITH_64BIT: Final = 0x80
RESIZE_INODE: Final = 0x10
SPARSE_SUPER2: Final = 0x200  # of the compatible features
SPARSE_SUPER: Final = 1  # of the read-only compatible ones, as the next two
BIGALLOC: Final = 0x200
ORPHANS: Final = 0x1_0000
BLOCK_UNINIT: Final = 2

_INCOMPAT_KNOWN: Final = 0x2 | RECOVER | META_BG | 0x40 | WITH_64BIT | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x38000
"""File types, extents, MMP, flexible groups, xattr inodes, checksum seed, large folders, inline data, encryption, case
folding: none changes what the block bitmap means."""

_CLOSE: Final = "start the disk's system and shut it down, or run e2fsck"
_DAMAGED: Final = "run e2fsck on it"


def is_it(read: Pread) -> bool:
    """Whether a partition has a superblock of this kind."""
    return read(SUPERBLOCK_AT + 56, 2) == MAGIC.to_bytes(2, "little")


def free_space(read: Pread, length: int) -> FreeSpace:
    """The free blocks of a file system in a partition of `length` bytes. DiskError if it cannot be told."""
    sb = read(SUPERBLOCK_AT, SUPERBLOCK_SIZE)
    if len(sb) < SUPERBLOCK_SIZE:
        raise DiskError("it is cut short", _DAMAGED)
    system = _System(sb, length)
    table = read((system.first + 1) * system.size, system.groups * system.each)
    if len(table) != system.groups * system.each:
        raise DiskError("its group descriptors lie past its end", _DAMAGED)
    groups = [system.group(table[at : at + system.each]) for at in range(0, len(table), system.each)]
    return FreeSpace(system.first * system.size, system.size, system.count, _bitmap(read, system, groups))


class _Group(NamedTuple):
    block_bitmap: int  # block numbers, from the partition's start
    inode_bitmap: int
    inode_table: int
    free: int  # blocks
    unused: bool  # its block bitmap was never written


class _System:
    """A file system, by its superblock."""

    def __init__(self, sb: bytes, length: int) -> None:
        blocks, self.first, log_size, self.per_group, inodes = (_u32(sb, at) for at in (4, 20, 24, 32, 40))
        compat, incompat, self._ro_compat = _u32(sb, 92), _u32(sb, 96), _u32(sb, 100)
        _require_plain(_u16(sb, 58), incompat, self._ro_compat)
        self._wide = bool(incompat & WITH_64BIT)
        if self._wide:
            blocks |= _u32(sb, 336) << 32
        self.size = 1024 << log_size if log_size <= 6 else 0
        self.each = _u16(sb, 254) if self._wide else 32  # bytes of a descriptor
        inode_size = _u16(sb, 88) or 128
        if (
            not self.size
            or self.first != (self.size == 1024)
            or not 0 < self.per_group <= 8 * self.size
            or self.per_group % 8
            or self.each not in ((64, 128, 256, 512, 1024) if self._wide else (32,))
            or not 0 < inodes <= 8 * self.size
            or not self.first < blocks <= length // self.size
        ):
            raise DiskError("its superblock contradicts itself, or its partition", _DAMAGED)
        self.count = blocks - self.first
        self.groups = -(-self.count // self.per_group)
        if self.groups * self.per_group // 8 > MAX_BITMAP:
            raise DiskError(f"it has {blocks} blocks, too many to be looked at", "only its zeros are left out")
        self.table_blocks = -(-inodes * inode_size // self.size)
        # Superblock and descriptors, and room for these to grow, as in each group that has copies of them.
        reserved = _u16(sb, 206) if compat & RESIZE_INODE else 0
        self.copied = 1 + -(-self.groups * self.each // self.size) + reserved
        self._backups = (_u32(sb, 588), _u32(sb, 592)) if compat & SPARSE_SUPER2 else None

    def group(self, descriptor: bytes) -> _Group:
        places = [_u32(descriptor, at) | (_u32(descriptor, at + 32) << 32 if self._wide else 0) for at in (0, 4, 8)]
        free = _u16(descriptor, 12) | (_u16(descriptor, 44) << 16 if self._wide else 0)
        return _Group(places[0], places[1], places[2], free, bool(_u16(descriptor, 18) & BLOCK_UNINIT))

    def blocks_of(self, number: int) -> int:
        """How many blocks that group has; the last may have fewer than the others."""
        return min(self.per_group, self.count - number * self.per_group)

    def has_copies(self, number: int) -> bool:
        """Whether that group begins with copies of superblock and descriptors."""
        if self._backups is not None:
            return number == 0 or number in self._backups
        if not self._ro_compat & SPARSE_SUPER or number <= 1:
            return True
        return any(_is_power(number, base) for base in (3, 5, 7))


def _require_plain(state: int, incompat: int, ro_compat: int) -> None:
    """DiskError unless it was closed well, and its bitmap means what it says."""
    if not state & CLEAN or incompat & RECOVER or ro_compat & ORPHANS:
        raise DiskError("it was not closed well, so what is free cannot be told", _CLOSE)
    if state & ERRORS:
        raise DiskError("it is marked as having errors", _DAMAGED)
    if incompat & META_BG or ro_compat & BIGALLOC or incompat & ~_INCOMPAT_KNOWN:
        raise DiskError("it has features that are not read here", "only its zeros are left out")


def _bitmap(read: Pread, system: _System, groups: list[_Group]) -> bytearray:
    """The bitmaps of all groups, one after the other."""
    length = system.per_group // 8
    bits = bytearray()
    for group in groups:
        part = bytes(length) if group.unused else read(group.block_bitmap * system.size, length)
        if len(part) != length:
            raise DiskError("a block bitmap lies past its end", _DAMAGED)
        bits += part
    for first, count in _own_blocks(system, groups):
        for block in range(max(first, 0), min(first + count, len(bits) * 8)):
            bits[block >> 3] |= 1 << (block & 7)
    for number, group in enumerate(groups):
        count = system.blocks_of(number)
        value = int.from_bytes(bits[number * length : (number + 1) * length], "little")
        used = (value & (1 << count) - 1).bit_count()
        if count - used == group.free:
            continue
        if not group.unused:
            raise DiskError("a block bitmap has not as many free blocks as its group says", _DAMAGED)
        bits[number * length : (number + 1) * length] = b"\xff" * length
    return bits


def _own_blocks(system: _System, groups: list[_Group]) -> Iterator[tuple[int, int]]:
    """(first block, blocks) of what the file system keeps for itself in groups that were never used."""
    unused = {number for number, group in enumerate(groups) if group.unused}
    for number in unused:
        if system.has_copies(number):
            yield number * system.per_group, system.copied
    for group in groups if unused else ():
        kept = ((group.block_bitmap, 1), (group.inode_bitmap, 1), (group.inode_table, system.table_blocks))
        for place, count in kept:
            first = place - system.first
            if unused & {first // system.per_group, (first + count - 1) // system.per_group}:
                yield first, count


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
