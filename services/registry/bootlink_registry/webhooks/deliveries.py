"""Deliveries: rows that wait to be sent, were sent, or were given up (see the package for their states)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bootlink_events import CloudEvent
from bootlink_registry.database import Connection
from bootlink_registry.problems import conflict, not_found

WAITING_LIMIT: Final = 100_000  # for one webhook: days of a busy house, about 100 MB; then it is switched off
DEAD_LIMIT: Final = 10_000  # of one webhook; then the oldest go
DEAD_DAYS: Final = 30  # that one given up stays
DONE_SECONDS: Final = 3600.0  # longer than JetStream repeats an event that nobody acknowledged
LEASE_SECONDS: Final = 60.0  # that a taken row is one worker's; an attempt takes a quarter of it at most
PROBLEM_LIMIT: Final = 300  # characters kept of why an attempt failed


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook. `event` is the CloudEvent as it is sent."""

    id: int
    event_id: str
    event: str
    attempts: int
    refusals: int
    problem: str
    queued: datetime
    changed: datetime
    waited: float  # seconds since it was queued

    @property
    def body(self) -> bytes:
        return self.event.encode()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many deliveries of a webhook wait, and how many were given up."""

    waiting: int = 0
    dead: int = 0


async def enqueue(connection: Connection, webhooks: Sequence[str], event: CloudEvent) -> int:
    """Have an event sent to these webhooks; how many had it not yet. One removed in between is passed over."""
    done = await connection.fetch(
        """
        INSERT INTO deliveries (webhook, event_id, event)
        SELECT name, $2, $3 FROM webhooks WHERE name = ANY($1::text[]) FOR KEY SHARE
        ON CONFLICT DO NOTHING RETURNING id
        """,
        *(list(webhooks), event.id, event.payload().decode()),
    )
    return len(done)


async def take(connection: Connection, webhook: str, limit: int, *, whatever_due: bool = False) -> list[Delivery]:
    """Take deliveries that are due, the oldest first: nobody else gets them for LEASE_SECONDS. With `whatever_due`
    also those that wait for a later attempt, to try a webhook that takes nothing."""
    rows: Iterable[Any] = await connection.fetch(
        """
        UPDATE deliveries SET leased = now() + make_interval(secs => $3), attempts = attempts + 1, changed = now()
        WHERE id IN (
            SELECT id FROM deliveries
            WHERE webhook = $1 AND state = 'waiting' AND leased <= now() AND (due <= now() OR $4)
            ORDER BY due, id LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        RETURNING *, extract(epoch FROM now() - queued)::float8 AS waited
        """,
        *(webhook, limit, LEASE_SECONDS, whatever_due),
    )
    return sorted((_row(row) for row in rows), key=lambda delivery: delivery.id)


async def next_due(connection: Connection, webhook: str) -> float | None:
    """Seconds until the next delivery of this webhook is due; None where none waits."""
    found = await connection.fetchval(
        """
        SELECT extract(epoch FROM min(greatest(due, leased)) - now())::float8 FROM deliveries
        WHERE webhook = $1 AND state = 'waiting'
        """,
        webhook,
    )
    return None if found is None else max(0.0, float(found))


async def delivered(connection: Connection, delivery: int, webhook: str) -> None:
    """It was taken."""
    await connection.execute(
        "UPDATE deliveries SET state = 'done', problem = '', changed = now() WHERE id = $1", delivery
    )
    await connection.execute("UPDATE webhooks SET delivered = now(), problem = '' WHERE name = $1 AND enabled", webhook)


async def recovered(connection: Connection, webhook: str) -> None:
    """The webhook takes events again: what waited for that is due now."""
    await connection.execute("UPDATE webhooks SET failing_since = NULL WHERE name = $1", webhook)
    await connection.execute(
        "UPDATE deliveries SET due = now() WHERE webhook = $1 AND state = 'waiting' AND refusals = 0", webhook
    )


async def failed(
    connection: Connection, delivery: int, webhook: str, problem: str, *, again: float | None, away: bool
) -> None:
    """It was not taken: it comes `again` after so many seconds, or is given up with None. `away`: nor was any other."""
    await connection.execute(
        """
        UPDATE deliveries SET state = CASE WHEN $3::float8 IS NULL THEN 'dead' ELSE 'waiting' END, problem = $2,
            due = now() + make_interval(secs => coalesce($3, 0)), leased = '-infinity', changed = now(),
            refusals = refusals + CASE WHEN $4 THEN 0 ELSE 1 END
        WHERE id = $1
        """,
        *(delivery, problem[:PROBLEM_LIMIT], again, away),
    )
    await connection.execute(
        """
        UPDATE webhooks SET problem = $2,
            failing_since = CASE WHEN $3 THEN coalesce(failing_since, now()) ELSE failing_since END
        WHERE name = $1 AND enabled
        """,
        *(webhook, problem[:PROBLEM_LIMIT], away),
    )


async def counts(connection: Connection) -> dict[str, Counts]:
    """Of each webhook."""
    rows = await connection.fetch(
        """
        SELECT name, (SELECT count(*) FROM deliveries WHERE webhook = name AND state = 'waiting') AS waiting,
            (SELECT count(*) FROM deliveries WHERE webhook = name AND state = 'dead') AS dead
        FROM webhooks
        """
    )
    return {row["name"]: Counts(row["waiting"], row["dead"]) for row in rows}


async def dead(connection: Connection, webhook: str, *, after: int = 0, limit: int) -> list[Delivery]:
    """Deliveries that were given up, the oldest first, after the given id."""
    rows: Iterable[Any] = await connection.fetch(
        """
        SELECT *, extract(epoch FROM now() - queued)::float8 AS waited FROM deliveries
        WHERE webhook = $1 AND state = 'dead' AND id > $2 ORDER BY id LIMIT $3
        """,
        *(webhook, after, limit),
    )
    return [_row(row) for row in rows]


async def resend(connection: Connection, webhook: str, event_id: str | None) -> int:
    """Have what was given up sent again: one event, or all with None. How many. Problem if that one was not."""
    done = await connection.fetch(
        """
        UPDATE deliveries
        SET state = 'waiting', attempts = 0, refusals = 0, due = now(), queued = now(), changed = now()
        WHERE webhook = $1 AND state = 'dead' AND ($2::text IS NULL OR event_id = $2) RETURNING id
        """,
        *(webhook, event_id),
    )
    if not done and event_id is not None:
        raise not_found(
            f"no event {event_id!r} was given up for the webhook {webhook!r}",
            f"bootlink webhook dead {webhook} shows those that were",
        )
    return len(done)


async def require_room(connection: Connection, webhook: str) -> None:
    """Problem if what was given up cannot wait once more, as too much does already."""
    found = (await counts(connection)).get(webhook, Counts())
    if found.waiting + found.dead > WAITING_LIMIT:
        raise conflict(
            f"{found.waiting} events wait for the webhook {webhook!r} already; {WAITING_LIMIT} is the limit",
            "wait until it has taken them",
        )


async def prune(connection: Connection) -> None:
    """Forget what was sent a while ago, and the oldest of what was given up."""
    await connection.execute(
        """
        DELETE FROM deliveries
        WHERE (state = 'done' AND changed < now() - make_interval(secs => $1))
            OR (state = 'dead' AND changed < now() - make_interval(days => $2))
        """,
        *(DONE_SECONDS, DEAD_DAYS),
    )
    await connection.execute(
        """
        DELETE FROM deliveries AS old USING webhooks WHERE old.webhook = name AND old.state = 'dead' AND old.id <= (
            SELECT id FROM deliveries WHERE webhook = name AND state = 'dead' ORDER BY id DESC OFFSET $1 LIMIT 1
        )
        """,
        DEAD_LIMIT,
    )


def _row(row: Any) -> Delivery:
    return Delivery(
        id=row["id"],
        event_id=row["event_id"],
        event=row["event"],
        attempts=row["attempts"],
        refusals=row["refusals"],
        problem=row["problem"],
        queued=row["queued"],
        changed=row["changed"],
        waited=row["waited"],
    )
