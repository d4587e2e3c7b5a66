"""Ending background tasks, also where the word to end is swallowed on its way."""

from __future__ import annotations

import asyncio
from typing import Any, Final

CANCEL_AGAIN_SECONDS: Final = 1.0  # given to a task's own cleaning up


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until all of them are over; what they raised is theirs to tell.

    One cancellation is not enough: before Python 3.12 `asyncio.wait_for` swallows one that arrives together with its
    result, and nats-py waits for every answer with it. The task then goes on as if nothing had been said, and
    whoever waits for its end waits for ever (seen in one of 20 stops right after a start). For the same reason such
    a task must not be the child of a TaskGroup, which cancels its children once. What waits for ever after a request
    to NATS calls `heed_cancellation` in between.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


def heed_cancellation() -> None:
    """Raise CancelledError if this task was cancelled and a request to NATS has swallowed that (see `ended`)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
