"""Clients: added by an administrator, or enrolled when they first ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address
from typing import Any, Final, Literal

import asyncpg

from bootlink_events import ClientSeen
from bootlink_registry import outbox, rows
from bootlink_registry.catalogue import Client
from bootlink_registry.database import Connection
from bootlink_registry.names import as_mac
from bootlink_registry.problems import Problem, conflict, invalid, not_found
from bootlink_registry.settings import ENROL_LIMIT

SIGHTINGS_KEPT: Final = 10_000  # PCs remembered that are no clients; the one not seen for longest goes first
_ENROL_LOCK: Final = 0x626F_6F74_0003  # one enrolment at a time

_BY_MAC: Final = "SELECT * FROM clients WHERE mac = $1"
_BY_NAME: Final = "SELECT * FROM clients WHERE name = $1"


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A client and how it came here."""

    client: Client
    enrolled: bool  # by itself; nobody added or changed it since
    created: datetime


def _row(row: Any) -> ClientRow:
    return ClientRow(rows.client_of(row), row["enrolled"], row["created"])


async def find_client(connection: Connection, name_or_mac: str) -> ClientRow:
    """The client of this name or MAC address. Raises Problem."""
    mac = as_mac(name_or_mac)
    row = await connection.fetchrow(_BY_MAC if mac else _BY_NAME, mac or name_or_mac)
    if row is None:
        remedy = (
            f"add it: bootlink client add {mac} --name NAME"
            if mac
            else "bootlink client list shows the clients there are; add one: bootlink client add MAC --name NAME"
        )
        raise not_found(f"there is no client {mac or name_or_mac!r}", remedy)
    return _row(row)


async def list_clients(connection: Connection, *, group: str | None, after: str, limit: int) -> list[ClientRow]:
    """Clients by name, of one group or all, after the given name."""
    found = await connection.fetch(
        """
        SELECT * FROM clients WHERE name > $1 AND ($2::text IS NULL OR group_name = $2)
        ORDER BY name LIMIT $3
        """,
        after,
        group,
        limit,
    )
    return [_row(row) for row in found]


async def add_client(
    connection: Connection, *, mac: str, name: str | None, group: str | None, address: IPv4Address | None, pattern: str
) -> tuple[ClientRow, bool]:
    """Add a client; or take over one that had enrolled itself, which gives it this name. Raises Problem.

    Without a name a new client gets the next one of the enrolment pattern, and one that is there keeps its own. The
    second value is true if it is new.
    """
    row = await connection.fetchrow("SELECT * FROM clients WHERE mac = $1 FOR UPDATE", mac)
    if row is not None and not row["enrolled"]:
        raise conflict(
            f"{mac} is client {row['name']} already",
            f"change it with PATCH /v1/clients/{row['name']}, or give another MAC",
        )
    if row is None:
        await _write(
            connection,
            "INSERT INTO clients (mac, name, group_name, address) VALUES ($1, $2, $3, $4)",
            *(mac, name or await free_name(connection, pattern), group, address),
        )
    else:
        await _write(
            connection,
            "UPDATE clients SET name = $2, group_name = $3, address = $4, enrolled = false WHERE mac = $1",
            *(mac, name or row["name"], group, address),
        )
    await connection.execute("DELETE FROM sightings WHERE mac = $1", mac)
    await outbox.recompile(connection, "client", mac)
    return await find_client(connection, mac), row is None


async def change_client(connection: Connection, name_or_mac: str, changes: Mapping[str, Any]) -> ClientRow:
    """Change some of name, group, address and disabled. Raises Problem."""
    if not changes:
        raise invalid("nothing to change", "give some of name, group, address and disabled")
    mac = (await find_client(connection, name_or_mac)).client.mac
    now = rows.client_of(await connection.fetchrow("SELECT * FROM clients WHERE mac = $1 FOR UPDATE", mac))
    changed = dataclasses.replace(now, **changes)
    await _write(
        connection,
        """
        UPDATE clients SET name = $2, group_name = $3, address = $4, disabled = $5, enrolled = false WHERE mac = $1
        """,
        *(mac, changed.name, changed.group, changed.address, changed.disabled),
    )
    await outbox.recompile(connection, "client", mac)
    return await find_client(connection, mac)


async def _write(connection: Connection, statement: str, *values: Any) -> None:
    try:
        await connection.execute(statement, *values)
    except asyncpg.UniqueViolationError as error:
        raise _taken(error) from error


def _taken(error: asyncpg.UniqueViolationError) -> Problem:
    what = {"clients_name_key": "name", "clients_address_key": "address", "clients_pkey": "MAC address"}
    taken = what.get(str(getattr(error, "constraint_name", "")), "name")
    return conflict(f"another client has this {taken} already", f"choose another {taken}, or change the other client")


Enrolment = Literal["enrolled", "known", "unknown", "full"]


async def enrol(
    connection: Connection, seen: ClientSeen, *, policy: Literal["accept", "refuse"], pattern: str
) -> Enrolment:
    """A PC asked whose plan the boot path does not have. Makes it a client if the policy says so; idempotent.

    A known client gets its plan put out once more: that the boot path asks means that it has none.
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _ENROL_LOCK)
    if await connection.fetchval("SELECT true FROM clients WHERE mac = $1", seen.mac):
        await outbox.recompile(connection, "client", seen.mac)
        return "known"
    if policy == "refuse":
        await _remember(connection, seen)
        return "unknown"
    if await connection.fetchval("SELECT count(*) FROM clients WHERE enrolled") >= ENROL_LIMIT:
        await _remember(connection, seen)
        return "full"
    name = await free_name(connection, pattern)
    await connection.execute("INSERT INTO clients (mac, name, enrolled) VALUES ($1, $2, true)", seen.mac, name)
    await connection.execute("DELETE FROM sightings WHERE mac = $1", seen.mac)
    await outbox.recompile(connection, "client", seen.mac)
    return "enrolled"


async def free_name(connection: Connection, pattern: str) -> str:
    """The next name of the enrolment pattern that no client has."""
    while True:
        name = pattern.format(n=await connection.fetchval("SELECT nextval('enrolment')"))
        if not await connection.fetchval("SELECT true FROM clients WHERE name = $1", name):
            return name


async def _remember(connection: Connection, seen: ClientSeen) -> None:
    await connection.execute(
        """
        INSERT INTO sightings (mac, boot_id, address, arch, vendor_class) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (mac) DO UPDATE SET boot_id = excluded.boot_id, address = excluded.address,
            arch = excluded.arch, vendor_class = excluded.vendor_class, last_seen = now()
        """,
        seen.mac,
        str(seen.boot_id),
        seen.address,
        storable(seen.arch),
        storable(seen.vendor_class),
    )
    await connection.execute(
        "DELETE FROM sightings WHERE mac IN (SELECT mac FROM sightings ORDER BY last_seen DESC OFFSET $1)",
        SIGHTINGS_KEPT,
    )


async def list_sightings(connection: Connection, *, limit: int) -> list[Any]:
    """PCs that asked and are no clients, the latest first."""
    return await connection.fetch("SELECT * FROM sightings ORDER BY last_seen DESC, mac LIMIT $1", limit)


def storable(text: str) -> str:
    """`text` without NUL, which PostgreSQL stores in no text; a PC may send anything as its vendor class."""
    return text.replace("\0", "")
