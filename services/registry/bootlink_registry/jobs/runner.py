"""Runs the jobs: at most JOBS_AT_ONCE that somebody waits for, and one of those that nobody does.

Of several registries one runs all jobs: whoever holds a session lock in the database. When its connection breaks, the
lock is gone, so every job is stopped, and whoever has the lock next begins them again: two that write one file would
be worse than work done twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bootlink_registry.database import DatabaseAway
from bootlink_registry.jobs import queue
from bootlink_registry.jobs.work import JobKind, Tools, Work
from bootlink_registry.locks import Whole
from bootlink_registry.problems import Problem
from bootlink_runtime import BusUnavailable, ended

JOBS_AT_ONCE: Final = 4  # each keeps a disk and a core busy; more would only slow each other down
STANDBY_SECONDS: Final = 1.0  # between tries for the lock
POLL_SECONDS: Final = 1.0  # between looks that nobody asked for; a notification can be lost
CANCEL_AGAIN_SECONDS: Final = 5.0  # given to a cancelled function's cleaning up, before it is told again
ATTEMPTS_MOST: Final = 100  # a job that ended the registry this often would do so for ever


@dataclass(slots=True)
class _Run:
    work: Work
    inner: asyncio.Task[dict[str, Any]]  # the function; cancelling it is cancelling the job
    outer: asyncio.Task[None]  # writes down how it ended; cancelling it is stopping without a word
    cancelled_at: float | None = None


class Runner:
    """Runs jobs, for ever."""

    def __init__(self, tools: Tools, kinds: Mapping[str, JobKind]) -> None:
        self._tools = tools
        self._kinds = kinds
        self._background = [kind.name for kind in kinds.values() if kind.background]
        self._running: dict[uuid.UUID, _Run] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                async with self._tools.database.session() as connection:
                    await self._run_on(connection)
            except DatabaseAway:
                pass
            finally:
                await self._stop()
            await self._tools.database.recovered()

    async def _stop(self) -> None:
        running = list(self._running.values())
        await ended(*(run.outer for run in running), *(run.inner for run in running))
        self._running.clear()

    async def _run_on(self, connection: Any) -> None:
        """Run jobs for as long as this connection lasts. The lock goes with it."""
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", Whole.JOBS):  # noqa: ASYNC110
            await asyncio.sleep(STANDBY_SECONDS)
        await connection.add_listener(queue.CHANNEL, lambda *_: self._wake.set())
        async with connection.transaction():
            await queue.begin_anew(connection, source=self._tools.bus.source)
        while True:
            self._wake.clear()
            self._running = {job: run for job, run in self._running.items() if not run.outer.done()}
            await self._begin(connection)
            self._cancel(await queue.cancelling(connection))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()

    async def _begin(self, connection: Any) -> None:
        """Begin as many jobs as there are slots for."""
        behind = sum(run.work.kind in self._background for run in self._running.values())
        free = JOBS_AT_ONCE - (len(self._running) - behind)
        due = await queue.waiting(connection, self._background, limit=free, others=True)
        due += await queue.waiting(connection, self._background, limit=1 - behind)
        for job in due:
            async with connection.transaction():
                row = await queue.begin(connection, job, source=self._tools.bus.source)
            if row is not None:
                self._start(row)

    def _start(self, row: queue.JobRow) -> None:
        log = self._tools.log.bind(job=str(row.id), kind=row.kind, subject=row.subject)
        work = Work(row.id, row.kind, row.subject, row.request, row.author, row.attempts, self._tools, log)
        log.info("job begun", attempt=work.attempt)
        inner = asyncio.create_task(self._work(work), name=f"job {row.id}")
        outer = asyncio.create_task(self._attend(work, inner), name=f"end of job {row.id}")
        self._running[row.id] = _Run(work, inner, outer)

    async def _work(self, work: Work) -> dict[str, Any]:
        kind = self._kinds.get(work.kind)
        if kind is None:
            raise Problem(
                422,
                f"this version of the registry knows no work {work.kind!r}",
                "run the version that was asked for it",
            )
        if work.attempt > ATTEMPTS_MOST:
            raise Problem(
                500,
                f"the registry ended {ATTEMPTS_MOST} times while it worked on this",
                "its log says why, just before each `job begun` of this job; then do it again",
            )
        return dict(await kind.work(work))

    def _cancel(self, jobs: list[uuid.UUID]) -> None:
        now = asyncio.get_running_loop().time()
        for job in jobs:
            run = self._running.get(job)
            if run is None or run.inner.done():
                continue
            if run.cancelled_at is None or now - run.cancelled_at > CANCEL_AGAIN_SECONDS:
                run.cancelled_at, run.work.cancelled = now, True
                run.inner.cancel()

    async def _attend(self, work: Work, inner: asyncio.Task[dict[str, Any]]) -> None:
        """Wait for the function's end and write it down, also over an absence of the database."""
        try:
            await asyncio.wait({inner})
            while True:
                try:
                    await self._write_end(work, inner)
                    break
                except DatabaseAway:
                    await self._tools.database.recovered()
        except queue.JobOver:
            work.log.info("job over")  # its function has ended it, with its last change
        finally:
            await ended(inner)
            self._wake.set()

    async def _write_end(self, work: Work, inner: asyncio.Task[dict[str, Any]]) -> None:
        error = None if inner.cancelled() else inner.exception()
        async with self._tools.database.transaction() as connection:
            if isinstance(error, DatabaseAway):
                work.log.warning("job begins again", problem=str(error))
                await queue.requeue(connection, work.id, work.attempt)
                return
            state: queue.End = "done"
            result, problem = None, None
            if inner.cancelled() and work.cancelled:
                state = "cancelled"
            elif inner.cancelled() or error is not None:
                state, problem = "failed", _told(error)
            else:
                result = inner.result()
            await queue.end(
                connection, work.id, work.attempt, state, result=result, problem=problem, source=work.source
            )
        if state == "failed":
            expected = isinstance(error, (Problem, BusUnavailable))
            work.log.warning("job failed", **(problem or {}), exc_info=None if expected else error)
        else:
            work.log.info("job over", state=state)


def _told(error: BaseException | None) -> dict[str, Any]:
    match error:
        case Problem():
            return {"detail": error.detail, "remedy": error.remedy, "status": error.status}
        case BusUnavailable():
            return {"detail": str(error), "remedy": "look whether NATS runs (bootlink status); then do it again"}
        case _:
            return {
                "detail": f"the registry failed at this: {error or 'it was interrupted'} ({type(error).__name__})",
                "remedy": "report it, with the part of the registry's log that names this job",
            }
