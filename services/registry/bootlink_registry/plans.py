"""Compiled plans as rows: each is numbered when it differs from the one before, and remembered.

The row holds the plan's JSON without its revision. What travels is the same JSON with the revision put in front, so
that a plan is written out once, and ten thousand of them are compared as text.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from typing import Any, Final

from bootlink_events import BootPlan
from bootlink_registry import rows
from bootlink_registry.compiler import compile_plan
from bootlink_registry.database import Connection

CHUNK: Final = (
    200  # plans compiled in one go, which takes some 10 ms; then whatever waits in this event loop has its turn
)


async def compile_all(
    connection: Connection, serving: rows.Serving, *, everybody: bool, macs: Collection[str], groups: Collection[str]
) -> dict[str, bytes]:
    """The plans of all clients, or of these and those of these groups, by MAC address, as they travel.

    One that differs from the last has a new revision, and is the last from now on. Wants a transaction that sees one
    state (repeatable read).
    """
    found = await connection.fetch(
        """
        SELECT * FROM clients
        WHERE $1 OR mac = ANY($2::text[]) OR group_name = ANY($3::text[])
        """,
        *(everybody, list(macs), list(groups)),
    )
    catalogue = await rows.read_catalogue(connection, serving, None if everybody else [row["mac"] for row in found])
    plans: dict[str, bytes] = {}
    for chunk in _chunks(found):
        bodies = {}
        for row in chunk:
            plan = compile_plan(catalogue, rows.client_of(row))
            bodies[plan.mac] = _body(plan)
        revisions = await _number(connection, bodies)
        plans |= {mac: _payload(body, revisions[mac]) for mac, body in bodies.items()}
    return plans


def payload(plan: BootPlan) -> bytes:
    """The plan as it travels."""
    return _payload(_body(plan), plan.revision)


async def last_plan(connection: Connection, mac: str) -> BootPlan | None:
    """The plan of a client that was compiled last; None if none was yet."""
    row = await connection.fetchrow("SELECT revision, body FROM plans WHERE mac = $1", mac)
    return BootPlan.model_validate_json(_payload(row["body"], row["revision"])) if row is not None else None


async def forget(connection: Connection, macs: Collection[str]) -> None:
    """Take out the plans of those who are no clients."""
    await connection.execute("DELETE FROM plans WHERE mac = ANY($1::text[])", list(macs))


async def _number(connection: Connection, bodies: dict[str, str]) -> dict[str, int]:
    """The revision of each plan: a new one where it differs from the last."""
    held = await connection.fetch("SELECT mac, revision, body FROM plans WHERE mac = ANY($1::text[])", list(bodies))
    revisions = {row["mac"]: row["revision"] for row in held if row["body"] == bodies[row["mac"]]}
    changed = [mac for mac in bodies if mac not in revisions]
    if changed:
        written = await connection.fetch(
            """
            INSERT INTO plans (mac, revision, body)
            SELECT mac, nextval('plan_revision'), body FROM unnest($1::text[], $2::text[]) AS new (mac, body)
            ON CONFLICT (mac) DO UPDATE SET revision = excluded.revision, body = excluded.body
            RETURNING mac, revision
            """,
            *(changed, [bodies[mac] for mac in changed]),
        )
        revisions |= {row["mac"]: row["revision"] for row in written}
    return revisions


def _chunks(found: list[Any]) -> Iterator[list[Any]]:
    remaining = iter(found)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        yield chunk


def _body(plan: BootPlan) -> str:
    return plan.model_dump_json(exclude={"revision"})


def _payload(body: str, revision: int) -> bytes:
    return f'{{"revision":{revision},{body[1:]}'.encode()
