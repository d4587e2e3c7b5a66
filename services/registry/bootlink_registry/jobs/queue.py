"""Jobs as rows: put in, listed, cancelled, begun and ended. Each change of state records its event."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from bootlink_events import BootId, JobChanged
from bootlink_registry import outbox
from bootlink_registry.database import Connection
from bootlink_registry.problems import Problem, conflict, not_found

CHANNEL: Final = "bootlink_jobs"  # of LISTEN and NOTIFY
JOBS_KEPT: Final = 1_000  # that are over; the oldest go first

State = Literal["queued", "running", "done", "failed", "cancelled"]
End = Literal["done", "failed", "cancelled"]


class JobOver(Exception):
    """This attempt is not the job's any more: it was ended, or begun again by another registry."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job."""

    id: uuid.UUID
    kind: str
    subject: str
    exclusive: str | None
    request: dict[str, Any]
    author: str
    state: State
    cancelling: bool  # somebody asked for its end, and its function is still at it
    attempts: int
    stage: str
    done: int
    total: int | None
    result: dict[str, Any] | None
    problem: dict[str, Any] | None  # detail and remedy
    created: datetime
    started: datetime | None  # its first attempt
    ended: datetime | None
    changed: datetime

    @classmethod
    def of(cls, row: Any) -> JobRow:
        return cls(*(row[name] for name in cls.__slots__))

    @property
    def over(self) -> bool:
        return self.ended is not None


async def submit(
    connection: Connection,
    *,
    kind: str,
    subject: str,
    request: dict[str, Any],
    author: str,
    source: str,
    exclusive: str | None = None,
) -> uuid.UUID:
    """Put a job in, in the caller's transaction; its id. Problem if another one works on `exclusive`.

    `subject` is whom it is about (an image's or a client's name), `request` what its function is handed (JSON).
    """
    job = uuid.UUID(int=BootId.mint().int)  # ordered in time, as listings are
    made = await connection.fetchrow(
        """
        INSERT INTO jobs (id, kind, subject, exclusive, request, author) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (exclusive) WHERE state IN ('queued', 'running') DO NOTHING RETURNING *
        """,
        *(job, kind, subject, exclusive, request, author),
    )
    if made is None:
        raise await _busy(connection, exclusive)
    await _changed(connection, made, source=source)
    return job


async def _busy(connection: Connection, exclusive: str | None) -> Problem:
    other = await connection.fetchrow(
        "SELECT id, kind, subject FROM jobs WHERE exclusive = $1 AND state IN ('queued', 'running')", exclusive
    )
    if other is None:  # it ended between the two statements
        return conflict("another job was at work on this until now", "repeat it")
    return conflict(
        f"a job works on this already: {other['kind']} of {other['subject']}",
        f"wait for its end, or cancel it: bootlink job cancel {other['id']}",
    )


async def get_job(connection: Connection, job: uuid.UUID) -> JobRow:
    """One job. Raises Problem."""
    row = await connection.fetchrow("SELECT * FROM jobs WHERE id = $1", job)
    if row is None:
        raise not_found(f"there is no job {job}", "bootlink job list shows the jobs of late")
    return JobRow.of(row)


async def list_jobs(
    connection: Connection,
    *,
    states: tuple[State, ...] = (),
    kind: str | None = None,
    subject: str | None = None,
    before: uuid.UUID | None = None,
    limit: int,
) -> list[JobRow]:
    """Jobs, newest first; those in some states, of a kind, about a subject; older than `before`."""
    found = await connection.fetch(
        """
        SELECT * FROM jobs
        WHERE ($1::text[] = '{}' OR state = ANY($1)) AND ($2::text IS NULL OR kind = $2)
            AND ($3::text IS NULL OR subject = $3) AND ($4::uuid IS NULL OR id < $4)
        ORDER BY id DESC LIMIT $5
        """,
        *(list(states), kind, subject, before, limit),
    )
    return [JobRow.of(row) for row in found]


async def cancel(connection: Connection, job: uuid.UUID, *, source: str) -> JobRow:
    """Have a job end: one that is queued at once, a running one when its function has cleaned up. Raises Problem."""
    row = await connection.fetchrow("SELECT * FROM jobs WHERE id = $1 FOR UPDATE", job)
    if row is None:
        raise not_found(f"there is no job {job}", "bootlink job list shows the jobs of late")
    if row["state"] == "queued":
        await end(connection, job, row["attempts"], "cancelled", source=source)
    elif row["state"] == "running":
        await connection.execute("UPDATE jobs SET cancelling = true, changed = now() WHERE id = $1", job)
        await _wake(connection)
    else:
        raise conflict(f"job {job} is over: {row['state']}", f"bootlink job show {job} tells how it ended")
    return await get_job(connection, job)


