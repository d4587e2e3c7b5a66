"""/v1/links"""

from __future__ import annotations

import re
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from bootlink_registry import links, own_layers
from bootlink_registry.api.context import PAGE, After, Changing, Context, Limit, Registry
from bootlink_registry.api.jobs import accepted
from bootlink_registry.api.models.base import Page
from bootlink_registry.api.models.jobs import JobAnswer
from bootlink_registry.api.models.links import LinkAnswer, Lun, NewLink
from bootlink_registry.catalogue import NamedScope, Scope, UnnamedScope
from bootlink_registry.database import Connection

WhichLun = Annotated[Lun, Query()]
_LUN = re.compile(r"[0-9]{1,3}")

router = APIRouter(prefix="/links", tags=["links"])


@router.put("", responses={202: {"model": JobAnswer}, 404: {}, 409: {}})
async def set_link(body: NewLink, registry: Changing, response: Response) -> LinkAnswer | JobAnswer:
    """Set what a client, a group or everybody else boots (LUN 0), or has as a further disk, from its next boot on.

    Where a client's own layer is no longer to be written to (policy discard after keep), a job makes a layer file of it
    first, and sets the link at its end: the answer is 202.
    """
    start = body.start.start() if body.start is not None else None
    if body.image is not None:
        await registry.layers.glance(body.image)
    async with registry.change(lambda c: _link(c, body.scope, body.name, body.lun)) as connection:
        if body.own_layer and body.image is not None:
            done = await own_layers.put_link(
                connection,
                name=body.name,
                lun=body.lun,
                image=body.image,
                channel=body.channel,
                version=body.version,
                policy=body.policy or "keep",
                chap=body.chap,
                start=start,
                author=registry.author,
                source=registry.source,
            )
            if isinstance(done, UUID):
                return await accepted(connection, done, response)
            return registry.shown(LinkAnswer.of(done))
        link = await links.put_link(
            connection,
            scope=body.scope,
            name=body.name,
            lun=body.lun,
            image=body.image or "",
            channel=body.channel,
            version=body.version,
            policy=body.policy or "discard",
            chap=body.chap,
            start=start,
            author=registry.author,
            source=registry.source,
        )
    return registry.shown(LinkAnswer.of(link))


@router.get("")
async def list_links(registry: Registry, limit: Limit = PAGE, after: After = "") -> Page[LinkAnswer]:
    """All links, by scope, MAC address or group, and LUN."""
    scope, key, lun = ([*after.split("/", 2), "", "", ""])[:3]
    at = (scope, key, int(lun) if _LUN.fullmatch(lun) else -1)
    async with registry.database.transaction() as connection:
        found = await links.list_links(connection, after=at, limit=limit)
    last = found[-1].link if len(found) == limit else None
    return Page(
        items=[LinkAnswer.of(link) for link in found],
        next=f"{last.scope}/{last.key}/{last.lun}" if last else None,
    )


@router.get("/{scope}", responses={404: {}})
async def show_unnamed_link(scope: UnnamedScope, registry: Registry, lun: WhichLun = 0) -> LinkAnswer:
    """The default link."""
    async with registry.database.transaction() as connection:
        return registry.shown(await _link(connection, scope, "", lun))


@router.get("/{scope}/{name}", responses={404: {}})
async def show_link(scope: NamedScope, name: str, registry: Registry, lun: WhichLun = 0) -> LinkAnswer:
    """The link of a client (by name or MAC address) or of a group."""
    async with registry.database.transaction() as connection:
        return registry.shown(LinkAnswer.of(await links.get_link(connection, scope, name, lun)))


@router.delete("/{scope}", status_code=204, responses={404: {}})
async def remove_unnamed_link(scope: UnnamedScope, registry: Changing, lun: WhichLun = 0) -> None:
    """Take the default link away."""
    await _remove(scope, "", registry, lun)


@router.delete("/{scope}/{name}", status_code=204, responses={404: {}})
async def remove_link(scope: NamedScope, name: str, registry: Changing, lun: WhichLun = 0) -> None:
    """Take the link of a client or of a group away, and with that of LUN 0 its boot menu."""
    await _remove(scope, name, registry, lun)


async def _link(connection: Connection, scope: Scope, name: str, lun: int) -> LinkAnswer:
    return LinkAnswer.of(await links.get_link(connection, scope, name, lun))


async def _remove(scope: Scope, name: str, registry: Context, lun: int) -> None:
    async with registry.change(lambda c: _link(c, scope, name, lun)) as connection:
        await links.remove_link(
            connection, scope=scope, name=name, lun=lun, author=registry.author, source=registry.source
        )
