"""/v1/webhooks"""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query, Response

from bootlink_registry.api.context import PAGE, After, Changing, Limit, Registry
from bootlink_registry.api.models.base import Page
from bootlink_registry.api.models.webhooks import (
    DeadEvent,
    MadeWebhook,
    NewSecret,
    NewWebhook,
    Resend,
    Resent,
    WebhookAnswer,
    WebhookChange,
)
from bootlink_registry.database import Connection
from bootlink_registry.problems import invalid
from bootlink_registry.webhooks import deliveries, rows
from bootlink_registry.webhooks.deliveries import Counts

BIGGEST_ID = 2**63 - 1  # of a row, in PostgreSQL

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.post("", status_code=201, responses={409: {}})
async def add_webhook(body: NewWebhook, registry: Registry, response: Response) -> MadeWebhook:
    """Have events sent to a URL from now on. The secret is in this answer, and in no other."""
    async with registry.database.transaction() as connection:
        hook = await rows.add(
            connection,
            name=body.name,
            url=body.url,
            filters=body.filters,
            note=body.note,
            secret=body.secret,
            author=registry.author,
            source=registry.source,
        )
    await registry.forwarder.load()
    response.headers["Location"] = f"/v1/webhooks/{body.name}"
    return registry.shown(MadeWebhook(**MadeWebhook.fields_of(hook, Counts()), secret=hook.secret))


@router.get("")
async def list_webhooks(registry: Registry, limit: Limit = PAGE, after: After = "") -> Page[WebhookAnswer]:
    """All webhooks, by name."""
    async with registry.database.transaction() as connection:
        found = await rows.listed(connection, after=after, limit=limit)
        counts = await deliveries.counts(connection)
    more = found[-1].name if len(found) == limit else None
    return Page(items=[WebhookAnswer.of(hook, counts.get(hook.name, Counts())) for hook in found], next=more)


@router.get("/{name}", responses={404: {}})
async def show_webhook(name: str, registry: Registry) -> WebhookAnswer:
    """One webhook: what it is sent, how that goes, and what waits or was given up."""
    async with registry.database.transaction() as connection:
        return registry.shown(await _webhook(connection, name))


@router.patch("/{name}", responses={404: {}})
async def change_webhook(name: str, body: WebhookChange, registry: Changing) -> WebhookAnswer:
    """Change where events go, or which, or switch it on or off. A webhook that takes nothing is tried at once."""
    changes = {field: getattr(body, field) for field in body.model_fields_set}
    if not changes:
        raise invalid("nothing to change", "give some of url, filters, note and enabled")
    async with registry.change(lambda c: _webhook(c, name)) as connection:
        await rows.change(connection, name, changes, author=registry.author, source=registry.source)
        answer = await _webhook(connection, name)
    await registry.forwarder.load()
    registry.forwarder.hurry(name)
    return registry.shown(answer)


@router.delete("/{name}", status_code=204, responses={404: {}})
async def remove_webhook(name: str, registry: Changing) -> None:
    """Send it nothing any more. What waits for it is forgotten, and what was given up."""
    async with registry.change(lambda c: _webhook(c, name)) as connection:
        await rows.remove(connection, name, author=registry.author, source=registry.source)
    await registry.forwarder.load()


@router.post("/{name}/secret", responses={404: {}})
async def replace_secret(name: str, body: NewSecret, registry: Changing) -> MadeWebhook:
    """Give it another secret, which is in this answer alone. For a day requests are signed with the former one, too."""
    async with registry.change(lambda c: _webhook(c, name)) as connection:
        hook = await rows.replace_secret(connection, name, body.secret, author=registry.author, source=registry.source)
        counts = (await deliveries.counts(connection)).get(name, Counts())
    await registry.forwarder.load()
    return registry.shown(MadeWebhook(**MadeWebhook.fields_of(hook, counts), secret=hook.secret))


@router.get("/{name}/dead", responses={404: {}})
async def list_dead_events(
    name: str,
    registry: Registry,
    limit: Limit = PAGE,
    after: Annotated[int, Query(ge=0, le=BIGGEST_ID, description="the former page's `next`")] = 0,
) -> Page[DeadEvent]:
    """Events that it refused, or did not take in time, the oldest first; kept for 30 days."""
    async with registry.database.transaction() as connection:
        await rows.get(connection, name)
        found = await deliveries.dead(connection, name, after=after, limit=limit)
    more = str(found[-1].id) if len(found) == limit else None
    return Page(items=[DeadEvent.of(one, json.loads(one.event)) for one in found], next=more)


@router.post("/{name}/resend", responses={404: {}, 409: {}})
async def resend_dead_events(name: str, body: Resend, registry: Registry) -> Resent:
    """Send what was given up again: one event, or all. Each has all its attempts anew."""
    async with registry.database.transaction() as connection:
        hook = await rows.get(connection, name)
        await deliveries.require_room(connection, hook.name)
        sent = await deliveries.resend(connection, name, body.event_id)
    registry.forwarder.hurry(name)
    return Resent(events=sent)


async def _webhook(connection: Connection, name: str) -> WebhookAnswer:
    hook = await rows.get(connection, name)
    return WebhookAnswer.of(hook, (await deliveries.counts(connection)).get(name, Counts()))
