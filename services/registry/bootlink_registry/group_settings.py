"""What the clients of a group are told over DHCP: options of the administrator's own, and other boot loaders.

A group has such settings for as long as they say something; setting nothing takes them away. They are set as a whole,
and each change has the plans of the group's clients compiled anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from bootlink_events import ARCHITECTURES, DhcpOption, GroupChanged, LoaderRule
from bootlink_registry import links, outbox, rows
from bootlink_registry.catalogue import GroupSettings
from bootlink_registry.database import Connection
from bootlink_registry.problems import conflict, invalid
from bootlink_wire.dhcp_values import check_code, check_type, encode_value

OPTIONS_LIMIT: Final = 32  # of one group
OPTIONS_BYTES: Final = 256
"""All of a group's options on the wire: with what a boot needs they fit 1,472 bytes, which PXE firmware takes."""
RULES_LIMIT: Final = 32


async def get_settings(connection: Connection, group: str) -> GroupSettings:
    """The group's settings; those that say nothing where it has none."""
    row = await connection.fetchrow("SELECT options, loaders FROM group_settings WHERE name = $1", group)
    return rows.group_settings_of(row) if row is not None else GroupSettings()


async def put_settings(
    connection: Connection,
    group: str,
    options: Sequence[DhcpOption],
    loaders: Sequence[LoaderRule],
    *,
    author: str,
    source: str,
) -> GroupSettings:
    """Set them. Raises Problem. Setting what is set already changes nothing and tells nobody."""
    _check_options(options)
    if len(loaders) > RULES_LIMIT:
        raise invalid(f"there are more than {RULES_LIMIT} loader rules", "leave some out")
    for rule in loaders:
        if rule.arch and rule.arch not in ARCHITECTURES:
            raise invalid(f"there is no architecture {rule.arch}", f"name one of {', '.join(sorted(ARCHITECTURES))}")
    await links.lock(connection, "group", group)
    wanted = GroupSettings(tuple(sorted(options, key=lambda option: option.code)), tuple(loaders))
    if await get_settings(connection, group) == wanted:
        return wanted
    await _write(connection, group, wanted)
    await _tell(connection, group, wanted, author=author, source=source)
    return wanted


async def rename_group(connection: Connection, former: str, name: str, *, author: str, source: str) -> None:
    """The settings of a group go with it to its new name, which no other group has."""
    held = await get_settings(connection, former)
    if held != GroupSettings():
        await connection.execute("UPDATE group_settings SET name = $2 WHERE name = $1", former, name)
        await _tell(connection, former, GroupSettings(), author=author, source=source)
        await _tell(connection, name, held, author=author, source=source)


async def _write(connection: Connection, group: str, wanted: GroupSettings) -> None:
    if wanted == GroupSettings():
        await connection.execute("DELETE FROM group_settings WHERE name = $1", group)
        return
    await connection.execute(
        """
        INSERT INTO group_settings (name, options, loaders) VALUES ($1, $2, $3)
        ON CONFLICT (name) DO UPDATE SET options = excluded.options, loaders = excluded.loaders, changed = now()
        """,
        group,
        [option.model_dump() for option in wanted.options],
        [rule.model_dump() for rule in wanted.loaders],
    )


async def _tell(connection: Connection, group: str, now: GroupSettings, *, author: str, source: str) -> None:
    await outbox.recompile(connection, "group", group)
    event = GroupChanged(group=group, options=now.options, loaders=now.loaders, author=author, at=datetime.now(UTC))
    await outbox.record(connection, event, source=source)


def _check_options(options: Sequence[DhcpOption]) -> None:
    """Raise Problem unless all of them can be sent."""
    codes = [option.code for option in options]
    twice = {code for code in codes if codes.count(code) > 1}
    if twice:
        raise conflict(f"option {min(twice)} is there twice", "give each option one value; a list has commas")
    if len(options) > OPTIONS_LIMIT:
        raise invalid(f"there are more than {OPTIONS_LIMIT} options", "leave some out")
    size = 0
    for option in options:
        try:
            check_code(option.code)
        except ValueError as error:
            raise invalid(str(error), "leave it out; it is sent as each PC needs it") from error
        try:
            check_type(option.code, option.type)
            size += 2 + len(encode_value(option.type, option.value))
        except ValueError as error:
            raise invalid(
                f"option {option.code}: {error}", "`bootlink group option set --help` tells the types"
            ) from error
    if size > OPTIONS_BYTES:
        raise invalid(f"the options take {size} bytes; at most {OPTIONS_BYTES} fit an answer", "leave some out")
