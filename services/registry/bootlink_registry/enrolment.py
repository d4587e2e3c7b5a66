"""Enrolment: what becomes of a PC that asks and that nobody has added.

The rule says whether it becomes a client by itself, what such clients are called and which group they join. An
administrator sets it while the registry runs (a row of `settings`); until then the registry's environment gives it.
A PC that does not become a client is remembered as a sighting, which an administrator may accept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Address
from typing import Any, Final, Literal

from bootlink_events import ClientSeen
from bootlink_registry import clients, outbox
from bootlink_registry.clients import ClientRow, find_client, free_name
from bootlink_registry.database import Connection
from bootlink_registry.locks import Whole
from bootlink_registry.names import ENROL_LIMIT, as_mac
from bootlink_registry.problems import not_found
from bootlink_registry.settings import RegistrySettings

SIGHTINGS_KEPT: Final = 10_000  # PCs remembered that are no clients; the one not seen for longest goes first
_SETTING: Final = "enrolment"

Policy = Literal["accept", "refuse"]
Enrolment = Literal["enrolled", "known", "unknown", "full"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of unknown PCs."""

    policy: Policy
    pattern: str  # of names, with {n}
    group: str | None


def first_rule(settings: RegistrySettings) -> Rule:
    """The rule until one is set."""
    return Rule(settings.enrol, settings.enrol_name, None)


async def read_rule(connection: Connection, first: Rule) -> Rule:
    """The rule as it is now."""
    held = await connection.fetchval("SELECT value FROM settings WHERE name = $1", _SETTING)
    return Rule(**held) if held else first


async def change_rule(connection: Connection, first: Rule, changes: Mapping[str, Any]) -> Rule:
    """Change some of policy, pattern and group; what is not named stays."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", Whole.ENROLMENT)
    rule = replace(await read_rule(connection, first), **changes)
    await connection.execute(
        """
        INSERT INTO settings (name, value) VALUES ($1, $2)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value, changed = now()
        """,
        *(_SETTING, asdict(rule)),
    )
    return rule


async def rename_group(connection: Connection, former: str, name: str) -> None:
    """A group has another name: whoever enrols joins it under that."""
    held = await connection.fetchval("SELECT value FROM settings WHERE name = $1 FOR UPDATE", _SETTING)
    if held and held["group"] == former:
        await connection.execute("UPDATE settings SET value = $2 WHERE name = $1", _SETTING, held | {"group": name})


async def enrol(connection: Connection, seen: ClientSeen, first: Rule, *, source: str) -> Enrolment:
    """A PC asked whose plan the boot path does not have. Makes it a client if the rule says so; idempotent.

    A known client gets its plan put out once more: that the boot path asks means that it has none.
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1)", Whole.ENROLMENT)
    if await connection.fetchval("SELECT true FROM clients WHERE mac = $1", seen.mac):
        await outbox.recompile(connection, "client", seen.mac)
        return "known"
    rule = await read_rule(connection, first)
    if rule.policy == "refuse":
        await _remember(connection, seen)
        return "unknown"
    if await connection.fetchval("SELECT count(*) FROM clients WHERE enrolled") >= ENROL_LIMIT:
        await _remember(connection, seen)
        return "full"
    name = await free_name(connection, rule.pattern)
    await connection.execute(
        "INSERT INTO clients (mac, name, group_name, enrolled) VALUES ($1, $2, $3, true)", seen.mac, name, rule.group
    )
    await connection.execute("DELETE FROM sightings WHERE mac = $1", seen.mac)
    await clients.tell(connection, await find_client(connection, seen.mac), "enrolled", author="", source=source)
    return "enrolled"


async def accept(
    connection: Connection,
    mac: str,
    first: Rule,
    *,
    name: str | None,
    group: str | None,
    address: IPv4Address | None,
    note: str,
    author: str,
    source: str,
) -> ClientRow:
    """Make a PC that was seen a client. Raises Problem."""
    known = as_mac(mac)
    if not await connection.fetchval("SELECT true FROM sightings WHERE mac = $1 FOR UPDATE", known):
        raise _not_seen(mac)
    rule = await read_rule(connection, first)
    row, _ = await clients.add_client(
        connection,
        mac=str(known),
        name=name,
        group=group or rule.group,
        address=address,
        note=note,
        pattern=rule.pattern,
        author=author,
        source=source,
    )
    return row


async def forget(connection: Connection, mac: str) -> None:
    """Take a sighting out of the list; the PC comes back to it when it asks again. Raises Problem."""
    if not await connection.fetchval("DELETE FROM sightings WHERE mac = $1 RETURNING true", as_mac(mac)):
        raise _not_seen(mac)


async def list_sightings(connection: Connection, *, limit: int) -> list[Any]:
    """PCs that asked and are no clients, the latest first."""
    return await connection.fetch("SELECT * FROM sightings ORDER BY last_seen DESC, mac LIMIT $1", limit)


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


def storable(text: str) -> str:
    """`text` without NUL, which PostgreSQL stores in no text; a PC may send anything as its vendor class."""
    return text.replace("\0", "")


def _not_seen(mac: str) -> Any:
    return not_found(
        f"no unknown PC {as_mac(mac) or mac!r} was seen",
        "bootlink client sightings lists those that were; add a client that has not asked yet: bootlink client add MAC",
    )
