"""The journal of boots: stages as they are told, and the summary made of them (see `boots`).

Recording is idempotent by event id and takes any order. All recording for one client is one after the other, by an
advisory lock on its MAC address, so that two boots of one client always see each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from bootlink_events import BootFailed, BootHello, CloudEvent, Stage, kind_named
from bootlink_registry import locks, outbox
from bootlink_registry.boots import Summary, summarise
from bootlink_registry.database import Connection
from bootlink_registry.enrolment import storable
from bootlink_registry.problems import not_found
from bootlink_registry.stalls import diagnose
from bootlink_registry.steps import Milestones

BOOTS_PER_CLIENT: Final = 100  # kept of one client; weeks of reboots
BOOTS_KEPT: Final = 200_000  # kept of all; about 1 GB with their stages
STAGES_PER_BOOT: Final = 500  # recorded of one boot; a session that flaps for hours must not fill the disk
SETTLE_SECONDS: Final = 5.0  # from a boot's arrival or end to its root span: late events and a hello come in between
PEER_WINDOW: Final = 5_000  # latest boots in which peers are looked for: a school's week, read in some milliseconds
PEERS_MAX: Final = 200  # boots that the median is of
ROOT_BATCH: Final = 100
SILENT_BATCH: Final = 20  # boots examined at once; a room that lost its power is through in a minute


@dataclass(frozen=True, slots=True)
class StageRow:
    """A stage as it was told."""

    event_id: str
    kind: str  # the event's type without its prefix, such as boot.started
    source: str  # service and node, such as /dhcp/server-1
    started: datetime
    ended: datetime
    data: dict[str, Any]  # what the event says beyond that


@dataclass(frozen=True, slots=True)
class BootRow:
    """A boot; `client` is the client's name now, or what it was called then."""

    boot_id: UUID
    mac: str
    client: str | None
    state: str
    started: datetime
    ended: datetime | None
    summary: dict[str, Any]


async def record(connection: Connection, event: CloudEvent, stage: Stage) -> bool:
    """Record one stage. False if it was recorded before, or the boot has more stages than are kept."""
    await connection.execute(locks.PAIR, locks.Kind.BOOTS, stage.mac)
    boot_id = str(stage.boot_id)
    if isinstance(stage, BootHello) and not await connection.fetchval(_OF_CLIENT, boot_id, stage.mac):
        return False  # a guest's word begins no boot: it would be over the one that really runs
    if await connection.fetchval("SELECT true FROM boot_stages WHERE event_id = $1", event.id):
        return False
    if await connection.fetchval("SELECT count(*) FROM boot_stages WHERE boot_id = $1", boot_id) >= STAGES_PER_BOOT:
        return False
    is_new = await connection.fetchval(
        """
        INSERT INTO boots (boot_id, mac, state, started, summary) VALUES ($1, $2, 'booting', $3, '{}')
        ON CONFLICT (boot_id) DO UPDATE SET heard = now(), examined = false RETURNING xmax = 0
        """,
        *(boot_id, stage.mac, stage.started),
    )
    await connection.execute(
        """
        INSERT INTO boot_stages (event_id, boot_id, kind, source, started, ended, data)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        """,
        *(event.id, boot_id, event.type, storable(event.source), stage.started, stage.ended, _storable(event.data)),
    )
    await _summarise(connection, stage.mac, boot_id)
    former = await connection.fetchval(
        "SELECT boot_id FROM boots WHERE mac = $1 AND boot_id < $2 ORDER BY boot_id DESC LIMIT 1", stage.mac, boot_id
    )
    if former is not None:
        await _summarise(connection, stage.mac, str(former))
    if is_new:
        await connection.execute(
            """
            DELETE FROM boots WHERE boot_id IN
                (SELECT boot_id FROM boots WHERE mac = $1 ORDER BY boot_id DESC OFFSET $2)
            """,
            *(stage.mac, BOOTS_PER_CLIENT),
        )
    return True


