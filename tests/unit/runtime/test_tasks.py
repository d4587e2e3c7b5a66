"""Tasks that end when they are told, and one that has to be told twice."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from bootlink_runtime import ended, tasks


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_SECONDS", 0.01)
    heard = 0

    async def hard_of_hearing() -> None:
        nonlocal heard
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            heard += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(hard_of_hearing())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await ended(task)
    assert task.cancelled()
    assert heard == 2


async def test_what_a_task_raised_is_not_raised_by_ending_it() -> None:
    async def fails() -> None:
        raise RuntimeError("on its own account")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await ended(task)
    assert isinstance(task.exception(), RuntimeError)
