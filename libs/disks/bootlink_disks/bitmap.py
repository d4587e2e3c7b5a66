"""The allocation bitmap of a file system: a bit per block, least significant first; 1 is in use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

MAX_BITMAP: Final = 256 << 20
"""Bytes of one file system's bitmap that are held: 8 TiB in blocks of 4 KiB."""


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """The free blocks of one file system."""

    offset: int  # bytes on the disk, of the first block
    unit: int  # bytes of a block
    count: int  # blocks
    bits: bytes | bytearray

    def moved(self, by: int) -> FreeSpace:
        """The same, further on the disk."""
        return replace(self, offset=self.offset + by)

    def within(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """(start, stop) in bytes of each free range within [offset, offset + length) of the disk, in disk order."""
        low = max(0, (offset - self.offset) // self.unit)
        high = min(self.count, -(-(offset + length - self.offset) // self.unit))
        if low >= high:
            return
        first = low >> 3
        free = ~int.from_bytes(self.bits[first : high + 7 >> 3], "little")
        free = free >> (low - first * 8) & (1 << high - low) - 1
        block = low
        while free:
            skipped = (free & -free).bit_length() - 1
            free >>= skipped
            run = (~free & free + 1).bit_length() - 1
            free >>= run
            start = self.offset + (block + skipped) * self.unit
            block += skipped + run
            yield max(start, offset), min(self.offset + block * self.unit, offset + length)