# -- for the runner -------------------------------------------------------------------------------------------------


async def begin_anew(connection: Connection, *, source: str) -> None:
    """Put jobs back into the queue that a registry left running; those that were being cancelled are over."""
    for row in await connection.fetch("SELECT * FROM jobs WHERE state = 'running' AND cancelling"):
        await end(connection, row["id"], row["attempts"], "cancelled", source=source)
    await connection.execute("UPDATE jobs SET state = 'queued', changed = now() WHERE state = 'running'")


async def waiting(connection: Connection, kinds: list[str], *, limit: int, others: bool = False) -> list[uuid.UUID]:
    """The oldest queued jobs of these kinds, or of all `others`."""
    found = await connection.fetch(
        "SELECT id FROM jobs WHERE state = 'queued' AND (kind = ANY($1::text[])) <> $2 ORDER BY id LIMIT $3",
        *(kinds, others, limit),
    )
    return [row["id"] for row in found]


async def begin(connection: Connection, job: uuid.UUID, *, source: str) -> JobRow | None:
    """Make a queued job a running one; None if it is not queued any more."""
    row = await connection.fetchrow(
        """
        UPDATE jobs SET state = 'running', attempts = attempts + 1, stage = '', done = 0, total = NULL,
            started = coalesce(started, now()), changed = now()
        WHERE id = $1 AND state = 'queued' RETURNING *
        """,
        job,
    )
    if row is None:
        return None
    await _changed(connection, row, source=source)
    return JobRow.of(row)


async def cancelling(connection: Connection) -> list[uuid.UUID]:
    """Running jobs that somebody wants to end."""
    return [row["id"] for row in await connection.fetch("SELECT id FROM jobs WHERE state = 'running' AND cancelling")]


async def tell_progress(
    connection: Connection, job: uuid.UUID, attempt: int, done: int, total: int | None, stage: str
) -> None:
    await connection.execute(
        """
        UPDATE jobs SET done = $3, total = $4, stage = $5, changed = now()
        WHERE id = $1 AND attempts = $2 AND state = 'running'
        """,
        *(job, attempt, done, total, stage),
    )


async def end(
    connection: Connection,
    job: uuid.UUID,
    attempt: int,
    state: End,
    *,
    result: dict[str, Any] | None = None,
    problem: dict[str, Any] | None = None,
    source: str,
) -> None:
    """Make a job be over. JobOver if it is already, or if this attempt is not its last."""
    row = await connection.fetchrow(
        """
        UPDATE jobs SET state = $3, result = $4, problem = $5, done = CASE WHEN $3 = 'done' THEN coalesce(total, done)
            ELSE done END, ended = now(), changed = now()
        WHERE id = $1 AND attempts = $2 AND state IN ('queued', 'running') RETURNING *
        """,
        *(job, attempt, state, result, problem),
    )
    if row is None:
        raise JobOver(f"attempt {attempt} at job {job} is over")
    await _changed(connection, row, source=source)
    await connection.execute(
        """
        DELETE FROM jobs WHERE id IN
            (SELECT id FROM jobs WHERE ended IS NOT NULL ORDER BY ended DESC, id DESC OFFSET $1)
        """,
        JOBS_KEPT,
    )


async def requeue(connection: Connection, job: uuid.UUID, attempt: int) -> None:
    """Have a job begin again."""
    await connection.execute(
        "UPDATE jobs SET state = 'queued', changed = now() WHERE id = $1 AND attempts = $2 AND state = 'running'",
        *(job, attempt),
    )


async def _changed(connection: Connection, row: Any, *, source: str) -> None:
    problem = row["problem"] or {}
    event = JobChanged(
        id=row["id"],
        kind=row["kind"],
        subject=row["subject"],
        author=row["author"],
        state=row["state"],
        attempt=row["attempts"],
        problem=problem.get("detail"),
        remedy=problem.get("remedy"),
        at=datetime.now(UTC),
    )
    await outbox.record(connection, event, source=source)
    await _wake(connection)


async def _wake(connection: Connection) -> None:
    await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
