"""How often something may happen: a burst at once, and then so often a second. Time is passed in."""

from __future__ import annotations


class Allowance:
    """Starts full. Fills up again with time, to no more than the burst."""

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst, self._per_second = float(burst), per_second
        self._left, self._at = float(burst), 0.0

    def spend(self, now: float) -> bool:
        """Take one. False if there is none. A clock that goes back gives nothing."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
