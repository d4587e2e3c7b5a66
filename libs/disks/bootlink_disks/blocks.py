"""The map of a disk that is kept in blocks: where each block lies in the file, and which of its sectors are there.

How it works. A disk is cut into blocks of one size, a power of two. For each there is one 32-bit number, its **place**:
the block's position in the file in `unit`s (sectors for VHD, MiB for VHDX), or one of

    NOWHERE    the file has no such block: zeros, or the parent's bytes, by `missing`
    ZEROED     the block is all zeros, and hides the parent's

A look-up is a shift and an index. In a differencing disk a block may be there in part: its **sector bitmap** has a bit
for each 512-byte sector, most significant bit first: 1 for "here", 0 for "ask the parent". Only bitmaps that are mixed
are kept (`partial`); a block whose bits are all ones is as one without a bitmap, and one whose bits are all zeros is
NOWHERE. `Bitmaps` collects them when a layer is opened, and ends at BITMAP_LIMIT.

Before a map is made `prove_apart` shows that no two blocks share a byte, that none lies over the file's own structures,
and that all lie within the file. So what `locate` answers never needs to be doubted.
"""

from __future__ import annotations

import operator
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Final

from bootlink_disks.errors import DiskError
from bootlink_disks.layer import SECTOR, Kind, Run

NOWHERE: Final = 0xFFFF_FFFF
ZEROED: Final = 0xFFFF_FFFE

MAX_BLOCKS: Final = 1 << 20
"""Blocks of a disk: 2 TiB in VHD's blocks of 2 MiB, 32 TiB in Hyper-V's of 32 MiB, 1 TiB in the smallest of VHDX.
They cost 4 MiB for as long as the layer is open, about 50 MiB while they are proved, and less than a second."""

BITMAP_LIMIT: Final = 64 << 20
"""Bytes of sector bitmaps that one differencing layer may have, each counted as at least a sector: 131,072 blocks of
VHD or of VHDX, so 256 GiB of changes in blocks of 2 MiB. All are read when the layer is opened, and a look-up must not
wait for a disk; a layer with more is better merged."""

DAMAGED: Final = "the file is damaged; copy it again from where it came, or restore it from a copy"
_CUT: Final = "the file is cut short or damaged; copy it again from where it came"
_STEP: Final = 4096  # sectors of a bitmap looked at as one number


class BlockMap:
    """Where the bytes of a disk in blocks live. `places` has one entry per block, each proved to lie in the file."""

    __slots__ = ("_lead", "_mask", "_missing", "_partial", "_places", "_shift", "_unit", "block_size", "size")

    def __init__(
        self,
        size: int,
        block_size: int,
        places: array[int],
        *,
        unit: int,  # bytes
        lead: int = 0,  # bytes from a block's place to its data
        missing: Kind = Kind.ZERO,
        partial: Mapping[int, bytes] | None = None,
    ) -> None:
        self.size = size
        self.block_size = block_size
        self._places = places
        self._shift = block_size.bit_length() - 1
        self._mask = block_size - 1
        self._unit = unit
        self._lead = lead
        self._missing = missing
        self._partial = partial or {}

    def locate(self, offset: int, length: int) -> list[Run]:
        end = offset + length
        if offset < 0 or length <= 0 or end > self.size:
            raise ValueError(f"{length} bytes at {offset} are not within a disk of {self.size} bytes")
        within = offset & self._mask
        if within + length <= self.block_size:  # in one block, as every aligned read of the block store is
            return self._in_block(offset >> self._shift, within, length)
        runs: list[Run] = []
        while offset < end:
            within = offset & self._mask
            part = min(end - offset, self.block_size - within)
            for run in self._in_block(offset >> self._shift, within, part):
                if runs and runs[-1].kind is run.kind and run.kind is not Kind.DATA:
                    runs[-1] = Run(run.kind, 0, runs[-1].length + run.length)
                else:
                    runs.append(run)
            offset += part
        return runs

    def _in_block(self, block: int, within: int, length: int) -> list[Run]:
        place = self._places[block]
        if place >= ZEROED:
            return [Run(Kind.ZERO if place == ZEROED else self._missing, 0, length)]
        start = place * self._unit + self._lead
        bits = self._partial.get(block)
        if bits is None:
            return [Run(Kind.DATA, start + within, length)]
        return _sector_runs(bits, start, within, length)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(block number, offset in the file of its place) of each block that is in the file, in disk order."""
        return ((block, place * self._unit) for block, place in enumerate(self._places) if place < ZEROED)


def _sector_runs(bits: bytes, start: int, within: int, length: int) -> list[Run]:
    """The runs of a block's bytes [within, within + length) by its bitmap; its data starts at `start` in the file."""
    end = within + length
    sector, stop = within // SECTOR, -(-end // SECTOR)
    runs: list[Run] = []
    begin, here = within, bool(bits[sector >> 3] & 0x80 >> (sector & 7))  # of the run that is being measured
    while sector < stop:
        left = min(stop - sector, _STEP)
        low, high = sector >> 3, sector + left + 7 >> 3
        value = int.from_bytes(bits[low:high], "big") >> high * 8 - sector - left & (1 << left) - 1
        if here:
            value ^= (1 << left) - 1  # so that what is alike is always zeros
        while value:
            other = value.bit_length()  # bits from the first one that is not alike
            at = (sector + left - other) * SECTOR
            runs.append(Run(Kind.DATA, start + begin, at - begin) if here else Run(Kind.ABSENT, 0, at - begin))
            begin, here = at, not here
            value ^= (1 << other) - 1
        sector += left
    runs.append(Run(Kind.DATA, start + begin, end - begin) if here else Run(Kind.ABSENT, 0, end - begin))
    return runs