async def _summarise(connection: Connection, mac: str, boot_id: str) -> None:
    """Tell one boot anew from all that is known of it."""
    stages = await _stages(connection, boot_id)
    if not stages:
        return
    newer = await connection.fetchval(
        "SELECT started FROM boots WHERE mac = $1 AND boot_id > $2 ORDER BY boot_id LIMIT 1", mac, boot_id
    )
    summary = summarise(stages, newer=newer)
    await connection.execute(
        """
        UPDATE boots SET state = $2, started = $3, ended = $4, client = coalesce($5, client), summary = $6,
            over_since = CASE WHEN $7 THEN coalesce(over_since, now()) END
        WHERE boot_id = $1
        """,
        *(boot_id, summary.state, summary.started, summary.ended, summary.client, _facts(summary)),
        summary.over or summary.arrived,
    )


async def _stages(connection: Connection, boot_id: str) -> list[Stage]:
    found = await connection.fetch("SELECT kind, data FROM boot_stages WHERE boot_id = $1", boot_id)
    return [stage for row in found if (stage := _stage(row)) is not None]


def _stage(row: Any) -> Stage | None:
    kind = kind_named(row["kind"])
    stage = kind.model.model_validate(row["data"]) if kind is not None else None
    return stage if isinstance(stage, Stage) else None


def _facts(summary: Summary) -> dict[str, Any]:
    facts = dataclasses.asdict(summary)
    for column in ("state", "started", "ended", "client"):
        del facts[column]
    for moment in ("os_attached", "heard_until"):
        if facts[moment] is not None:
            facts[moment] = facts[moment].isoformat()
    return facts


def _storable(value: Any) -> Any:
    """JSON data without NUL characters, which PostgreSQL's jsonb refuses."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(str(key)): _storable(item) for key, item in value.items()}
    return value


_OF_CLIENT: Final = "SELECT true FROM boots WHERE boot_id = $1 AND mac = $2"

# -- reading --------------------------------------------------------------------------------------------------------

_BOOTS: Final = """
    SELECT b.boot_id, b.mac, coalesce(c.name, b.client) AS client, b.state, b.started, b.ended, b.summary
    FROM boots b LEFT JOIN clients c ON c.mac = b.mac
