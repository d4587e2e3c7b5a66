"""/v1/boots"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from bootlink_registry import clients, journal
from bootlink_registry.api.context import PAGE, Limit, Registry
from bootlink_registry.api.models.base import Page
from bootlink_registry.api.models.boots import BootAnswer, BootWithStages, StageAnswer, StepAnswer
from bootlink_registry.names import as_mac
from bootlink_registry.steps import compared

router = APIRouter(prefix="/boots", tags=["boots"])


@router.get("", responses={404: {}})
async def list_boots(
    registry: Registry,
    client: Annotated[str | None, Query(description="only this client's (name or MAC address)")] = None,
    limit: Limit = PAGE,
    before: Annotated[UUID | None, Query(description="the former page's `next`")] = None,
) -> Page[BootAnswer]:
    """Boots, newest first."""
    async with registry.database.transaction() as connection:
        mac = None
        if client is not None:
            # A MAC address need not be a client's: PCs that were never enrolled boot too, as far as a screen.
            mac = as_mac(client) or (await clients.find_client(connection, client)).client.mac
        found = await journal.list_boots(connection, mac=mac, before=before, limit=limit)
    more = str(found[-1].boot_id) if len(found) == limit else None
    return Page(items=[BootAnswer.of(row) for row in found], next=more)


@router.get("/{boot_id}", responses={404: {}})
async def show_boot(boot_id: UUID, registry: Registry) -> BootWithStages:
    """One boot with its stages, and its steps beside those of the client's boot before it and of its peers."""
    async with registry.database.transaction() as connection:
        row, stages = await journal.get_boot(connection, boot_id)
        last, peers = await journal.others(connection, row)
    steps = compared(row.summary.get("milestones", {}), last.summary["milestones"] if last else None, peers)
    return BootWithStages(
        **BootAnswer.fields_of(row),
        stages=[StageAnswer.of(stage) for stage in stages],
        steps=[StepAnswer.model_validate(asdict(step)) for step in steps],
        last=last.boot_id if last else None,
        peers=len(peers),
    )
