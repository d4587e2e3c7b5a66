"""A job at work: what its function is handed, and what it tells."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bootlink_events import JobProgress
from bootlink_registry.database import Connection, Database, DatabaseAway
from bootlink_registry.jobs import queue
from bootlink_registry.layers import Layers
from bootlink_registry.nodes import NodeWatch
from bootlink_registry.settings import RegistrySettings
from bootlink_runtime import Bus, Logger

PROGRESS_SECONDS: Final = 0.5  # between two rows and events of one job's progress


@dataclass(frozen=True, slots=True)
class Tools:
    """The registry's parts that jobs work with."""

    database: Database
    layers: Layers
    nodes: NodeWatch
    bus: Bus
    settings: RegistrySettings
    log: Logger


@dataclass(slots=True)
class Work:
    """One attempt at one job.

    The function is cancelled (CancelledError) when somebody cancels the job, and `cancelled` is true then: what it
    has written so far is of no use to anybody. It is cancelled, too, when the registry stops or loses its database,
    and `cancelled` is false: the job begins again, and may go on from there.
    """

    id: uuid.UUID
    kind: str
    subject: str
    request: dict[str, Any]
    author: str
    attempt: int  # 1 at first; each restart of the registry begins another
    tools: Tools
    log: Logger
    cancelled: bool = False
    _told_at: float = field(default=0.0, init=False)
    _told_stage: str = field(default="", init=False)

    @property
    def database(self) -> Database:
        return self.tools.database

    @property
    def layers(self) -> Layers:
        return self.tools.layers

    @property
    def nodes(self) -> NodeWatch:
        return self.tools.nodes

    @property
    def bus(self) -> Bus:
        return self.tools.bus

    @property
    def settings(self) -> RegistrySettings:
        return self.tools.settings

    @property
    def source(self) -> str:
        """The source of events that the job sets off."""
        return self.tools.bus.source

    async def progress(self, done: int, total: int | None, stage: str = "") -> None:
        """Tell how far it is: `done` of `total` (None: nobody knows), in bytes or whatever the job counts.

        Cheap: most calls do nothing. A new `stage` is told at once. Never raises for a database that is away.
        """
        now = time.monotonic()
        if now - self._told_at < PROGRESS_SECONDS and stage == self._told_stage:
            return
        self._told_at, self._told_stage = now, stage
        try:
            async with self.database.transaction() as connection:
                await queue.tell_progress(connection, self.id, self.attempt, done, total, stage)
        except DatabaseAway:
            return
        if self.bus.connected:  # what nobody can hear now is old news later
            self.bus.emit(
                JobProgress(id=self.id, kind=self.kind, subject=self.subject, done=done, total=total, stage=stage)
            )

    async def finish(self, connection: Connection, result: dict[str, Any]) -> None:
        """End the job as done in the caller's transaction, so that its last change and its end are one.

        Raises queue.JobOver, which must undo that transaction, if this attempt is not the job's any more.
        """
        await queue.end(connection, self.id, self.attempt, "done", result=result, source=self.source)


@dataclass(frozen=True, slots=True)
class JobKind:
    """A kind of job."""

    name: str  # such as image.import
    work: Callable[[Work], Awaitable[dict[str, Any]]]  # returns the result; raises Problem to fail
    background: bool = False  # nobody waits for it: one at a time, and it takes no slot of those that are waited for
