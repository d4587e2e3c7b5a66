"""Registries that die at each step of a job, one after the other, and what must be there in between.

A job is put in, and a registry works on it that ends itself at the first step. Another one begins the same job again,
and ends itself at the second; and so on, until one has no more steps to die at. After each death the database must show
all as it was, or all as it will be.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from bootlink_registry.database import Database
from rigs.figures import Violation

StateT = TypeVar("StateT")

DIES_WITHIN: Final = 60.0  # seconds until a registry has died or ended the job; it takes two
AFTERWARDS: Final = 1.0  # given to a registry that has ended the job, and may die at a step behind that
LOOK: Final = 0.05


class Registries:
    """Where registries come from that die at a step: see `dying_registry`."""

    def __init__(
        self, environment: dict[str, str], log: Path, *arguments: str, module: str = "rigs.dying_registry"
    ) -> None:
        """`arguments`: of the module; `log`: where the registries write what they say."""
        self._command = ("-m", module, *arguments)
        self._environment = environment
        self._log = log

    async def __aenter__(self) -> Registries:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, *self._command),
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def start(self, step: int) -> int:
        """The process number of a registry that is to die at this step."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{step}\n".encode())
        return await self.said()

    async def said(self) -> int:
        """The next number: after a registry was started, how it ended."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise Violation(f"no registries any more:\n{self.words()}")
        return int(line)

    def words(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


class Sweep(Generic[StateT]):
    """One job, and the registries that die of it."""

    def __init__(self, database: Database, registries: Registries, job: uuid.UUID, stride: int) -> None:
        self._database = database
        self._registries = registries
        self._job = job
        self._stride = stride
        self.kills = 0

    async def run(
        self,
        look: Callable[[], Awaitable[StateT]],
        *,
        is_old: Callable[[StateT, StateT], bool],
        is_new: Callable[[StateT, StateT], bool],
    ) -> None:
        """Until the job is done. Violation if what is there in between is neither the old state nor the new; both are
        told what there is now, and what there was."""
        old = await look()
        step = 1
        while await self._dies(step):
            self.kills += 1
            now = await look()
            if not (is_old(now, old) or is_new(now, old)):
                raise Violation(f"killed at step {step}: {now} came of {old}")
            step += self._stride
        now = await look()
        if not is_new(now, old):
            raise Violation(f"after {self.kills} kills: {now} came of {old}\n{self._registries.words()}")

    async def _dies(self, step: int) -> bool:
        """Whether a registry that was to die at this step did so; otherwise the commit is done."""
        pid = await self._registries.start(step)
        ended = asyncio.create_task(self._registries.said())
        try:
            async with asyncio.timeout(DIES_WITHIN):
                while not ended.done():
                    over = await self._is_over()
                    await asyncio.wait({ended}, timeout=AFTERWARDS if over else LOOK)
                    if over:
                        break
        except TimeoutError:
            raise Violation(f"no end when killed at step {step}:\n{self._registries.words()}") from None
        finally:
            died = ended.done()
            if not died:
                os.kill(pid, signal.SIGKILL)
            status = await ended
        if died and status != -signal.SIGKILL:
            raise Violation(f"the registry ended with status {status} at step {step}:\n{self._registries.words()}")
        return died

    async def _is_over(self) -> bool:
        async with self._database.transaction() as connection:
            return bool(await connection.fetchval("SELECT ended IS NOT NULL FROM jobs WHERE id = $1", self._job))


def environment_of(folder: Path, nats_url: str, database_url: str) -> dict[str, str]:
    """The environment of registries with their data below `folder`."""
    tests = Path(__file__).parent.parent
    return {
        **os.environ,
        "PYTHONPATH": str(tests),
        "BOOTLINK_NATS_URL": nats_url,
        "BOOTLINK_DATABASE_URL": database_url,
        "BOOTLINK_DATA": str(folder / "data"),
        "BOOTLINK_NODE": "lab",
        "BOOTLINK_REGISTRY_API_PORT": "0",
        "BOOTLINK_LOG_FORMAT": "json",
    }
