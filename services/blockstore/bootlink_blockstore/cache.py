"""The RAM cache: immutable blocks of image layers, held once for all clients, within a budget of bytes.

Theory of operation. A block is 32 KiB of one layer, a `bytes` that is never changed. A layer's blocks stand on its
`Shelf` under their numbers. A read hands out a slice; eviction drops the cache's reference, and a block that is still
being sent stays alive by itself. So there is no lock and no pin.

A block has no object around it: what replacement knows of it is one byte in the shelf's `state`, and its place in a
queue is an integer. Python's collector looks at none of these. With an object per block, one full collection held the
event loop for over 0.4 s at a cache of 16 GiB (ADR 10).

Replacement is S3-FIFO (Yang and others, SOSP 2023): three queues and no work on a hit but a counter.

    new block ──> small (a tenth of the blocks) ── used again? ──yes──> main ── used since? ──yes──> main's tail
                                                    └─no──> dropped, its key to ghost       └─no──> dropped
    new block whose key is in ghost ──> main

A scan fills the small queue with blocks that nobody asks for twice, and leaves main alone. What counts as *again*
needs care: 4 KiB reads in sequence touch one block eight times, and are still one use. So a touch counts only if it
does not move forward within the block. The state byte is

    bits 7-6  uses since the block came or was last spared, at most 3
    bits 5-0  where the last touch began: its KiB within the block plus 1; 0: nobody has touched it (read ahead)

A block of zeros is one shared object and costs an entry only. The budget counts blocks and entries, so it bounds what
the cache really holds, apart from blocks that are being sent (bounded per session) and a byte per block of each open
layer (32 KiB per GiB of disk).

A shelf that is forgotten is out of reach at once; its blocks go in slices (`sweep`), or as soon as room is needed, so
that a large layer does not hold up the event loop.

Deliberately not here: reading (see `image`), what to read ahead (`readahead`), and write-back (private, and in the
page cache).
"""

from __future__ import annotations

from collections import deque
from typing import Final

BLOCK_BITS: Final = 15
BLOCK: Final = 1 << BLOCK_BITS  # 32 KiB: eight pages of 4 KiB, and what a boot's read-ahead mostly asks for
# Bytes of an entry beside its block: head of the bytes object and of its allocation, slot in the shelf, two keys, a
# place in a queue, and a key in ghost. Measured: 304 to 388, by how full the dictionaries are (ADR 10).
ENTRY_COST: Final = 400
SMALL_SHARE: Final = 10  # the small queue is a tenth of the blocks, as in the paper
SPARED_LIMIT: Final = 256  # used blocks passed over until one goes all the same: 0.1 ms; a first scan may meet many
GHOST_LEAST: Final = 16  # keys remembered however small main is
SWEEP_BLOCKS: Final = 1_024  # blocks of a forgotten layer freed at once: about 0.2 ms
SLOT_BITS: Final = 40  # of a key: 2^40 blocks of 32 KiB per layer are more than any format holds
ZEROS: Final = bytes(BLOCK)

USE: Final = 0x40  # one use, in a state byte
SPENT: Final = 0xC0  # at or above: three uses, as many as are counted (two bits, as in the paper)
LAST: Final = 0x3F  # where the last touch began
PIECE_BITS: Final = 10  # the grain of `LAST`: what would be missed are sectors read one by one, which firmware does

_NUMBER: Final = (1 << SLOT_BITS) - 1


class Shelf:
    """The blocks of one layer, and what was counted of it since it was opened.

    `blocks`, `state` and `hits` are public for the hit path, which does what `touch` does.

    A *marked* block was read ahead and stands apart from `blocks`, so that its first reader, who misses it there,
    says that the stream has come this far. It is as good as held: `claim` puts it among the others.
    """

    __slots__ = (
        "ahead", "base", "blocks", "bytes_held", "bytes_read", "evicted", "hits", "marks", "misses", "slot", "state",
        "wasted",
    )  # fmt: skip

    def __init__(self, slot: int, blocks: int) -> None:
        self.slot = slot
        self.base = slot << SLOT_BITS
        self.blocks: dict[int, bytes] = {}
        self.marks: dict[int, bytes] = {}
        self.state = bytearray(blocks)
        self.bytes_held = 0  # entries included
        self.hits = 0  # times that a block was wanted and was here
        self.misses = 0  # and was not, also where another read had it on its way
        self.bytes_read = 0  # of its file; blocks of zeros count as nothing
        self.ahead = 0  # blocks read ahead
        self.wasted = 0  # of these, dropped before anybody wanted them
        self.evicted = 0

    def touch(self, block: int, at: int) -> None:
        """Somebody reads a block that is held, from its byte `at`."""
        where = (at >> PIECE_BITS) + 1
        known = self.state[block]
        if where <= known & LAST and known < SPENT:
            known += USE
        self.state[block] = known & SPENT | where

    def claim(self, block: int) -> bytes | None:
        """A marked block, now held like any other; None if it is not one."""
        data = self.marks.pop(block, None)
        if data is not None:
            self.blocks[block] = data
        return data

    def __contains__(self, block: int) -> bool:
        return block in self.blocks or block in self.marks


