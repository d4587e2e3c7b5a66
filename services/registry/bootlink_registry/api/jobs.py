"""/v1/jobs"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from bootlink_registry import jobs
from bootlink_registry.api.context import PAGE, Limit, Registry
from bootlink_registry.api.models.base import Page
from bootlink_registry.api.models.jobs import JobAnswer, State
from bootlink_registry.database import Connection

router = APIRouter(prefix="/jobs", tags=["jobs"])


async def accepted(connection: Connection, job: UUID, response: Response) -> JobAnswer:
    """The answer of an endpoint that put in a job: 202, and where to look."""
    response.status_code = 202
    response.headers["Location"] = f"/v1/jobs/{job}"
    return JobAnswer.of(await jobs.get_job(connection, job))


@router.get("")
async def list_jobs(
    registry: Registry,
    state: Annotated[list[State] | None, Query(description="only those in one of these states")] = None,
    kind: Annotated[str | None, Query(description="only those of this kind")] = None,
    subject: Annotated[str | None, Query(description="only those about this image or client")] = None,
    limit: Limit = PAGE,
    before: Annotated[UUID | None, Query(description="the former page's `next`")] = None,
) -> Page[JobAnswer]:
    """Jobs of late, newest first."""
    async with registry.database.transaction() as connection:
        found = await jobs.list_jobs(
            connection, states=tuple(state or ()), kind=kind, subject=subject, before=before, limit=limit
        )
    more = str(found[-1].id) if len(found) == limit else None
    return Page(items=[JobAnswer.of(row) for row in found], next=more)


@router.get("/{job_id}", responses={404: {}})
async def show_job(job_id: UUID, registry: Registry) -> JobAnswer:
    """One job: its state, and how far it is."""
    async with registry.database.transaction() as connection:
        return JobAnswer.of(await jobs.get_job(connection, job_id))


@router.post("/{job_id}/cancel", responses={404: {}, 409: {}})
async def cancel_job(job_id: UUID, registry: Registry) -> JobAnswer:
    """End a job before it is done. A running one takes a moment to clean up; what was there before stays."""
    async with registry.database.transaction() as connection:
        return JobAnswer.of(await jobs.cancel(connection, job_id, source=registry.source))
