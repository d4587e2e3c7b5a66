"""A registry that ends itself with SIGKILL at the n-th step of a commit; DIE_AT names n.

Steps are what a commit asks of others: each statement and each commit of the database, each command to a block store,
each look at a file, and its return. They are counted in the task of the job alone, so that what else the registry does
does not move them. A commit that has fewer steps than n is done.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import asyncpg
from asyncpg.transaction import Transaction

from bootlink_registry import SERVICE, commits, service
from bootlink_registry.jobs import Work
from bootlink_registry.jobs.kinds import KINDS
from bootlink_registry.layers import Layers
from bootlink_runtime import main, rpc

COMMITTING: ContextVar[bool] = ContextVar("committing", default=False)


class Steps:
    """Counts steps, and ends the process at one of them."""

    def __init__(self, die_at: int) -> None:
        self._left = die_at

    def take(self) -> None:
        if COMMITTING.get():
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def before(self, owner: Any, name: str) -> None:
        """Make each call of this function a step."""
        real: Callable[..., Any] = getattr(owner, name)

        async def stepping(*args: Any, **more: Any) -> Any:
            self.take()
            return await real(*args, **more)

        setattr(owner, name, stepping)

    def after(self, owner: Any, name: str) -> None:
        """Make each return of this function a step."""
        real: Callable[..., Any] = getattr(owner, name)

        async def stepping(*args: Any, **more: Any) -> Any:
            result = await real(*args, **more)
            self.take()
            return result

        setattr(owner, name, stepping)


def prepare(die_at: int) -> None:
    """Have this process die at that step of a commit."""
    steps = Steps(die_at)
    for name in ("execute", "fetch", "fetchrow", "fetchval"):
        steps.before(asyncpg.Connection, name)
    steps.before(Transaction, "__aexit__")
    steps.after(Transaction, "__aexit__")
    for name in ("call", "call_all"):
        steps.before(rpc, name)
        steps.after(rpc, name)
    steps.before(Layers, "probe")
    kind = commits.COMMIT

    async def committing(work: Work) -> dict[str, Any]:
        COMMITTING.set(True)
        result = await kind.work(work)
        steps.take()
        return result

    vars(service)["KINDS"] = {**KINDS, kind.name: replace(kind, work=committing)}


if __name__ == "__main__":
    prepare(int(os.environ["DIE_AT"]))
    main(SERVICE)
