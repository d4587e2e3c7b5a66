"""The outbox: what a change sets off is recorded in the change's own transaction.

Two things follow a change, and both are rows until they are done: the plans to compile anew (`recompiles`) and the
event to publish (`outbox`). A notification wakes whoever delivers them (see `delivery`); as notifications can be
lost, it also looks once a second.

Order. Events are read by (transaction id, sequence), and only those of transactions older than every one that still
runs: a plain sequence number is given out before its transaction commits, so that reading by it alone would skip the
row of a slow transaction. Ids that this server has not given out yet come from a dump of another one; nobody will ever
overtake those. The row's id is the event's id and its NATS message id, so a row that is published twice is
one event.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bootlink_events import CloudEvent, EventData
from bootlink_registry.database import Connection

CHANNEL: Final = "bootlink_registry"  # of LISTEN and NOTIFY
EVENT_BATCH: Final = 200  # events taken at once; what is left comes in the next round
RECOMPILE_BATCH: Final = 10_000  # rows taken at once

_OLDEST: Final = """
    SELECT event FROM outbox
    WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) OR xid >= pg_snapshot_xmax(pg_current_snapshot())
    ORDER BY xid, seq
    LIMIT $1
"""


@dataclass(frozen=True, slots=True)
class Recompiles:
    """Whose plans to compile anew: everybody's, or those of some clients and groups. `ids` are the rows."""

    ids: tuple[int, ...] = ()
    everybody: bool = False
    macs: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()


async def record(connection: Connection, data: EventData, *, source: str) -> CloudEvent:
    """Record an event, to be published once this transaction is committed."""
    event = CloudEvent.of(data, source=source)
    await connection.execute("INSERT INTO outbox (id, event) VALUES ($1, $2)", event.id, event.payload().decode())
    await _wake(connection)
    return event


async def record_all(connection: Connection, data: Sequence[EventData], *, source: str) -> None:
    """Record many events at once, in their order."""
    events = [CloudEvent.of(one, source=source) for one in data]
    if events:
        await connection.execute(
            """
            INSERT INTO outbox (id, event)
            SELECT id, event FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS new (id, event, n) ORDER BY n
            """,
            *([event.id for event in events], [event.payload().decode() for event in events]),
        )
        await _wake(connection)


async def recompile_clients(connection: Connection, macs: Collection[str]) -> None:
    """Have the plans of many clients compiled once this transaction is committed."""
    if macs:
        await connection.execute("INSERT INTO recompiles (scope, key) SELECT 'client', unnest($1::text[])", list(macs))
        await _wake(connection)


async def recompile(connection: Connection, scope: Literal["client", "group", "all"], key: str = "") -> None:
    """Have the plans of a client (by MAC), a group or everybody compiled once this transaction is committed."""
    await connection.execute("INSERT INTO recompiles (scope, key) VALUES ($1, $2)", scope, key)
    await _wake(connection)


async def _wake(connection: Connection) -> None:
    await connection.execute("SELECT pg_notify($1, '')", CHANNEL)  # PostgreSQL sends it once, at the commit


async def oldest_events(connection: Connection, limit: int = EVENT_BATCH) -> list[CloudEvent]:
    """The events to publish next, in the order of their transactions."""
    return [CloudEvent.parse(row["event"].encode()) for row in await connection.fetch(_OLDEST, limit)]


async def forget_events(connection: Connection, ids: list[str]) -> None:
    """Take events out that NATS has stored."""
    await connection.execute("DELETE FROM outbox WHERE id = ANY($1::uuid[])", ids)


async def oldest_recompiles(connection: Connection) -> Recompiles:
    """The changes to compile next. Where not all are taken it is everybody's: what the plans of one client show is
    shared by others, and the changes that were left concern those, too."""
    rows = await connection.fetch("SELECT id, scope, key FROM recompiles ORDER BY id LIMIT $1", RECOMPILE_BATCH)
    return Recompiles(
        ids=tuple(row["id"] for row in rows),
        everybody=len(rows) == RECOMPILE_BATCH or any(row["scope"] == "all" for row in rows),
        macs=frozenset(row["key"] for row in rows if row["scope"] == "client"),
        groups=frozenset(row["key"] for row in rows if row["scope"] == "group"),
    )


async def forget_recompiles(connection: Connection, work: Recompiles) -> None:
    """Take rows out whose plans are where the services see them."""
    if work.ids:
        await connection.execute("DELETE FROM recompiles WHERE id = ANY($1::bigint[])", list(work.ids))
