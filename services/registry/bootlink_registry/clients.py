"""Clients: the PCs, each known by its MAC address and called by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any, Final, Literal

import asyncpg

from bootlink_events import ClientChanged
from bootlink_registry import locks, outbox, rows
from bootlink_registry.catalogue import Client
from bootlink_registry.database import Connection
from bootlink_registry.names import as_mac
from bootlink_registry.problems import Problem, conflict, invalid, not_found

Change = Literal["added", "enrolled", "changed", "removed"]

_BY_MAC: Final = "SELECT * FROM clients WHERE mac = $1"
_BY_NAME: Final = "SELECT * FROM clients WHERE name = $1"


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A client and how it came here."""

    client: Client
    enrolled: bool  # by itself; nobody added or changed it since
    note: str
    created: datetime

    @classmethod
    def of(cls, row: Any) -> ClientRow:
        return cls(rows.client_of(row), row["enrolled"], row["note"], row["created"])


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
    return ClientRow.of(row)


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
    return [ClientRow.of(row) for row in found]


async def add_client(
    connection: Connection,
    *,
    mac: str,
    name: str | None,
    group: str | None,
    address: IPv4Address | None,
    note: str = "",
    pattern: str,
    author: str,
    source: str,
) -> tuple[ClientRow, bool]:
    """Add a client; or take over one that had enrolled itself, which gives it this name. Raises Problem.

    Without a name a new client gets the next one of the enrolment pattern, and one that is there keeps its own. The
    second value is true if it is new.
    """
    await _lock(connection, mac)
    row = await connection.fetchrow(_BY_MAC, mac)
    if row is not None and not row["enrolled"]:
        raise conflict(
            f"{mac} is client {row['name']} already",
            f"change it: bootlink client set {row['name']}; or give another MAC address",
        )
    await _require_free(connection, mac, name, address)
    if row is None:
        await _write(
            connection,
            "INSERT INTO clients (mac, name, group_name, address, note) VALUES ($1, $2, $3, $4, $5)",
            *(mac, name or await free_name(connection, pattern), group, address, note),
        )
    else:
        await _write(
            connection,
            """
            UPDATE clients SET name = $2, group_name = $3, address = $4, note = $5, enrolled = false WHERE mac = $1
            """,
            *(mac, name or row["name"], group, address, note),
        )
    await connection.execute("DELETE FROM sightings WHERE mac = $1", mac)
    now = await find_client(connection, mac)
    await tell(
        connection,
        now,
        "added" if row is None else "changed",
        former=row["name"] if row else None,
        author=author,
        source=source,
    )
    return now, row is None


async def change_client(
    connection: Connection, name_or_mac: str, changes: Mapping[str, Any], *, author: str, source: str
) -> ClientRow:
    """Change some of name, group, address, disabled and note. Raises Problem.

    Setting what is set already tells nobody.
    """
    if not changes:
        raise invalid("nothing to change", "give some of name, group, address, disabled and note")
    mac = (await find_client(connection, name_or_mac)).client.mac
    await _lock(connection, mac)
    held = await find_client(connection, mac)
    fields = dict(changes)
    note = fields.pop("note", held.note)
    changed = dataclasses.replace(held.client, **fields)
    if (changed, note) == (held.client, held.note) and not held.enrolled:
        return held
    await _require_free(connection, mac, changed.name, changed.address)
    await _write(
        connection,
        """
        UPDATE clients SET name = $2, group_name = $3, address = $4, disabled = $5, note = $6, enrolled = false
        WHERE mac = $1
        """,
        *(mac, changed.name, changed.group, changed.address, changed.disabled, note),
    )
    now = await find_client(connection, mac)
    await tell(connection, now, "changed", former=held.client.name, author=author, source=source)
    return now


