"""Links: what a client, a group or everybody else boots."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bootlink_events import Chap, LinkChanged, Policy
from bootlink_registry import outbox, rows
from bootlink_registry.catalogue import DEFAULT_CHANNEL, Link, Scope
from bootlink_registry.clients import find_client
from bootlink_registry.database import Connection
from bootlink_registry.problems import Problem, invalid, listed, not_found

_LINK_LOCK = 0x6270  # the first half of the lock; the second is a hash of the link's key

_NAMED = """
    SELECT l.*, coalesce(c.name, l.key) AS name
    FROM links l LEFT JOIN clients c ON c.mac = l.mac
"""


@dataclass(frozen=True, slots=True)
class NamedLink:
    """A link as people see it: a client's by the client's name."""

    link: Link
    name: str
    changed: datetime


async def put_link(
    connection: Connection,
    *,
    scope: Scope,
    name: str,
    image: str,
    channel: str | None,
    version: int | None,
    policy: Policy,
    chap: Chap = "off",
    source: str,
) -> NamedLink:
    """Set a link. Names neither channel nor version: the channel `production`. Raises Problem.

    Setting what is set already changes nothing and tells nobody.
    """
    if channel is not None and version is not None:
        raise invalid("the link names a channel and a version", "name one of them")
    if channel is None and version is None:
        channel = DEFAULT_CHANNEL
    key = await _key(connection, scope, name)
    await _lock(connection, scope, key)
    await _require(connection, image, channel, version)
    link = Link(scope=scope, key=key, image=image, channel=channel, version=version, policy=policy, chap=chap)
    former = await find_link(connection, scope, key)
    if former is not None and former.link == link:
        return former
    await connection.execute(
        """
        INSERT INTO links (scope, key, image, channel, version, policy, chap) VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (scope, key, lun) DO UPDATE SET image = excluded.image, channel = excluded.channel,
            version = excluded.version, policy = excluded.policy, chap = excluded.chap, changed = now()
        """,
        scope,
        key,
        image,
        channel,
        version,
        policy,
        chap,
    )
    now = await find_link(connection, scope, key)
    assert now is not None
    await _tell(connection, now, removed=False, source=source)
    return now


async def remove_link(connection: Connection, *, scope: Scope, name: str, source: str) -> None:
    """Take a link away. Raises Problem."""
    key = await _key(connection, scope, name)
    await _lock(connection, scope, key)
    link = await find_link(connection, scope, key)
    if link is None:
        raise no_such_link(scope, name)
    await connection.execute("DELETE FROM links WHERE scope = $1 AND key = $2", scope, key)
    await _tell(connection, link, removed=True, source=source)


async def get_link(connection: Connection, scope: Scope, name: str) -> NamedLink:
    """The link of this client (by name or MAC), group or everybody. Raises Problem."""
    link = await find_link(connection, scope, await _key(connection, scope, name))
    if link is None:
        raise no_such_link(scope, name)
    return link


async def find_link(connection: Connection, scope: Scope, key: str) -> NamedLink | None:
    row = await connection.fetchrow(f"{_NAMED} WHERE l.scope = $1 AND l.key = $2", scope, key)
    return _named(row) if row else None


async def list_links(connection: Connection, *, after: tuple[str, str], limit: int) -> list[NamedLink]:
    """Links in the order of (scope, key), after the given pair."""
    found = await connection.fetch(
        f"{_NAMED} WHERE (l.scope, l.key) > ($1, $2) ORDER BY l.scope, l.key LIMIT $3", *after, limit
    )
    return [_named(row) for row in found]


def no_such_link(scope: Scope, name: str) -> Problem:
    whose = {"client": f"client {name} has no link of its own", "group": f"group {name} has no link"}
    return not_found(whose.get(scope, "there is no default link"), "GET /v1/links lists the links there are")


def _named(row: Any) -> NamedLink:
    return NamedLink(rows.link_of(row), row["name"], row["changed"])


async def _key(connection: Connection, scope: Scope, name: str) -> str:
    if scope == "default":
        if name:
            raise invalid("the default link has no name", "leave the name out, or set scope to client or group")
        return ""
    if not name:
        raise invalid(f"the link of a {scope} needs the {scope}'s name", f"name the {scope}")
    return (await find_client(connection, name)).client.mac if scope == "client" else name


async def _lock(connection: Connection, scope: Scope, key: str) -> None:
    """One change of a link after the other.

    The outbox is read in the order of transaction ids, and a transaction gets its id with its first write. Taken
    before that, the lock makes the order of the events that of the changes; and of two removals the second finds none.
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _LINK_LOCK, f"{scope}/{key}")


async def _require(connection: Connection, image: str, channel: str | None, version: int | None) -> None:
    """Raise Problem, with what there is, unless the image has this channel or version."""
    if await connection.fetchval("SELECT name FROM images WHERE name = $1 FOR KEY SHARE", image) is None:
        total = await connection.fetchval("SELECT count(*) FROM images")
        names = [row["name"] for row in await connection.fetch("SELECT name FROM images ORDER BY name LIMIT 10")]
        raise not_found(
            f"there is no image {image!r}; there are: {listed(names, total)}",
            f"correct the name, or add the image: bootlink image add {image} FILE",
            images=names,
        )
    if version is not None:
        there = await connection.fetch("SELECT number AS x FROM versions WHERE image = $1 ORDER BY 1 DESC", image)
        wanted: Any = version
    else:
        there = await connection.fetch("SELECT name AS x FROM channels WHERE image = $1 ORDER BY 1", image)
        wanted = channel
    known = [row["x"] for row in there]
    if wanted not in known:
        what = "version" if version is not None else "channel"
        raise not_found(
            f"image {image} has no {what} {wanted}; there are: {listed(map(str, known), len(known))}",
            f"name a {what} that it has",
        )


async def _tell(connection: Connection, named: NamedLink, *, removed: bool, source: str) -> None:
    link = named.link
    await outbox.recompile(connection, "all" if link.scope == "default" else link.scope, link.key)
    event = LinkChanged(
        scope=link.scope,
        name=named.name,
        image=link.image,
        channel=link.channel,
        version=link.version,
        policy=link.policy,
        chap=link.chap,
        removed=removed,
        at=datetime.now(UTC),
    )
    await outbox.record(connection, event, source=source)
