"""Bulk import and export."""

from __future__ import annotations

from pydantic import Field

from bootlink_registry.api.models.base import Answer, Wish
from bootlink_registry.roster_text import COLUMNS, Format


class Roster(Wish):
    format: Format
    text: str = Field(
        description=f"the file. CSV: a header of column names, then a row for each client; YAML: a list of mappings. "
        f"The columns: {', '.join(COLUMNS)}. One that is not there leaves that of every client as it is"
    )
    dry_run: bool = Field(default=False, description="look at it, and change nothing")


class ImportAnswer(Answer):
    added: int
    changed: int = Field(description="clients that were there and now differ, in themselves or in their own link")
    unchanged: int
    dry_run: bool
