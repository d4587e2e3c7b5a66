"""The process's memory: what makes the cache's budget a bound of what the kernel counts (RSS), too.

A block is 32 KiB and a few bytes of C heap. glibc gives each thread an arena of its own; what the event loop frees in
one is of no use to a thread that allocates from another, so a cache that is filled from both grew to twice its budget:
64 MiB of budget took 138 MiB, and with one arena 72 MiB, 6 of them the reading threads' buffers (measured, ADR 10). The
interpreter lock lets one thread allocate at a time anyway. The threshold for `mmap` is fixed, as glibc would raise it
when a large buffer is freed, and then large buffers would come and go between the blocks.

Python's collector has no cycles to find in what a service holds from its start on, so it need not look there.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

# glibc, malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

MMAP_THRESHOLD: Final = 128 << 10  # bytes: glibc's own at the start; above a block, below the buffer of a long read
TRIM_THRESHOLD: Final = 1 << 20  # bytes free at the heap's end that are kept, so that it does not move at every block


def bound_heap() -> None:
    """Call before the first thread is started. Does nothing under another C library than glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)


def settle() -> None:
    """Call when the service is up: what is held now stays."""
    gc.collect()
    gc.freeze()