class Bitmaps:
    """The sector bitmaps of a differencing layer, as they are read when it is opened."""

    def __init__(self, size: int, block_size: int) -> None:
        self.partial: dict[int, bytes] = {}
        self.sectors = 0  # that are in the file, of blocks that were added
        self._block_size = block_size
        self._sectors = block_size // SECTOR
        self._last = (size - 1) // block_size
        self._past = (-size % block_size) // SECTOR  # sectors of the last block that lie past the disk's end

    def reserve(self, blocks: int) -> None:
        """DiskError if the bitmaps of that many blocks are more than may be held. Ask before reading them."""
        if blocks * max(SECTOR, self._sectors // 8) > BITMAP_LIMIT:
            raise DiskError(
                f"it holds parts of {blocks} blocks of {self._block_size} bytes, more than one layer may",
                "merge it with its parent into one file",
            )

    def add(self, block: int, bits: bytes) -> bool:
        """Take in a block's bits, most significant first. False if none of its sectors is in the file."""
        value, sectors = int.from_bytes(bits, "big"), self._sectors
        if block == self._last:
            value >>= self._past
            sectors -= self._past
        found = value.bit_count()
        self.sectors += found
        if 0 < found < sectors:
            self.partial[block] = bits
        return found > 0


def prove_apart(places: Sequence[int], unit: int, stride: int, others: list[tuple[int, int]], end: int) -> None:
    """DiskError unless blocks and structures lie apart, and within the first `end` bytes of the file.

    `places`: the blocks' places, sorted; each takes `stride` bytes. `others`: (start, stop) in bytes of the file's own
    structures, sorted.
    """
    for (_, stop), (start, _) in pairwise(others):
        if start < stop:
            raise DiskError(f"two of its own structures overlap at byte {start}", DAMAGED)
    if others and others[-1][1] > end:
        raise DiskError(f"one of its own structures ends at byte {others[-1][1]}, but the data ends at {end}", _CUT)
    if not places:
        return
    if places[-1] >= ZEROED or places[-1] * unit + stride > end:
        raise DiskError(
            f"its block table names a block that ends at byte {places[-1] * unit + stride}, but the data ends at {end}",
            _CUT,
        )
    apart = -(-stride // unit)
    # By C functions, as there may be a million.
    if len(places) > 1 and min(map(operator.sub, islice(places, 1, None), places)) < apart:
        second = next(after for before, after in pairwise(places) if after - before < apart)
        raise DiskError(f"two of its blocks overlap at byte {second * unit} of the file", DAMAGED)
    for start, stop in others:
        before = bisect_left(places, -(-stop // unit)) - 1  # the last block that begins before the structure ends
        if before >= 0 and places[before] * unit + stride > start:
            raise DiskError(f"one of its blocks overlaps the structure at byte {start}", DAMAGED)