class Cache:
    """All shelves, within `budget` bytes; at least one block is always held."""

    __slots__ = ("_doomed", "_ghost", "_ghosts", "_main", "_shelves", "_slots", "_small", "budget", "used")

    def __init__(self, budget: int) -> None:
        self.budget = max(budget, BLOCK + ENTRY_COST)
        self.used = 0  # bytes held, entries included
        self._shelves: dict[int, Shelf] = {}
        self._doomed: list[Shelf] = []
        self._slots = 0
        self._small: deque[int] = deque()  # keys: slot and block number
        self._main: deque[int] = deque()
        self._ghost: set[int] = set()
        self._ghosts: deque[int] = deque()  # the ghost's keys in the order of their eviction, and some that have left

    @property
    def entries(self) -> int:
        """Blocks held."""
        return sum(len(shelf.blocks) + len(shelf.marks) for shelf in self._shelves.values())

    def shelf(self, blocks: int) -> Shelf:
        """A new, empty shelf for a layer of so many blocks."""
        self._slots += 1
        shelf = self._shelves[self._slots] = Shelf(self._slots, blocks)
        return shelf

    def put(self, shelf: Shelf, block: int, data: bytes, at: int, *, marked: bool = False) -> bytes:
        """Hold a block that was just read, and return what is held. Zeros must be `ZEROS` itself.

        `at` is where the read that wanted it begins in it; -1: it was read ahead, and may be `marked`.
        """
        held = shelf.blocks.get(block) or shelf.marks.get(block)
        if held is not None or shelf.slot not in self._shelves:
            return held or data
        cost = _cost(data)
        # The small queue is filled first while there is room: before anything must go, nothing is worth a decision.
        while self.used + cost > self.budget and self._evict():
            pass
        self.used += cost
        shelf.bytes_held += cost
        (shelf.marks if marked else shelf.blocks)[block] = data
        shelf.state[block] = (at >> PIECE_BITS) + 1  # -1 gives 0
        key = shelf.base + block
        if key in self._ghost:
            self._ghost.remove(key)
            self._main.append(key)
        else:
            self._small.append(key)
        return data

    def forget(self, shelf: Shelf) -> None:
        """Nobody reads this layer any more. Its blocks count until `sweep` has freed them."""
        if self._shelves.pop(shelf.slot, None) is not None:
            self._doomed.append(shelf)

    def sweep(self) -> bool:
        """Free some blocks of forgotten layers; whether there are more."""
        left = SWEEP_BLOCKS
        while self._doomed and left > 0:
            shelf = self._doomed[-1]
            held = shelf.blocks or shelf.marks
            while held and left > 0:
                _, data = held.popitem()
                # What is left of it is a key in a queue, and goes when its turn comes.
                freed = _cost(data) - ENTRY_COST
                self.used -= freed
                shelf.bytes_held -= freed
                left -= 1
            if not shelf.blocks and not shelf.marks:
                self._doomed.pop()
        return bool(self._doomed)

    def _evict(self) -> bool:
        """Free one block, or some that were forgotten. False if nothing is held."""
        if self._doomed:
            self.sweep()
            return True
        spared = 0
        while self._small or self._main:
            small = len(self._small) * SMALL_SHARE > len(self._small) + len(self._main) or not self._main
            key = (self._small if small else self._main).popleft()
            shelf = self._shelves.get(key >> SLOT_BITS)
            if shelf is None:
                self.used -= ENTRY_COST
                return True
            block = key & _NUMBER
            known = shelf.state[block]
            if known >= USE and spared < SPARED_LIMIT:
                spared += 1
                shelf.state[block] = known & LAST if small else known - USE
                self._main.append(key)
                continue
            self._drop(shelf, block)
            if small:
                self._remember(key)
            return True
        return False

    def _remember(self, key: int) -> None:
        """As many keys as main has blocks (the paper's choice); the oldest goes."""
        if key not in self._ghost:
            self._ghost.add(key)
            self._ghosts.append(key)
        while len(self._ghosts) > max(len(self._main), GHOST_LEAST):
            self._ghost.discard(self._ghosts.popleft())

    def _drop(self, shelf: Shelf, block: int) -> None:
        data = shelf.blocks.pop(block, None)
        if data is None:
            data = shelf.marks.pop(block)
        cost = _cost(data)
        self.used -= cost
        shelf.bytes_held -= cost
        shelf.evicted += 1
        if not shelf.state[block] & LAST:
            shelf.wasted += 1


def _cost(data: bytes) -> int:
    return ENTRY_COST if data is ZEROS else ENTRY_COST + len(data)
