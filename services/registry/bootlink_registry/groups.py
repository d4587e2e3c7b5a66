"""Groups: clients that share links. One is there while a client is in it, or a link or DHCP settings are for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from bootlink_registry import clients, enrolment, group_settings, links
from bootlink_registry.clients import ClientRow
from bootlink_registry.database import Connection
from bootlink_registry.links import NamedLink
from bootlink_registry.names import as_mac
from bootlink_registry.problems import Problem, conflict, listed, not_found

MOVED_AT_ONCE: Final = 1_000  # clients that one request may name

_GROUPS: Final = """
    SELECT name, (SELECT count(*) FROM clients c WHERE c.group_name = g.name) AS clients
    FROM (SELECT DISTINCT group_name AS name FROM clients WHERE group_name IS NOT NULL
        UNION SELECT key FROM links WHERE scope = 'group' UNION SELECT name FROM group_settings) g
"""


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group, how many clients are in it, and its links by LUN."""

    name: str
    clients: int
    links: tuple[NamedLink, ...]


async def list_groups(connection: Connection, *, after: str, limit: int) -> list[GroupRow]:
    """Groups by name, after the given one."""
    found = await connection.fetch(f"{_GROUPS} WHERE name > $1 ORDER BY name LIMIT $2", after, limit)
    of_groups = await links.links_of_groups(connection, [row["name"] for row in found])
    return [GroupRow(row["name"], row["clients"], tuple(of_groups.get(row["name"], ()))) for row in found]


async def get_group(connection: Connection, name: str) -> GroupRow:
    """Raises Problem."""
    row = await connection.fetchrow(f"{_GROUPS} WHERE name = $1", name)
    if row is None:
        raise not_found(
            f"there is no group {name!r}",
            f"bootlink group list shows those there are; a group is made by who joins it: "
            f"bootlink group move {name or 'GROUP'} CLIENT",
        )
    of_group = await links.links_of_groups(connection, [name])
    return GroupRow(name, row["clients"], tuple(of_group.get(name, ())))


async def rename_group(connection: Connection, former: str, name: str, *, author: str, source: str) -> GroupRow:
    """Give a group another name: its clients and its links go with it. Raises Problem."""
    for key in sorted((former, name)):
        await links.lock(connection, "group", key)
    held = await get_group(connection, former)
    if former == name:
        return held
    taken = await connection.fetchrow(f"{_GROUPS} WHERE name = $1", name)
    if taken is not None:
        raise conflict(
            f"there is a group {name} already, of {taken['clients']} clients",
            f"choose another name; or move clients into it: bootlink group move {name} CLIENT",
        )
    moved = await connection.fetch(
        "UPDATE clients SET group_name = $2, enrolled = false WHERE group_name = $1 RETURNING *", former, name
    )
    await connection.execute("UPDATE links SET key = $2 WHERE scope = 'group' AND key = $1", former, name)
    await enrolment.rename_group(connection, former, name)
    await group_settings.rename_group(connection, former, name, author=author, source=source)
    for gone in held.links:
        await links.tell(connection, gone, removed=True, author=author, source=source)
    now = await get_group(connection, name)
    for link in now.links:
        await links.tell(connection, link, author=author, source=source)
    await clients.tell_all(
        connection, [(ClientRow.of(row), "changed", None) for row in moved], author=author, source=source
    )
    return now


async def move_clients(
    connection: Connection, group: str, names: Sequence[str], *, author: str, source: str
) -> GroupRow:
    """Put clients (by name or MAC address) into a group, which is made if nobody is in it. All of them, or none.

    Raises Problem, which names all that are no clients.
    """
    wanted = {as_mac(name) or name for name in names}
    found = await connection.fetch(
        "SELECT * FROM clients WHERE mac = ANY($1::text[]) OR name = ANY($1::text[]) ORDER BY mac FOR UPDATE",
        list(wanted),
    )
    strangers = wanted - {row["mac"] for row in found} - {row["name"] for row in found}
    if strangers:
        raise _no_clients(strangers)
    macs = [row["mac"] for row in found if row["group_name"] != group]
    moved = await connection.fetch(
        "UPDATE clients SET group_name = $2, enrolled = false WHERE mac = ANY($1::text[]) RETURNING *", macs, group
    )
    await clients.tell_all(
        connection, [(ClientRow.of(row), "changed", None) for row in moved], author=author, source=source
    )
    return await get_group(connection, group)


def _no_clients(strangers: Collection[str]) -> Problem:
    names = sorted(strangers)
    return not_found(
        f"these are no clients: {listed(names, len(names))}",
        "bootlink client list shows those there are; nobody was moved",
        clients=names,
    )
