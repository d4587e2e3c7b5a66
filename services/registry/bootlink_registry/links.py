"""Links: what a client, a group or everybody else has as its disks. Logical unit 0 is what it boots."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bootlink_events import Chap, LinkChanged, Policy, Start, from_disk
from bootlink_registry import locks, outbox, rows, starts
from bootlink_registry.catalogue import DEFAULT_CHANNEL, Choice, Link, Scope
from bootlink_registry.clients import find_client
from bootlink_registry.database import Connection
from bootlink_registry.problems import Problem, invalid, listed, not_found

LUN_LIMIT: Final = 254  # as REPORT LUNS' simple form has them, but for 255

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
    lun: int = 0,
    image: str,
    channel: str | None,
    version: int | None,
    policy: Policy,
    chap: Chap = "off",
    own_layer: bool = False,
    start: Start | None = None,
    author: str,
    source: str,
) -> NamedLink:
    """Set a link. Names neither channel nor version: the channel `production`. An empty image: `start` says what is
    booted instead of a disk. Raises Problem.

    Its boot menu stays as it is. Setting what is set already changes nothing and tells nobody.
    """
    check_start(start, image=image, channel=channel, version=version, lun=lun, policy=policy, chap=chap)
    channel = pointer(channel, version) if image else None
    if lun and chap != "off":
        raise invalid(
            "a login proves itself once for all disks of a client, so a further disk cannot ask for CHAP",
            "set chap on the link of LUN 0",
        )
    key = await key_of(connection, scope, name)
    await lock(connection, scope, key)
    if image:
        await require_image(connection, image, channel, version)
    former = await find_link(connection, scope, key, lun)
    link = dataclasses.replace(
        former.link if former else Link(scope, key, image, channel, version, lun=lun),
        image=image,
        channel=channel,
        version=version,
        policy=policy,
        chap=chap,
        own_layer=own_layer,
        start=start,
    )
    if former is not None and former.link == link:
        return former
    await connection.execute(
        """
        INSERT INTO links (scope, key, lun, image, channel, version, policy, chap, own_layer,
            boot, boot_file, keep_san, kernel, initrds, arguments)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
        ON CONFLICT (scope, key, lun) DO UPDATE SET image = excluded.image, channel = excluded.channel,
            version = excluded.version, policy = excluded.policy, chap = excluded.chap,
            own_layer = excluded.own_layer, boot = excluded.boot, boot_file = excluded.boot_file,
            keep_san = excluded.keep_san, kernel = excluded.kernel, initrds = excluded.initrds,
            arguments = excluded.arguments, changed = now()
        """,
        *(scope, key, lun, image or None, channel, version, policy, chap, own_layer),
        *starts.values_of(start),
    )
    now = await find_link(connection, scope, key, lun)
    assert now is not None
    await tell(connection, now, author=author, source=source)
    return now


async def remove_link(
    connection: Connection, *, scope: Scope, name: str, lun: int = 0, author: str, source: str
) -> None:
    """Take a link away, with its boot menu. Raises Problem."""
    key = await key_of(connection, scope, name)
    await lock(connection, scope, key)
    link = await find_link(connection, scope, key, lun)
    if link is None:
        raise no_such_link(scope, name, lun)
    await connection.execute("DELETE FROM links WHERE scope = $1 AND key = $2 AND lun = $3", scope, key, lun)
    await tell(connection, link, removed=True, author=author, source=source)


async def get_link(connection: Connection, scope: Scope, name: str, lun: int = 0) -> NamedLink:
    """The link of this client (by name or MAC), group or everybody. Raises Problem."""
    link = await find_link(connection, scope, await key_of(connection, scope, name), lun)
    if link is None:
        raise no_such_link(scope, name, lun)
    return link


async def find_link(connection: Connection, scope: Scope, key: str, lun: int = 0) -> NamedLink | None:
    row = await connection.fetchrow(f"{_NAMED} WHERE l.scope = $1 AND l.key = $2 AND l.lun = $3", scope, key, lun)
    return _named(row) if row else None


async def list_links(connection: Connection, *, after: tuple[str, str, int], limit: int) -> list[NamedLink]:
    """Links in the order of (scope, key, lun), after the given triple."""
    found = await connection.fetch(
        f"{_NAMED} WHERE (l.scope, l.key, l.lun) > ($1, $2, $3) ORDER BY l.scope, l.key, l.lun LIMIT $4", *after, limit
    )
    return [_named(row) for row in found]


async def links_of_groups(connection: Connection, groups: Sequence[str]) -> dict[str, list[NamedLink]]:
    """The links of these groups, each group's by LUN."""
    found = await connection.fetch(f"{_NAMED} WHERE l.scope = 'group' AND l.key = ANY($1) ORDER BY l.lun", list(groups))
    links: dict[str, list[NamedLink]] = {}
    for row in found:
        links.setdefault(row["key"], []).append(_named(row))
    return links