"""


def _row(row: Any) -> BootRow:
    return BootRow(**{field.name: row[field.name] for field in dataclasses.fields(BootRow)})


async def list_boots(connection: Connection, *, mac: str | None, before: UUID | None, limit: int) -> list[BootRow]:
    """Boots of one client or all, newest first, before the given one."""
    found = await connection.fetch(
        f"""
        {_BOOTS} WHERE ($1::text IS NULL OR b.mac = $1) AND ($2::uuid IS NULL OR b.boot_id < $2)
        ORDER BY b.boot_id DESC LIMIT $3
        """,
        *(mac, before, limit),
    )
    return [_row(row) for row in found]


async def get_boot(connection: Connection, boot_id: UUID) -> tuple[BootRow, list[StageRow]]:
    """One boot and its stages, in the order of their beginnings. Raises Problem."""
    row = await connection.fetchrow(f"{_BOOTS} WHERE b.boot_id = $1", boot_id)
    if row is None:
        raise not_found(f"there is no boot {boot_id}", "bootlink boot list shows the boots that are kept")
    found = await connection.fetch(
        "SELECT * FROM boot_stages WHERE boot_id = $1 ORDER BY started, ended, event_id", boot_id
    )
    return _row(row), [_stage_row(stage) for stage in found]


def _stage_row(row: Any) -> StageRow:
    told_already = {"mac", "client", "boot_id", "started", "ended"}
    kind = kind_named(row["kind"])
    return StageRow(
        event_id=row["event_id"],
        kind=kind.what if kind else row["kind"],
        source=row["source"],
        started=row["started"],
        ended=row["ended"],
        data={name: value for name, value in row["data"].items() if name not in told_already},
    )


async def others(connection: Connection, boot: BootRow) -> tuple[BootRow | None, list[Milestones]]:
    """What to compare a boot with: the client's boot before it that came as far as a disk, and the milestones of its
    peers: the latest boot each of other clients, from the same version of the same image."""
    last = await connection.fetchrow(
        f"""
        {_BOOTS} WHERE b.mac = $1 AND b.boot_id < $2 AND b.summary->'milestones' ?| array['login', 'system']
        ORDER BY b.boot_id DESC LIMIT 1
        """,
        *(boot.mac, boot.boot_id),
    )
    image, version = boot.summary.get("image"), boot.summary.get("version")
    if image is None:
        return (_row(last) if last is not None else None), []
    found = await connection.fetch(
        """
        SELECT DISTINCT ON (mac) summary->'milestones' AS milestones
        FROM (SELECT boot_id, mac, summary FROM boots ORDER BY boot_id DESC LIMIT $4) AS latest
        WHERE mac <> $1 AND summary->>'image' = $2 AND (summary->>'version')::int = $3
            AND summary->'milestones' ? 'system'
        ORDER BY mac, boot_id DESC LIMIT $5
        """,
        *(boot.mac, image, version, PEER_WINDOW, PEERS_MAX),
    )
    return (_row(last) if last is not None else None), [row["milestones"] for row in found]


# -- ends -----------------------------------------------------------------------------------------------------------


async def take_done(connection: Connection, *, settle: float = SETTLE_SECONDS) -> Sequence[BootRow]:
    """The boots that arrived or ended `settle` seconds ago and have no root span yet; each is handed out once."""
    found = await connection.fetch(
        """
        UPDATE boots SET root_written = true WHERE boot_id IN (
            SELECT boot_id FROM boots WHERE over_since <= now() - $1::interval AND NOT root_written
            ORDER BY over_since LIMIT $2 FOR UPDATE SKIP LOCKED)
        RETURNING boot_id, mac, client, state, started, ended, summary
        """,
        *(timedelta(seconds=settle), ROOT_BATCH),
    )
    return [_row(row) for row in found]


async def silent(connection: Connection, *, silence: float) -> list[tuple[str, UUID]]:
    """MAC address and id of boots to examine: nothing was heard of them for `silence` seconds."""
    found = await connection.fetch(
        """
        SELECT mac, boot_id FROM boots WHERE state = 'booting' AND NOT examined AND heard <= now() - $1::interval
        ORDER BY heard LIMIT $2
        """,
        *(timedelta(seconds=silence), SILENT_BATCH),
    )
    return [(row["mac"], row["boot_id"]) for row in found]


async def examine(connection: Connection, mac: str, boot_id: UUID, *, source: str, silence: float) -> BootFailed | None:
    """Examine one boot that fell silent, once per silence. What is missing, after recording it; None if nothing is."""
    await connection.execute(locks.PAIR, locks.Kind.BOOTS, mac)  # before any row, as in `record`
    still = await connection.fetchval(
        """
        UPDATE boots SET examined = true
        WHERE boot_id = $1 AND state = 'booting' AND NOT examined AND heard <= now() - $2::interval RETURNING true
        """,
        *(boot_id, timedelta(seconds=silence)),
    )
    failure = diagnose(await _stages(connection, str(boot_id)), now=datetime.now(UTC)) if still else None
    if still and failure is None:
        # Nothing more may come of it (its kernel has no disk of ours), so its trace is done.
        await connection.execute(
            "UPDATE boots SET over_since = coalesce(over_since, now()) WHERE boot_id = $1", boot_id
        )
    if failure is not None:
        # Recorded here and now, so that the listing says it; the same event comes back by its id, and is known.
        await record(connection, await outbox.record(connection, failure, source=source), failure)
    return failure


async def prune(connection: Connection) -> None:
    """Hold the number of boots to BOOTS_KEPT; the oldest go."""
    await connection.execute(
        "DELETE FROM boots WHERE boot_id IN (SELECT boot_id FROM boots ORDER BY boot_id DESC OFFSET $1)", BOOTS_KEPT
    )
