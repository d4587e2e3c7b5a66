"""Boot menus: what a PC may choose from before its disk is attached.

A menu belongs to a link of LUN 0. Its first entry is the link itself, called OWN_ENTRY; the others are rows of
`choices`. It is set as a whole: an order of entries and a default among them make sense together or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bootlink_registry import links, starts
from bootlink_registry.catalogue import OWN_ENTRY, Choice, Scope
from bootlink_registry.database import Connection
from bootlink_registry.links import NamedLink
from bootlink_registry.problems import Problem, conflict, invalid, listed, not_found

ENTRIES_LIMIT: Final = 15  # beside the link itself: what a console shows without scrolling
SECONDS: Final = 10  # until the default entry is taken, unless told


@dataclass(frozen=True, slots=True)
class MenuRow:
    """A link and what else its menu offers, in its order."""

    named: NamedLink
    choices: tuple[Choice, ...]


async def get_menu(connection: Connection, scope: Scope, name: str) -> MenuRow:
    """The menu of this link. Raises Problem if there is no link, or it has none."""
    named = await links.get_link(connection, scope, name)
    choices = await links.choices_of(connection, scope, named.link.key)
    if not choices:
        raise _no_menu(scope, name)
    return MenuRow(named, choices)


async def put_menu(
    connection: Connection,
    *,
    scope: Scope,
    name: str,
    title: str,
    seconds: int,
    default: str,
    choices: Sequence[Choice],
    author: str,
    source: str,
) -> MenuRow:
    """Set the menu of a link that is there. Raises Problem.

    Setting what is set already changes nothing and tells nobody.
    """
    _check(default, choices)
    key = await links.key_of(connection, scope, name)
    await links.lock(connection, scope, key)
    named = await _link(connection, scope, key, name)
    for choice in choices:
        links.check_start(
            choice.start, image=choice.image, channel=choice.channel, version=choice.version, policy=choice.policy
        )
        if not choice.image:
            continue
        await links.require_image(connection, choice.image, choice.channel, choice.version)
    former = MenuRow(named, await links.choices_of(connection, scope, key))
    link = named.link
    if former.choices == tuple(choices) and (link.title, link.menu_seconds, link.menu_default) == (
        title,
        seconds,
        default,
    ):
        return former
    return await _write(connection, former, title, seconds, default, choices, author, source)


async def remove_menu(connection: Connection, *, scope: Scope, name: str, author: str, source: str) -> None:
    """Take a menu away; the link stays. Raises Problem."""
    key = await links.key_of(connection, scope, name)
    await links.lock(connection, scope, key)
    named = await _link(connection, scope, key, name)
    former = MenuRow(named, await links.choices_of(connection, scope, key))
    if not former.choices:
        raise _no_menu(scope, name)
    await _write(connection, former, "", SECONDS, OWN_ENTRY, (), author, source)


def _check(default: str, choices: Sequence[Choice]) -> None:
    if not choices:
        raise invalid("the menu offers nothing beside the link itself", "name an entry, or DELETE the menu")
    if len(choices) > ENTRIES_LIMIT:
        raise invalid(f"the menu has more than {ENTRIES_LIMIT} entries", "leave some out")
    names = [OWN_ENTRY, *(choice.name for choice in choices)]
    twice = {name for name in names if names.count(name) > 1}
    if OWN_ENTRY in twice:
        raise conflict(f"{OWN_ENTRY!r} is the entry of the link itself", "give the entry another name")
    if twice:
        raise conflict(f"two entries have the name {min(twice)!r}", "give each entry a name of its own")
    if default not in names:
        raise invalid(
            f"the default {default!r} is no entry of the menu; there are: {listed(names, len(names))}",
            "name one of them",
        )


async def _link(connection: Connection, scope: Scope, key: str, name: str) -> NamedLink:
    named = await links.find_link(connection, scope, key)
    if named is None:
        raise links.no_such_link(scope, name)
    return named


async def _write(
    connection: Connection,
    former: MenuRow,
    title: str,
    seconds: int,
    default: str,
    choices: Sequence[Choice],
    author: str,
    source: str,
) -> MenuRow:
    scope, key = former.named.link.scope, former.named.link.key
    await connection.execute("DELETE FROM choices WHERE scope = $1 AND key = $2", scope, key)
    await connection.executemany(
        """
        INSERT INTO choices (scope, key, name, position, title, image, channel, version, policy,
            boot, boot_file, keep_san, kernel, initrds, arguments)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
        """,
        [
            (
                *(scope, key, c.name, position, c.title, c.image or None, c.channel, c.version, c.policy),
                *starts.values_of(c.start),
            )
            for position, c in enumerate(choices)
        ],
    )
    await connection.execute(
        """
        UPDATE links SET title = $3, menu_seconds = $4, menu_default = $5, changed = now()
        WHERE scope = $1 AND key = $2 AND lun = 0
        """,
        *(scope, key, title, seconds, "" if default == OWN_ENTRY else default),
    )
    named = await links.find_link(connection, scope, key)
    assert named is not None
    await links.tell(connection, named, author=author, source=source)
    return MenuRow(named, tuple(choices))


def _no_menu(scope: Scope, name: str) -> Problem:
    whose = f"the link of {scope} {name}" if name else "the default link"
    return not_found(f"{whose} has no boot menu", "add an entry: bootlink link menu add")
