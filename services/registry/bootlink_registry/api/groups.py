"""/v1/groups"""

from __future__ import annotations

from fastapi import APIRouter

from bootlink_registry import group_settings, groups
from bootlink_registry.api.context import PAGE, After, Changing, Limit, Registry
from bootlink_registry.api.models.base import Page
from bootlink_registry.api.models.groups import (
    GroupAnswer,
    GroupChange,
    GroupSettingsAnswer,
    NewGroupSettings,
    NewMembers,
)
from bootlink_registry.database import Connection

router = APIRouter(prefix="/groups", tags=["groups"])


@router.get("")
async def list_groups(registry: Registry, limit: Limit = PAGE, after: After = "") -> Page[GroupAnswer]:
    """All groups, by name. A group is there for as long as a client is in it or a link is for it."""
    async with registry.database.transaction() as connection:
        found = await groups.list_groups(connection, after=after, limit=limit)
    return Page(items=[GroupAnswer.of(row) for row in found], next=found[-1].name if len(found) == limit else None)


@router.get("/{name}", responses={404: {}})
async def show_group(name: str, registry: Registry) -> GroupAnswer:
    """One group. Its clients: GET /v1/clients?group=NAME."""
    async with registry.database.transaction() as connection:
        return registry.shown(await _group(connection, name))


@router.patch("/{name}", responses={404: {}, 409: {}})
async def rename_group(name: str, body: GroupChange, registry: Changing) -> GroupAnswer:
    """Give a group another name. Its clients and its links go with it."""
    async with registry.change(lambda c: _group(c, name)) as connection:
        row = await groups.rename_group(connection, name, body.name, author=registry.author, source=registry.source)
        return registry.shown(GroupAnswer.of(row))


@router.post("/{name}/clients", responses={404: {}})
async def move_clients(name: str, body: NewMembers, registry: Registry) -> GroupAnswer:
    """Put clients into a group, out of whichever they are in; all of them or none."""
    group = body.checked(name)
    async with registry.database.transaction() as connection:
        row = await groups.move_clients(connection, group, body.clients, author=registry.author, source=registry.source)
        return registry.shown(GroupAnswer.of(row))


@router.get("/{name}/dhcp", responses={404: {}})
async def show_group_settings(name: str, registry: Registry) -> GroupSettingsAnswer:
    """What the clients of a group are told over DHCP beside the rest: options of your own, and other boot loaders."""
    async with registry.database.transaction() as connection:
        await groups.get_group(connection, name)
        return registry.shown(await _settings(connection, name))


@router.put("/{name}/dhcp", responses={404: {}, 409: {}})
async def set_group_settings(name: str, body: NewGroupSettings, registry: Changing) -> GroupSettingsAnswer:
    """Set that, as a whole."""
    async with registry.change(lambda c: _settings(c, name)) as connection:
        await groups.get_group(connection, name)
        settings = await group_settings.put_settings(
            connection,
            name,
            [option.option() for option in body.options],
            [rule.rule() for rule in body.loaders],
            author=registry.author,
            source=registry.source,
        )
    return registry.shown(GroupSettingsAnswer.of(name, settings))


async def _settings(connection: Connection, name: str) -> GroupSettingsAnswer:
    return GroupSettingsAnswer.of(name, await group_settings.get_settings(connection, name))


async def _group(connection: Connection, name: str) -> GroupAnswer:
    return GroupAnswer.of(await groups.get_group(connection, name))