async def remove_client(connection: Connection, name_or_mac: str, *, author: str, source: str) -> None:
    """Take a client away, with its own links. Raises Problem.

    What it keeps on a block store stays there, and is its again if it is added and linked as before.
    """
    mac = (await find_client(connection, name_or_mac)).client.mac
    await _lock(connection, mac)
    held = await find_client(connection, mac)
    name = held.client.name
    if await connection.fetchval("SELECT true FROM branches WHERE mac = $1", mac):
        raise conflict(
            f"{name} is a super client: what it wrote would be lost",
            f"bootlink client commit {name} makes a version of it, bootlink client abandon {name} throws it away",
        )
    image = await connection.fetchval("SELECT image FROM own_layers WHERE mac = $1 ORDER BY lun LIMIT 1", mac)
    if image is not None:
        raise conflict(
            f"{name} has a layer of its own over image {image}, which would be lost",
            f"set its link without: bootlink link set {name} {image}; then throw the layer away: "
            f"bootlink link drop-own-layer {name}",
        )
    left = await connection.fetchval(
        "SELECT left_boot FROM dropped_writebacks WHERE mac = $1 AND left_boot IS NOT NULL LIMIT 1", mac
    )
    if left is not None:
        raise conflict(
            f"what {name} wrote in boot {left}, after a version was made of it, would be lost",
            f"bootlink client commit {name} --boot {left} makes a version of it, "
            f"bootlink client abandon {name} --boot {left} throws it away",
        )
    await connection.execute("DELETE FROM clients WHERE mac = $1", mac)
    await tell(connection, held, "removed", author=author, source=source)


async def tell(
    connection: Connection, row: ClientRow, change: Change, *, former: str | None = None, author: str, source: str
) -> None:
    """Have the plan of a client that was changed compiled anew, and tell of it."""
    await outbox.recompile(connection, "client", row.client.mac)
    await outbox.record(connection, changed_event(row, change, former=former, author=author), source=source)


async def tell_all(
    connection: Connection,
    changed: Collection[tuple[ClientRow, Change, str | None]],
    *,
    author: str,
    source: str,
) -> None:
    """The same of many clients: each with what became of it and its former name."""
    await outbox.recompile_clients(connection, [row.client.mac for row, _, _ in changed])
    events = [changed_event(row, change, former=former, author=author) for row, change, former in changed]
    await outbox.record_all(connection, events, source=source)


def changed_event(row: ClientRow, change: Change, *, former: str | None = None, author: str) -> ClientChanged:
    """The event of a client that is now as `row` says, or was so until it was removed."""
    client = row.client
    return ClientChanged(
        mac=client.mac,
        client=client.name,
        change=change,
        former=former if former != client.name else None,
        group=client.group,
        address=client.address,
        disabled=client.disabled,
        note=row.note,
        author=author,
        at=datetime.now(UTC),
    )


async def _lock(connection: Connection, mac: str) -> None:
    """One change of a client after the other; taken before the first write, as for links (see `links.lock`)."""
    await connection.execute(locks.PAIR, locks.Kind.CLIENT, mac)


async def free_name(connection: Connection, pattern: str) -> str:
    """The next name of the enrolment pattern that no client has."""
    while True:
        name = pattern.format(n=await connection.fetchval("SELECT nextval('enrolment')"))
        if not await connection.fetchval("SELECT true FROM clients WHERE name = $1", name):
            return name


async def _require_free(connection: Connection, mac: str, name: str | None, address: IPv4Address | None) -> None:
    """Raise Problem, with whose they are, if another client has this name or address."""
    found = await connection.fetch(
        "SELECT mac, name, address FROM clients WHERE mac <> $1 AND (name = $2 OR address = $3)", mac, name, address
    )
    for row in found:
        if row["name"] == name:
            raise conflict(f"{row['mac']} is called {name} already", "choose another name, or rename that client")
        raise conflict(
            f"{address} is reserved for {row['name']} ({row['mac']}) already",
            f"choose another address, or take it away: bootlink client set {row['name']} --no-address",
        )


async def _write(connection: Connection, statement: str, *values: Any) -> None:
    try:
        await connection.execute(statement, *values)
    except asyncpg.UniqueViolationError as error:  # by somebody who did so at the same moment
        raise _taken(error) from error


def _taken(error: asyncpg.UniqueViolationError) -> Problem:
    what = {"clients_name_key": "name", "clients_address_key": "address", "clients_pkey": "MAC address"}
    taken = what.get(str(getattr(error, "constraint_name", "")), "name")
    return conflict(
        f"another client was just given this {taken}", f"choose another {taken}, or change the other client"
    )
