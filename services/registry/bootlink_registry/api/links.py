"""/v1/links"""

from __future__ import annotations

from fastapi import APIRouter

from bootlink_registry import links
from bootlink_registry.api.context import PAGE, After, Limit, Registry
from bootlink_registry.api.models.base import Page
from bootlink_registry.api.models.links import LinkAnswer, NewLink
from bootlink_registry.catalogue import Scope

router = APIRouter(prefix="/links", tags=["links"])


@router.put("", responses={404: {}})
async def set_link(body: NewLink, registry: Registry) -> LinkAnswer:
    """Set what a client, a group or everybody else boots, from its next boot on."""
    await registry.layers.glance(body.image)
    async with registry.database.transaction() as connection:
        link = await links.put_link(
            connection,
            scope=body.scope,
            name=body.name,
            image=body.image,
            channel=body.channel,
            version=body.version,
            policy=body.policy,
            chap=body.chap,
            source=registry.source,
        )
    return LinkAnswer.of(link)


@router.get("")
async def list_links(registry: Registry, limit: Limit = PAGE, after: After = "") -> Page[LinkAnswer]:
    """All links, by scope and then by MAC address or group."""
    scope, _, key = after.partition("/")
    async with registry.database.transaction() as connection:
        found = await links.list_links(connection, after=(scope, key), limit=limit)
    last = found[-1].link if len(found) == limit else None
    return Page(items=[LinkAnswer.of(link) for link in found], next=f"{last.scope}/{last.key}" if last else None)


@router.get("/{scope}", responses={404: {}})
async def show_unnamed_link(scope: Scope, registry: Registry) -> LinkAnswer:
    """The default link."""
    async with registry.database.transaction() as connection:
        return LinkAnswer.of(await links.get_link(connection, scope, ""))


@router.get("/{scope}/{name}", responses={404: {}})
async def show_link(scope: Scope, name: str, registry: Registry) -> LinkAnswer:
    """The link of a client (by name or MAC address) or of a group."""
    async with registry.database.transaction() as connection:
        return LinkAnswer.of(await links.get_link(connection, scope, name))


@router.delete("/{scope}", status_code=204, responses={404: {}})
async def remove_unnamed_link(scope: Scope, registry: Registry) -> None:
    """Take the default link away."""
    async with registry.database.transaction() as connection:
        await links.remove_link(connection, scope=scope, name="", source=registry.source)


@router.delete("/{scope}/{name}", status_code=204, responses={404: {}})
async def remove_link(scope: Scope, name: str, registry: Registry) -> None:
    """Take the link of a client or of a group away."""
    async with registry.database.transaction() as connection:
        await links.remove_link(connection, scope=scope, name=name, source=registry.source)
