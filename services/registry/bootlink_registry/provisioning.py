"""NATS gets its stream and buckets: at each new connection, as it may come back with its store lost, and whenever a
regular look finds one of them gone, as they can be deleted under a connection that stays.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from bootlink_runtime import Bus, BusUnavailable, Logger, Retention, provision

RETRY_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 15.0  # between looks whether all is still there; three small requests each


class Provisioning:
    """Makes the stream and the buckets, for ever; calls `on_done` when they may have been empty."""

    def __init__(self, bus: Bus, on_done: Callable[[], None], log: Logger, keep: Retention) -> None:
        self._bus = bus
        self._keep = keep
        self._on_done = on_done
        self._log = log
        self._problem = "not connected to NATS yet"

    def check(self) -> tuple[bool, str]:
        """For readiness: whether stream and buckets are there."""
        return (not self._problem), self._problem or "stream and buckets are there"

    async def run(self) -> None:
        done = 0
        epoch = await self._bus.epoch_after(0)
        while True:
            made = await self._provision()
            if made or epoch != done:
                self._on_done()
            if made and epoch == done:
                self._log.warning("nats prepared anew", problem="its stream or a bucket was deleted")
            done = epoch
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    epoch = await self._bus.epoch_after(epoch)

    async def _provision(self) -> bool:
        while True:
            try:
                made = await provision(self._bus, self._keep)
            except BusUnavailable as error:
                # A connection that is lost says so itself.
                if str(error) != self._problem and self._bus.connected:
                    self._log.warning("nats not prepared", problem=str(error))
                self._problem = str(error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._problem = ""
                return made
