"""All children: the order in which they start and stop.

Start: engines one tier after the other, each when the one below answers, because services wait for nobody in
particular but would fill the log with complaints. Then all services at once: none needs another to start, and a boot
path that has its plans on disk serves without registry and database.

Stop: the highest tier first, all of one tier together, each with its grace. So services drain into engines that are
still there, and the registry sees what the others said last.

The first start decides: whoever dies before it was ever ready ends the whole with its reason, and everything that
came up is stopped. From then on nothing ends it but a request to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from bootlink.supervisor.backoff import Backoff
from bootlink.supervisor.keeper import Happening, Keeper
from bootlink.supervisor.program import Program


class Supervisor:
    """Runs programs until it is told to stop."""

    def __init__(
        self,
        programs: Sequence[Program],
        tell: Callable[[Happening], None],
        *,
        inherit: Sequence[int] = (),
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        ordered = sorted(programs, key=lambda program: program.tier)
        self.keepers = [Keeper(p, tell, backoff=backoff(), inherit=inherit) for p in ordered]
        self.all_ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], Keeper] = {}

    def stop(self) -> None:
        """Begin to stop; at the second call, without grace."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def run(self) -> None:
        """Start all, keep them running, return when all have stopped. Raises FailedToStart, with all stopped."""
        asked = asyncio.create_task(self._stopping.wait())
        start = asyncio.create_task(self._start())
        try:
            await asyncio.wait({asked, start}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():  # who was asked to stop has not failed, whatever the stop broke off
                start.result()
                await asyncio.wait({asked, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                self._raise_first_failure()
        finally:
            start.cancel()
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await start
            await self._stop_all()

    async def _start(self) -> None:
        for _, tier in groupby(self.keepers, key=lambda k: k.program.tier if k.program.answers else None):
            keepers = list(tier)
            for keeper in keepers:
                if keeper.program.prepare is not None:
                    await asyncio.to_thread(keeper.program.prepare)
                self._tasks[asyncio.create_task(keeper.run(), name=keeper.program.name)] = keeper
            for keeper in keepers:
                await self._until_ready(keeper)
        self.all_ready.set()

    async def _until_ready(self, keeper: Keeper) -> None:
        """Wait until it is ready; raises why it, or another that was started, failed to start."""
        ready = asyncio.create_task(keeper.ready.wait())
        try:
            await asyncio.wait({ready, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            self._raise_first_failure()
        finally:
            ready.cancel()

    def _raise_first_failure(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
                raise failure

    async def _stop_all(self) -> None:
        running = {keeper: task for task, keeper in self._tasks.items()}
        hurry = asyncio.create_task(self._hurry.wait())
        for _, tier in groupby(reversed(self.keepers), key=lambda k: k.program.tier):
            keepers = [keeper for keeper in tier if keeper in running]
            if not keepers:
                continue
            stops = [asyncio.create_task(keeper.stop()) for keeper in keepers]
            waiting: set[asyncio.Task[Any]] = {hurry, *stops}
            while not hurry.done() and not all(stop.done() for stop in stops):
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if hurry.done():
                await asyncio.gather(*(keeper.stop(grace=0) for keeper in keepers))
            await asyncio.gather(*stops)
            await asyncio.gather(*(running[keeper] for keeper in keepers), return_exceptions=True)
        hurry.cancel()
