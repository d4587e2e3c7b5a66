"""How full write-backs are: what one client may write, and what the file system has left.

An `Allowance` belongs to one client and counts the pages that its overlays hold together, present ones only: what was
given back counts no more. A write that would go beyond the limit fails as a whole, before it touches anything; writes
into pages that are there already go on. A `Space` watches the file system that all clients share.

Both tell early, and once per crossing: a level that was told is told again only after the figure has fallen clearly
below it. Nothing is told per write.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bootlink_blockstore.pagemap import PAGE

LEVELS: Final = (80, 95, 100)  # percent of the limit: time to look, time to act, and the first write that was refused
REARM: Final = 5  # percent below a level at which it may be told again: a client that writes and trims would flap
SPACE_REARM: Final = 10  # percent above the reserve, for the same reason


class Allowance:
    """What one client's overlays may hold. `limit` in bytes, 0 for none; `tell` gets the level that was reached."""

    __slots__ = ("_level", "_limit", "_promised", "_tell", "limit", "pages")

    def __init__(self, limit: int = 0, tell: Callable[[int], None] = lambda _level: None) -> None:
        self.limit = limit
        self.pages = 0
        self._limit = limit // PAGE
        self._promised = 0
        self._level = 0  # how many of LEVELS were told
        self._tell = tell

    def fits(self, pages: int) -> bool:
        """Whether so many more pages may be written."""
        return self.pages + self._promised + pages <= self._limit or not self.limit

    def refuse(self) -> None:
        """A write is refused: the last level is reached."""
        self._reach(LEVELS[-1])

    def promise(self, pages: int) -> None:
        """Hold room for a write that is under way; a negative number gives it back."""
        self._promised += pages

    def changed(self, pages: int) -> None:
        """The overlays hold so many pages more, or fewer."""
        self.pages += pages
        if self._limit:
            percent = self.pages * 100 // self._limit
            self._reach(percent)
            while self._level and percent < LEVELS[self._level - 1] - REARM:
                self._level -= 1

    def _reach(self, percent: int) -> None:
        while self._level < len(LEVELS) and percent >= LEVELS[self._level]:
            self._level += 1
            self._tell(LEVELS[self._level - 1])


class Space:
    """What is left on the file system of `folder`. It is low below `reserve` bytes."""

    def __init__(self, folder: Path, reserve: int) -> None:
        self.folder = folder
        self.reserve = reserve
        self.low = False

    def free(self) -> int:
        """Bytes left for a service that is not root's. Looks at cached metadata only, so it does not block."""
        stat = os.statvfs(self.folder)
        return stat.f_bavail * stat.f_frsize

    def left(self) -> int | None:
        """As `free`; None where it cannot be told."""
        try:
            return self.free()
        except OSError:  # the health check says so
            return None

    def fell(self) -> int | None:
        """Look. The bytes left, if they have fallen below the reserve since they were last clearly above it."""
        free = self.left()
        if free is None:
            return None
        if free < self.reserve and not self.low:
            self.low = True
            return free
        if free * 100 > self.reserve * (100 + SPACE_REARM):
            self.low = False
        return None
