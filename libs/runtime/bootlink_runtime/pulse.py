"""Whether the event loop turns: a beat that should come every SECONDS, and how late it was."""

from __future__ import annotations

import asyncio
from typing import Final

from bootlink_runtime.distribution import Distribution

SECONDS: Final = 0.5
LATE: Final = 2.0  # seconds behind at which the event loop counts as blocked


class Pulse:
    """The beat of one service."""

    def __init__(self) -> None:
        self.late = 0.0  # seconds, at the last beat
        self.delays = Distribution()

    async def run(self) -> None:
        """Beat for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + SECONDS
            await asyncio.sleep(SECONDS)
            self.late = max(0.0, loop.time() - due)
            self.delays.record(self.late)

    def check(self) -> tuple[bool, str]:
        """A health check."""
        return self.late < LATE, f"{self.late * 1000:.0f} ms behind at the last beat"