async def choices_of(connection: Connection, scope: Scope, key: str) -> tuple[Choice, ...]:
    """What the boot menu of a link offers beside the link itself, in its order."""
    found = await connection.fetch("SELECT * FROM choices WHERE scope = $1 AND key = $2 ORDER BY position", scope, key)
    return tuple(rows.choice_of(row) for row in found)


def no_such_link(scope: Scope, name: str, lun: int = 0) -> Problem:
    whose = {"client": f"client {name} has no link of its own", "group": f"group {name} has no link"}
    disk = f" for LUN {lun}" if lun else ""
    return not_found(
        whose.get(scope, "there is no default link") + disk, "bootlink link list shows the links there are"
    )


def pointer(channel: str | None, version: int | None) -> str | None:
    """The channel that is meant: `production` where neither is named. Raises Problem if both are."""
    if channel is not None and version is not None:
        raise invalid("the link names a channel and a version", "name one of them")
    return DEFAULT_CHANNEL if channel is None and version is None else channel


def check_start(
    start: Start | None,
    *,
    image: str,
    channel: str | None,
    version: int | None,
    lun: int = 0,
    policy: Policy = "discard",
    chap: Chap = "off",
) -> None:
    """Raise Problem where a link or a menu's entry cannot start so."""
    wrong = starts.problem_with(start, image=image, lun=lun, policy=policy, chap=chap)
    if wrong is not None:
        raise invalid(*wrong)
    if not from_disk(start) and (channel is not None or version is not None):
        raise invalid("a channel or version is one of an image, and none is named", "leave it out")


def _named(row: Any) -> NamedLink:
    return NamedLink(rows.link_of(row), row["name"], row["changed"])


async def key_of(connection: Connection, scope: Scope, name: str) -> str:
    """A link's key: the MAC address of this client, the group's name, or empty. Raises Problem."""
    if scope == "default":
        if name:
            raise invalid("the default link has no name", "leave the name out, or set scope to client or group")
        return ""
    if not name:
        raise invalid(f"the link of a {scope} needs the {scope}'s name", f"name the {scope}")
    return (await find_client(connection, name)).client.mac if scope == "client" else name


async def lock(connection: Connection, scope: Scope, key: str) -> None:
    """One change of somebody's links after the other.

    The outbox is read in the order of transaction ids, and a transaction gets its id with its first write. Taken
    before that, the lock makes the order of the events that of the changes; and of two removals the second finds none.
    """
    await connection.execute(locks.PAIR, locks.Kind.LINK, f"{scope}/{key}")


async def require_image(connection: Connection, image: str, channel: str | None, version: int | None) -> None:
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


async def tell(connection: Connection, named: NamedLink, *, removed: bool = False, author: str, source: str) -> None:
    """Have the plans of a link that was changed compiled anew, and tell of it."""
    link = named.link
    menu = await choices_of(connection, link.scope, link.key) if link.lun == 0 else ()
    await outbox.recompile(connection, "all" if link.scope == "default" else link.scope, link.key)
    event = changed_event(named, [choice.name for choice in menu], removed=removed, author=author)
    await outbox.record(connection, event, source=source)


def changed_event(named: NamedLink, menu: Sequence[str], *, removed: bool, author: str) -> LinkChanged:
    """The event of a link that is so now, or was until it was taken away. `menu`: what its menu offers beside it."""
    link = named.link
    return LinkChanged(
        scope=link.scope,
        name=named.name,
        image=link.image,
        channel=link.channel,
        version=link.version,
        policy=link.policy,
        chap=link.chap,
        own_layer=link.own_layer,
        start=link.start,
        lun=link.lun,
        menu=tuple(menu),
        removed=removed,
        author=author,
        at=datetime.now(UTC),
    )
