"""/v1/roster"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from bootlink_registry import enrolment, roster, roster_text
from bootlink_registry.api.context import Registry
from bootlink_registry.api.models.roster import ImportAnswer, Roster
from bootlink_registry.roster_text import Format

router = APIRouter(prefix="/roster", tags=["clients"])

_MEDIA_TYPES: Final = {"csv": "text/csv", "yaml": "application/yaml"}
_CONTENT: Final = {
    "text/csv": {"schema": {"type": "string"}},
    "application/yaml": {"schema": {"type": "array", "items": {"type": "object"}}},
}


@router.get(
    "",
    response_class=Response,
    responses={200: {"content": _CONTENT, "description": "the file"}},
)
async def export_roster(
    registry: Registry, form: Annotated[Format, Query(alias="format", description="of the file")] = "csv"
) -> Response:
    """All clients with their own links, as one file that can be imported again."""
    async with registry.database.transaction() as connection:
        rows = await roster.export_rows(connection)
    text = await asyncio.to_thread(roster_text.write, rows, form)
    headers = {"Content-Disposition": f'attachment; filename="clients.{form}"'}
    return Response(text, media_type=_MEDIA_TYPES[form], headers=headers)


@router.post("")
async def import_roster(body: Roster, registry: Registry) -> ImportAnswer:
    """Add and change many clients, and their own links, from one file: all of them, or none.

    A file with a wrong row is refused with 422, and `lines` of the answer names every one. Clients that it does not
    name stay as they are.
    """
    lines, wrong = await asyncio.to_thread(roster_text.read, body.text, body.format)
    if wrong:
        raise roster_text.refuse(wrong)
    async with registry.database.transaction() as connection:
        outcome = await roster.import_lines(
            connection,
            lines,
            pattern=(await enrolment.read_rule(connection, registry.first_rule)).pattern,
            dry_run=body.dry_run,
            author=registry.author,
            source=registry.source,
        )
    return ImportAnswer(added=outcome.added, changed=outcome.changed, unchanged=outcome.unchanged, dry_run=body.dry_run)
