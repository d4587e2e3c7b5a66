"""Reading ahead: how far beyond what a sequential reader has missed.

Theory of operation. There is one `Streams` per image, which its clients share: in a boot storm all read the same
sequence, and whoever comes first leads. A stream is known by its *edge*, the block that it would miss next.

    a miss of [n, m), and no edge is n    a new stream with the edge m. Nothing is read ahead: most reads are random
    a miss of [n, m), and an edge is n    it is sequential: read [m, m + window) ahead; the edge is behind that
    its mark is reached                   half of the window was used: read the next one, before anybody misses

Where blocks behind a miss are held already, by another version or client, the edge is behind those.

The *mark* is one block in the middle of a window, which does not stand among the hits (`cache.Shelf`). So whether a
reader is sequential is only looked at where a block is missed, and a hit costs nothing for it.

Feedback. The window doubles from WINDOW_LEAST up to a limit. Blocks that were read ahead and dropped before anybody
wanted them halve the limit; each window that was used, with no such waste, raises it by WINDOW_LEAST. Where even the
least window was wasted, a stream has to be PATIENCE blocks long before it is tried again.

Bounds: the window by the cache's budget, so that what was read ahead is still there when its reader comes; the streams
and marks by STREAMS; blocks in flight in all by `limit_in_flight`. With a tiny budget nothing is read ahead.

No I/O happens here; `image` does what this decides.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bootlink_blockstore.cache import BLOCK

WINDOW_LEAST: Final = 4  # blocks: 128 KiB, as the kernel reads ahead by default
WINDOW_MOST: Final = 64  # blocks: 2 MiB; its half lasts a client on a gigabit network 8 ms, a seek of a rotating disk
BUDGET_SHARE: Final = 64  # of the budget, one window at most: six of them fit the small queue
IN_FLIGHT_SHARE: Final = 16  # of the budget, all that is being read ahead
JOB_BLOCKS: Final = 16  # read by one thread at once (512 KiB): who needs one of them waits for no more than these
JOBS: Final = 4  # threads that read ahead, apart from those that somebody waits for
PATIENCE: Final = 32  # blocks in sequence (1 MiB) after reading ahead was in vain
STREAMS: Final = 64  # sequences followed per image; the longest unused goes


class Window(NamedTuple):
    start: int  # block
    size: int  # blocks


def most(budget: int) -> int:
    """The largest window for a cache of this budget, in blocks; 0: nothing is read ahead."""
    window = min(WINDOW_MOST, budget // (BUDGET_SHARE * BLOCK))
    return window if window >= WINDOW_LEAST else 0


def limit_in_flight(budget: int) -> int:
    """Blocks that may be on their way ahead of all readers at once."""
    return min(JOBS * JOB_BLOCKS, budget // (IN_FLIGHT_SHARE * BLOCK))


class Streams:
    """The sequential readers of one image."""

    __slots__ = ("_edges", "_limit", "_marks", "_most", "_wasted")

    def __init__(self, largest: int) -> None:
        """`largest` is `most(budget)`."""
        self._most = largest
        self._limit = largest
        self._edges: dict[int, tuple[int, int]] = {}  # edge: blocks in sequence so far, window
        self._marks: dict[int, tuple[int, int]] = {}  # mark: edge, window
        self._wasted = 0

    def passed(self, block: int) -> None:
        """A block came without waiting: whoever reads in sequence has come one further."""
        known = self._edges.pop(block, None)
        if known is not None:
            self._expect(block + 1, known[0] + 1, known[1])

    def missed(self, first: int, after: int, wasted: int) -> Window | None:
        """Blocks [first, after) had to be waited for, or some of them, and `after` is the next that is not held.

        What to read ahead; then call `launched`. `wasted` is how many blocks were read ahead in vain, ever.
        """
        known = self._edges.pop(first, None)
        if known is None or not self._most:
            self._expect(after, after - first, 0)
            return None
        run, window = known[0] + after - first, known[1]
        self._learn(wasted, used=window > 0)
        if self._limit < WINDOW_LEAST and run < PATIENCE:
            self._expect(after, run, 0)
            return None
        return Window(after, self._next(window))

    def reached(self, mark: int, wasted: int) -> Window | None:
        """A marked block is wanted. What to read ahead; then call `launched`."""
        known = self._marks.pop(mark, None)
        if known is None:
            return None
        edge, window = known
        self._edges.pop(edge, None)
        self._learn(wasted, used=True)
        return Window(edge, self._next(window))

    def marks(self, block: int) -> bool:
        """Whether the block is a mark, and is to stand apart."""
        return block in self._marks

    def launched(self, window: Window, after: int, mark: int | None) -> None:
        """It is being read up to block `after`, as far as threads were free; `mark` is one of these blocks."""
        self._expect(after, after - window.start + 1, window.size)
        if mark is not None:
            self._marks[mark] = (after, window.size)
            if len(self._marks) > STREAMS:
                del self._marks[next(iter(self._marks))]

    def _next(self, window: int) -> int:
        return max(WINDOW_LEAST, min(2 * window, self._limit))

    def _learn(self, wasted: int, *, used: bool) -> None:
        """From what was wasted since the last time, or that nothing was and a window was used."""
        if wasted > self._wasted:
            self._limit //= 2
        elif used:
            self._limit = min(self._most, self._limit + WINDOW_LEAST)
        self._wasted = wasted

    def _expect(self, edge: int, run: int, window: int) -> None:
        self._edges[edge] = (run, window)
        if len(self._edges) > STREAMS:
            del self._edges[next(iter(self._edges))]
