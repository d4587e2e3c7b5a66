"""A disk under the layers that is slow, counted or broken: in a test's own process, or as a block store of its own.

    with SlowDisk(seconds=0.02) as disk:        # reads of layers take so long, and find nothing in the page cache
        ...
        assert disk.reads == [(offset, length), ...]

    python -m lab.slow_disk 0.02                # `python -m bootlink_blockstore` over such a disk, same environment

It stands where the block store reads its layers (`bootlink_blockstore.reading.preadv`), so all above it runs as it is.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

from bootlink_blockstore import reading
from bootlink_blockstore.cache import BLOCK

_PREADV: Final = os.preadv


class SlowDisk:
    """What `reads` tells: (offset, length) in the file of each read that reached the disk, in the order they began."""

    def __init__(self, seconds: float = 0.0, *, broken: set[int] | None = None) -> None:
        """`broken`: numbers of blocks (32 KiB of the file) that cannot be read, for as long as they are in it."""
        self.seconds = seconds
        self.broken = set() if broken is None else broken
        self.reads: list[tuple[int, int]] = []
        self.at_once = 0  # the most reads under way at the same time
        self._under_way = 0
        self._lock = threading.Lock()

    @property
    def blocks(self) -> Counter[int]:
        """How often each block of the file was read."""
        return Counter(
            block for offset, length in self.reads for block in range(offset // BLOCK, -(-(offset + length) // BLOCK))
        )

    @property
    def bytes_read(self) -> int:
        return sum(length for _, length in self.reads)

    def __enter__(self) -> SlowDisk:
        reading.preadv = self._preadv  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        reading.preadv = _PREADV

    def _preadv(self, fd: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT:
            raise BlockingIOError(errno.EAGAIN, "not in the page cache")
        length = sum(map(len, buffers))
        with self._lock:
            self.reads.append((offset, length))
            self._under_way += 1
            self.at_once = max(self.at_once, self._under_way)
        try:
            time.sleep(self.seconds)
            if self.broken.intersection(range(offset // BLOCK, -(-(offset + length) // BLOCK))):
                raise OSError(errno.EIO, "Input/output error")
            return _PREADV(fd, buffers, offset)
        finally:
            with self._lock:
                self._under_way -= 1


def main() -> None:
    from bootlink_blockstore.memory import bound_heap
    from bootlink_blockstore.service import SERVICE
    from bootlink_runtime import main as serve

    bound_heap()
    with SlowDisk(float(sys.argv[1])):
        serve(SERVICE)


if __name__ == "__main__":
    main()
