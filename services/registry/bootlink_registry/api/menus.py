"""/v1/menus"""

from __future__ import annotations

from fastapi import APIRouter

from bootlink_registry import menus
from bootlink_registry.api.context import Changing, Context, Registry
from bootlink_registry.api.models.menus import MenuAnswer, NewMenu
from bootlink_registry.catalogue import NamedScope, Scope, UnnamedScope
from bootlink_registry.database import Connection

router = APIRouter(prefix="/menus", tags=["menus"])


@router.get("/{scope}", responses={404: {}})
async def show_unnamed_menu(scope: UnnamedScope, registry: Registry) -> MenuAnswer:
    """The boot menu of the default link."""
    async with registry.database.transaction() as connection:
        return registry.shown(await _menu(connection, scope, ""))


@router.get("/{scope}/{name}", responses={404: {}})
async def show_menu(scope: NamedScope, name: str, registry: Registry) -> MenuAnswer:
    """The boot menu of the link of a client (by name or MAC address) or of a group."""
    async with registry.database.transaction() as connection:
        return registry.shown(MenuAnswer.of(await menus.get_menu(connection, scope, name)))


@router.put("/{scope}", responses={404: {}, 409: {}})
async def set_unnamed_menu(scope: UnnamedScope, body: NewMenu, registry: Changing) -> MenuAnswer:
    """Set the boot menu of the default link."""
    return await _set(scope, "", body, registry)


@router.put("/{scope}/{name}", responses={404: {}, 409: {}})
async def set_menu(scope: NamedScope, name: str, body: NewMenu, registry: Changing) -> MenuAnswer:
    """Set what a PC may choose from at its boot, beside what its link names. The whole menu, in its order."""
    return await _set(scope, name, body, registry)


@router.delete("/{scope}", status_code=204, responses={404: {}})
async def remove_unnamed_menu(scope: UnnamedScope, registry: Changing) -> None:
    """Take the boot menu of the default link away."""
    await _remove(scope, "", registry)


@router.delete("/{scope}/{name}", status_code=204, responses={404: {}})
async def remove_menu(scope: NamedScope, name: str, registry: Changing) -> None:
    """Take a boot menu away. The link stays, and is booted without a question."""
    await _remove(scope, name, registry)


async def _set(scope: Scope, name: str, body: NewMenu, registry: Context) -> MenuAnswer:
    choices = [entry.choice() for entry in body.entries]
    for image in sorted({choice.image for choice in choices if choice.image}):
        await registry.layers.glance(image)
    async with registry.change(lambda c: _menu(c, scope, name)) as connection:
        row = await menus.put_menu(
            connection,
            scope=scope,
            name=name,
            title=body.title,
            seconds=body.seconds,
            default=body.default,
            choices=choices,
            author=registry.author,
            source=registry.source,
        )
    return registry.shown(MenuAnswer.of(row))


async def _menu(connection: Connection, scope: Scope, name: str) -> MenuAnswer:
    return MenuAnswer.of(await menus.get_menu(connection, scope, name))


async def _remove(scope: Scope, name: str, registry: Context) -> None:
    async with registry.change(lambda c: _menu(c, scope, name)) as connection:
        await menus.remove_menu(connection, scope=scope, name=name, author=registry.author, source=registry.source)
