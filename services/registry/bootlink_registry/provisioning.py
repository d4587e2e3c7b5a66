"""NATS gets its stream and buckets at each new connection, however it comes back: whole, or with its store lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from bootlink_runtime import Bus, BusUnavailable, Logger, provision

RETRY_SECONDS: Final = 0.5


class Provisioning:
    """Makes the stream and the buckets, for ever; calls `on_done` each time."""

    def __init__(self, bus: Bus, on_done: Callable[[], None], log: Logger) -> None:
        self._bus = bus
        self._on_done = on_done
        self._log = log
        self._problem = "not connected to NATS yet"

    def check(self) -> tuple[bool, str]:
        """For readiness: whether stream and buckets are there."""
        return (not self._problem), self._problem or "stream and buckets are there"

    async def run(self) -> None:
        epoch = 0
        while True:
            epoch = await self._bus.epoch_after(epoch)
            while True:
                try:
                    await provision(self._bus)
                    break
                except BusUnavailable as error:
                    if str(error) != self._problem:
                        self._problem = str(error)
                        self._log.warning("nats not prepared", problem=self._problem)
                    await asyncio.sleep(RETRY_SECONDS)
            self._problem = ""
            self._on_done()
