"""Replaying reads against a cache of blocks, to see what it keeps: the block store's own, and LRU beside it.

Nothing is read or sent here. A use is (block, byte within the block where a read begins), as the cache is told by
`image`; a policy says whether it was a hit. `virus_scan` is the story that a diskless room lives by: PCs boot from a
hot set, one PC's scanner reads the whole disk from front to back in small pieces, and PCs go on booting meanwhile.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from bootlink_blockstore.cache import BLOCK, ENTRY_COST, Cache
from lab.boot_reads import BootReads

SCAN_STEP: Final = 4096  # bytes per read of a scanner
PAGE: Final = 4096
_DATA: Final = b"x" * BLOCK  # all blocks' content, as nobody looks at it

Use = tuple[int, int]


class Policy(Protocol):
    def use(self, block: int, at: int) -> bool:
        """A read wants this block from byte `at` of it. Whether it was a hit."""

    def read_ahead(self, block: int) -> None:
        """The block is read before anybody has asked for it."""


class Ours:
    """The block store's cache (S3-FIFO), with room for `blocks`."""

    name = "Bootlink (S3-FIFO)"

    def __init__(self, blocks: int, disk: int) -> None:
        """`disk`: blocks of the disk."""
        self.cache = Cache(blocks * (BLOCK + ENTRY_COST))
        self._shelf = self.cache.shelf(disk)

    def use(self, block: int, at: int) -> bool:
        if block in self._shelf.blocks:
            self._shelf.touch(block, at)
            return True
        self.cache.put(self._shelf, block, _DATA, at)
        return False

    def read_ahead(self, block: int) -> None:
        self.cache.put(self._shelf, block, _DATA, -1)


class Lru:
    """The least recently used block goes, with room for `blocks`."""

    name = "LRU"

    def __init__(self, blocks: int, _disk: int) -> None:
        self._blocks = blocks
        self._held: OrderedDict[int, None] = OrderedDict()

    def use(self, block: int, at: int) -> bool:
        hit = block in self._held
        self.read_ahead(block)
        return hit

    def read_ahead(self, block: int) -> None:
        self._held[block] = None
        self._held.move_to_end(block)
        if len(self._held) > self._blocks:
            self._held.popitem(last=False)


POLICIES: Final = (Ours, Lru)


def hits(policy: Policy, uses: Iterable[Use]) -> float:
    """The share of uses that were hits, 0 to 1."""
    found = [policy.use(block, at) for block, at in uses]
    return sum(found) / len(found)


def uses_of(boot: BootReads) -> list[Use]:
    """One boot's reads, block by block."""
    return [
        (block, max(0, read.offset - block * BLOCK))
        for read in boot.reads
        for block in range(read.offset // BLOCK, (read.offset + read.length - 1) // BLOCK + 1)
    ]


def made_up_boot(blocks: int, disk: int, reads: int, choice: random.Random) -> list[Use]:
    """A boot that reads `reads` pages of `blocks` scattered blocks; some blocks many times, most a few."""
    hot = choice.sample(range(disk), blocks)
    weights = [1 / (rank + 1) ** 0.8 for rank in range(blocks)]
    once = [(block, page * PAGE) for block in hot for page in sorted(choice.sample(range(BLOCK // PAGE), 2))]
    more = choice.choices(hot, weights, k=max(0, reads - len(once)))
    return once + [(block, choice.randrange(BLOCK // PAGE) * PAGE) for block in more]


def scan(policy: Policy, disk: int, *, ahead: int = 0) -> Iterator[None]:
    """Read every block in pieces from front to back, `ahead` blocks being read ahead. A step is a block."""
    for block in range(disk):
        if ahead and block % ahead == 0:
            for number in range(block + 1, min(block + ahead + 1, disk)):
                policy.read_ahead(number)
        for at in range(0, BLOCK, SCAN_STEP):
            policy.use(block, at)
        yield


@dataclass(frozen=True, slots=True)
class Seen:
    """Hit ratios of boots, 0 to 1: when the room was warm, while the scan ran, and of the first boot after it.

    `again`: bytes of the working set that this last one had to read from the disk.
    """

    policy: str
    warm: float
    during: float
    after: float
    again: int


def virus_scan(
    boot: Sequence[Use], *, room: int, blocks: int, disk: int, ahead: int = 16, boots_meanwhile: int = 4
) -> list[Seen]:
    """`room` PCs boot one after the other, then one scans while others boot now and then; each policy in turn.

    `blocks` is the cache's size and `disk` the disk's.
    """
    seen = []
    for kind in POLICIES:
        policy = kind(blocks, disk)
        warm = [hits(policy, boot) for _ in range(room)][-1]
        during: list[float] = []
        between = max(1, disk // (boots_meanwhile + 1))
        for step, _ in enumerate(scan(policy, disk, ahead=ahead)):
            if step % between == between - 1 and len(during) < boots_meanwhile:
                during.append(hits(policy, boot))
        after = hits(policy, boot)
        again = round((1 - after) * len(boot)) * BLOCK
        seen.append(Seen(kind.name, warm, sum(during) / len(during), after, again))
    return seen
