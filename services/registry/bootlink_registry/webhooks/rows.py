"""Webhooks as the database has them: added, listed, changed, removed, and switched off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import asyncpg

from bootlink_events import EventFilter, WebhookChanged, parse_filter
from bootlink_registry import outbox
from bootlink_registry.database import Connection
from bootlink_registry.locks import Whole
from bootlink_registry.problems import Problem, conflict, not_found
from bootlink_registry.webhooks.signing import new_secret

WEBHOOKS_LIMIT: Final = 50  # each has workers of its own, and a comparison per event
FORMER_HOURS: Final = 24  # that a secret still signs which was replaced

Change = Literal["added", "changed", "removed", "secret_replaced", "switched_on", "switched_off"]


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook. `problem` says why it was switched off, or since `failing_since` why it takes nothing."""

    name: str
    url: str
    filters: tuple[EventFilter, ...]
    note: str
    enabled: bool
    problem: str
    failing_since: datetime | None
    delivered: datetime | None
    author: str
    created: datetime
    secret: str = field(repr=False)
    former_secret: str | None = field(repr=False)
    former_until: datetime | None

    def keys(self, now: datetime) -> tuple[str, ...]:
        """The secrets that sign now."""
        former = self.former_secret if self.former_until is not None and now < self.former_until else None
        return (self.secret, former) if former else (self.secret,)


async def add(
    connection: Connection,
    *,
    name: str,
    url: str,
    filters: Sequence[str],
    note: str,
    secret: str | None,
    author: str,
    source: str,
) -> Webhook:
    """Add a webhook; it is sent what happens from now on. Raises Problem."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", Whole.WEBHOOKS)
    if await connection.fetchval("SELECT count(*) FROM webhooks") >= WEBHOOKS_LIMIT:
        raise conflict(
            f"there are {WEBHOOKS_LIMIT} webhooks, which is the limit",
            "remove those that nobody uses (bootlink webhook list), or read events from NATS",
        )
    try:
        row = await connection.fetchrow(
            """
            INSERT INTO webhooks (name, url, filters, note, secret, author)
            VALUES ($1, $2, $3, $4, $5, $6) RETURNING *
            """,
            *(name, url, list(filters), note, secret or new_secret(), author),
        )
    except asyncpg.UniqueViolationError as error:
        raise conflict(f"there is a webhook {name!r} already", "choose another name, or change that one") from error
    await tell(connection, name, "added", author=author, source=source)
    return _row(row)


async def get(connection: Connection, name: str) -> Webhook:
    """One webhook. Raises Problem."""
    row = await connection.fetchrow("SELECT * FROM webhooks WHERE name = $1", name)
    if row is None:
        raise _no_such(name)
    return _row(row)


async def listed(connection: Connection, *, after: str = "", limit: int = WEBHOOKS_LIMIT) -> list[Webhook]:
    """Webhooks by name, after the given name."""
    found: Iterable[Any] = await connection.fetch(
        "SELECT * FROM webhooks WHERE name > $1 ORDER BY name LIMIT $2", after, limit
    )
    return [_row(row) for row in found]


async def change(connection: Connection, name: str, changes: Mapping[str, Any], *, author: str, source: str) -> Webhook:
    """Change its url, filters, note or whether it is enabled. Raises Problem."""
    before = await get(connection, name)
    now: dict[str, Any] = {"url": before.url, "note": before.note, "enabled": before.enabled}
    now["filters"] = [one.text for one in before.filters]
    now |= changes
    # Whatever was wrong with it may be mended by this.
    row = await connection.fetchrow(
        """
        UPDATE webhooks SET url = $2, filters = $3, note = $4, enabled = $5, problem = '', failing_since = NULL
        WHERE name = $1 RETURNING *
        """,
        *(name, now["url"], list(now["filters"]), now["note"], now["enabled"]),
    )
    if row is None:
        raise _no_such(name)
    what: Change = "changed"
    if now["enabled"] != before.enabled:
        what = "switched_on" if now["enabled"] else "switched_off"
    await tell(connection, name, what, author=author, source=source)
    return _row(row)


async def replace_secret(connection: Connection, name: str, secret: str | None, *, author: str, source: str) -> Webhook:
    """Give it another secret. The former one signs besides for some hours. Raises Problem."""
    row = await connection.fetchrow(
        """
        UPDATE webhooks SET former_secret = secret, former_until = $3, secret = $2 WHERE name = $1 RETURNING *
        """,
        *(name, secret or new_secret(), datetime.now(UTC) + timedelta(hours=FORMER_HOURS)),
    )
    if row is None:
        raise _no_such(name)
    await tell(connection, name, "secret_replaced", author=author, source=source)
    return _row(row)


async def remove(connection: Connection, name: str, *, author: str, source: str) -> None:
    """Remove a webhook, and all that waits for it. Raises Problem."""
    if await connection.fetchval("DELETE FROM webhooks WHERE name = $1 RETURNING name", name) is None:
        raise _no_such(name)
    await tell(connection, name, "removed", author=author, source=source)


async def switch_off(connection: Connection, name: str, problem: str, *, source: str) -> None:
    """Send it nothing more until somebody switches it on again; what waits stays."""
    found = await connection.fetchval(
        "UPDATE webhooks SET enabled = false, problem = $2 WHERE name = $1 AND enabled RETURNING name", name, problem
    )
    if found is not None:
        await tell(connection, name, "switched_off", problem=problem, source=source)


async def tell(
    connection: Connection, name: str, what: Change, *, problem: str = "", author: str = "", source: str
) -> None:
    """Record the event of a change."""
    event = WebhookChanged(name=name, change=what, problem=problem, author=author, at=datetime.now(UTC))
    await outbox.record(connection, event, source=source)


def _no_such(name: str) -> Problem:
    return not_found(f"there is no webhook {name!r}", "bootlink webhook list shows the webhooks there are")


def _row(row: Any) -> Webhook:
    return Webhook(
        name=row["name"],
        url=row["url"],
        filters=tuple(parse_filter(text) for text in row["filters"]),
        note=row["note"],
        enabled=row["enabled"],
        problem=row["problem"],
        failing_since=row["failing_since"],
        delivered=row["delivered"],
        author=row["author"],
        created=row["created"],
        secret=row["secret"],
        former_secret=row["former_secret"],
        former_until=row["former_until"],
    )
