"""The RAM cache: immutable blocks of image layers, held once for all clients, within a budget of bytes.

Theory of operation. A block is 32 KiB of one layer, a `bytes` that is never changed, under one integer key (layer
and block number, see `image`). A read hands out a view of it; eviction drops the cache's reference, and a block that
is still being sent stays alive by itself. So there is no lock, no pin and no copy.

Replacement is S3-FIFO (Yang and others, SOSP 2023): three queues and no work on a hit but a counter.

    new block ──> small (a tenth of the budget) ── used again? ──yes──> main ── used since? ──yes──> main's tail
                                                    └─no──> dropped, its key to ghost       └─no──> dropped
    new block whose key is in ghost ──> main

A scan fills the small queue with blocks that nobody asks for twice, and leaves main alone. What counts as *again*
needs care: 4 KiB reads in sequence touch one block eight times, and are still one use. So a touch counts only if
it does not move forward within the block (`Entry.last` is where the former touch began).

A block of zeros is one shared object and costs an entry only. The budget counts blocks and entries, so it bounds what
the process really holds, apart from blocks that are being sent (bounded per session).

Deliberately not here: reading (see `image`), and write-back (private, and in the page cache).
"""

from __future__ import annotations

from collections import deque
from typing import Final

BLOCK_BITS: Final = 15
BLOCK: Final = 1 << BLOCK_BITS  # 32 KiB: eight pages of 4 KiB, and what a boot's read-ahead mostly asks for
ENTRY_COST: Final = 400  # bytes of an entry beside its block: object, view, key, dictionary and queue slots (measured)
SMALL_SHARE: Final = 10  # the small queue is a tenth of the budget, as in the paper
USES_LIMIT: Final = 3  # two bits of use counter, as in the paper
ZEROS: Final = bytes(BLOCK)


class Entry:
    """One block. `view` is what reads slice; `uses` and `last` are for replacement alone."""

    __slots__ = ("cost", "key", "last", "uses", "view")

    def __init__(self, key: int, data: bytes, last: int) -> None:
        self.key = key
        self.view = memoryview(data)
        self.cost = ENTRY_COST + (0 if data is ZEROS else len(data))
        self.uses = 0
        self.last = last

    def touch(self, at: int) -> None:
        """Somebody reads from byte `at` of the block."""
        if at <= self.last and self.uses < USES_LIMIT:
            self.uses += 1
        self.last = at


class Cache:
    """Blocks by key. `entries` is public for the hit path: `entries.get(key)`, then `entry.touch(at)`."""

    __slots__ = ("_ghost", "_main", "_main_bytes", "_small", "_small_bytes", "budget", "entries")

    def __init__(self, budget: int) -> None:
        """`budget` in bytes; at least one block is always held."""
        self.budget = max(budget, BLOCK + ENTRY_COST)
        self.entries: dict[int, Entry] = {}
        self._small: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        self._small_bytes = 0
        self._main_bytes = 0
        self._ghost: dict[int, None] = {}  # keys in the order of their eviction

    @property
    def used(self) -> int:
        """Bytes held, entries included."""
        return self._small_bytes + self._main_bytes

    def put(self, key: int, data: bytes, at: int) -> Entry:
        """Hold a block that was just read. `at` is where the read that wanted it begins in it; -1 for read-ahead."""
        held = self.entries.get(key)
        if held is not None:
            return held
        entry = Entry(key, ZEROS if data == ZEROS else data, at)
        # The small queue is filled first while there is room: before anything must go, nothing is worth a decision.
        while self._small_bytes + self._main_bytes + entry.cost > self.budget and self.entries:
            self._evict()
        self.entries[key] = entry
        if key in self._ghost:
            del self._ghost[key]
            self._main.append(entry)
            self._main_bytes += entry.cost
        else:
            self._small.append(entry)
            self._small_bytes += entry.cost
        return entry

    def forget(self, low: int, high: int) -> None:
        """Drop all blocks with low <= key < high: a layer that nobody has open any more."""
        gone = {key for key in self.entries if low <= key < high}
        for key in gone:
            del self.entries[key]
        self._small = deque(e for e in self._small if e.key not in gone)
        self._main = deque(e for e in self._main if e.key not in gone)
        self._small_bytes = sum(e.cost for e in self._small)
        self._main_bytes = sum(e.cost for e in self._main)

    def _evict(self) -> None:
        """Free one block."""
        if self._small and (self._small_bytes * SMALL_SHARE > self.budget or not self._main):
            self._evict_small()
        else:
            self._evict_main()

    def _evict_small(self) -> None:
        while self._small:
            entry = self._small.popleft()
            self._small_bytes -= entry.cost
            if entry.uses:
                entry.uses = 0
                self._main.append(entry)
                self._main_bytes += entry.cost
            else:
                self._drop(entry)
                self._ghost[entry.key] = None
                # As many keys as main has blocks (the paper's choice); the oldest goes.
                if len(self._ghost) > max(len(self._main), 16):
                    del self._ghost[next(iter(self._ghost))]
                return

    def _evict_main(self) -> None:
        while self._main:
            entry = self._main.popleft()
            if entry.uses:
                entry.uses -= 1
                self._main.append(entry)
            else:
                self._main_bytes -= entry.cost
                self._drop(entry)
                return

    def _drop(self, entry: Entry) -> None:
        del self.entries[entry.key]
