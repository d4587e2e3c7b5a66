"""Registries that end themselves with SIGKILL at the n-th step of a job.

Steps are what a job asks of others: each statement to the database, BEGIN and COMMIT among them, each return of a
transaction; each answer of a block store; each piece of work on image files; each look at a file, and each name that
one is given; and the job's return. They are counted in the task of the job alone, so that what else the registry does
does not move them. A job that has fewer steps than n is done. The kind of job is this module's argument.

This process has read all modules, which takes longer than all the rest, and forks one registry for each line of its
stdin, which names the step. It says the process' number, and how it ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final, NoReturn

import asyncpg
from asyncpg.transaction import Transaction

from bootlink_registry import SERVICE, imaging, service
from bootlink_registry.jobs import Work
from bootlink_registry.jobs.kinds import KINDS
from bootlink_registry.layers import Layers
from bootlink_registry.store import Place
from bootlink_runtime import main, rpc

DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG, prctl(2)
WORKING: ContextVar[bool] = ContextVar("working", default=False)


class Steps:
    """Counts steps, and ends the process at one of them."""

    def __init__(self, die_at: int) -> None:
        self._left = die_at

    def take(self) -> None:
        if WORKING.get():
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
    """Have this process die at that step of a job of the kind that it was told."""
    steps = Steps(die_at)
    for name in ("execute", "fetch", "fetchrow", "fetchval"):
        steps.before(asyncpg.Connection, name)
    steps.after(Transaction, "__aexit__")
    for name in ("call", "call_all"):
        steps.after(rpc, name)
    steps.before(Layers, "probe")
    steps.after(imaging, "run")
    steps.before(Place, "seal")
    steps.after(Place, "seal")
    kind = KINDS[sys.argv[1]]

    async def working(work: Work) -> dict[str, Any]:
        WORKING.set(True)
        result = await kind.work(work)
        steps.take()
        return result

    vars(service)["KINDS"] = {**KINDS, kind.name: replace(kind, work=working)}


def registry(die_at: int, prepared: Callable[[int], None]) -> NoReturn:
    """Be a registry that dies there."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)  # none outlives the test
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    prepared(die_at)
    main(SERVICE)
    sys.exit(0)


def serve(prepared: Callable[[int], None]) -> None:
    """A registry for each line, of which `prepared` makes one that dies at the step that the line names."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            registry(int(line), prepared)
        say(pid)
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(prepare)
