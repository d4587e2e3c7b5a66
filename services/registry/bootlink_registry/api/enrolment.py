"""/v1/enrolment and /v1/sightings"""

from __future__ import annotations

from fastapi import APIRouter, Response

from bootlink_registry import enrolment
from bootlink_registry.api.context import PAGE, Changing, Context, Limit, Registry
from bootlink_registry.api.models.base import Page
from bootlink_registry.api.models.clients import ClientAnswer
from bootlink_registry.api.models.enrolment import Acceptance, RuleAnswer, RuleChange, SightingAnswer
from bootlink_registry.database import Connection
from bootlink_registry.problems import invalid

router = APIRouter(tags=["enrolment"])


@router.get("/enrolment")
async def show_rule(registry: Registry) -> RuleAnswer:
    """What becomes of a PC that asks and that nobody has added."""
    async with registry.database.transaction() as connection:
        return registry.shown(await _rule(connection, registry))


@router.patch("/enrolment")
async def change_rule(body: RuleChange, registry: Changing) -> RuleAnswer:
    """Change it, from the next unknown PC on."""
    changes = {field: getattr(body, field) for field in body.model_fields_set}
    if not changes:
        raise invalid("nothing to change", "give some of policy, pattern and group")
    async with registry.change(lambda c: _rule(c, registry)) as connection:
        return registry.shown(RuleAnswer.of(await enrolment.change_rule(connection, registry.first_rule, changes)))


@router.get("/sightings")
async def list_sightings(registry: Registry, limit: Limit = PAGE) -> Page[SightingAnswer]:
    """PCs that asked and are no clients, the latest first (where enrolment is refused)."""
    async with registry.database.transaction() as connection:
        found = await enrolment.list_sightings(connection, limit=limit)
    return Page(items=[SightingAnswer.model_validate(dict(row)) for row in found])


@router.post("/sightings/{mac}/accept", status_code=201, responses={404: {}, 409: {}})
async def accept_sighting(mac: str, body: Acceptance, registry: Registry, response: Response) -> ClientAnswer:
    """Make a PC that was seen a client. Without a group it joins that of the enrolment rule."""
    async with registry.database.transaction() as connection:
        row = await enrolment.accept(
            connection,
            mac,
            registry.first_rule,
            name=body.name,
            group=body.group,
            address=body.address,
            note=body.note,
            author=registry.author,
            source=registry.source,
        )
    response.headers["Location"] = f"/v1/clients/{row.client.name}"
    return registry.shown(ClientAnswer.of(row))


@router.delete("/sightings/{mac}", status_code=204, responses={404: {}})
async def forget_sighting(mac: str, registry: Registry) -> None:
    """Take a PC out of this list; it comes back when it asks again."""
    async with registry.database.transaction() as connection:
        await enrolment.forget(connection, mac)


async def _rule(connection: Connection, registry: Context) -> RuleAnswer:
    return RuleAnswer.of(await enrolment.read_rule(connection, registry.first_rule))
