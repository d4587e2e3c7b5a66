"""How long to wait before a child that died is started again."""

from __future__ import annotations

from typing import Final

FIRST_SECONDS: Final = 0.5  # PCs are waiting for a block store that died; one crash is mended almost at once
LONGEST_SECONDS: Final = 30.0  # a child that cannot run now (a taken port, a full disk) is still tried twice a minute
STEADY_SECONDS: Final = 60.0  # who ran for so long has recovered; its next death is a first one again


class Backoff:
    """Pauses that double with each death, and begin anew after a steady run."""

    def __init__(
        self, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS, steady: float = STEADY_SECONDS
    ) -> None:
        self._first = first
        self._longest = longest
        self._steady = steady
        self._next = first

    def after(self, ran: float) -> float:
        """Seconds to wait after a child died that had run for `ran` seconds."""
        if ran >= self._steady:
            self._next = self._first
        pause = self._next
        self._next = min(2 * self._next, self._longest)
        return pause
