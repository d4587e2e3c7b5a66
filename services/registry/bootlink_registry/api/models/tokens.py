"""API tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, Field

from bootlink_registry.api.etags import Tagged
from bootlink_registry.api.models.base import Wish
from bootlink_registry.names import Name, Note
from bootlink_registry.tokens import Role, TokenRow


class NewToken(Wish):
    name: Name
    role: Role
    note: Note = ""
    expires: AwareDatetime | None = Field(default=None, description="unset: never")


class TokenAnswer(Tagged):
    """A token, without the token itself: nobody can tell it a second time."""

    name: str
    role: Role
    note: str
    created: datetime
    expires: datetime | None
    used: datetime | None = Field(description="when it was last used, to a minute or so; null if it never was")

    def changeable(self) -> dict[str, Any]:
        return self.model_dump(mode="json", include={"name", "role", "note", "created", "expires"})

    @classmethod
    def fields_of(cls, row: TokenRow) -> dict[str, Any]:
        return {
            "name": row.identity.name,
            "role": row.identity.role,
            "note": row.note,
            "created": row.created,
            "expires": row.expires,
            "used": row.used,
        }

    @classmethod
    def of(cls, row: TokenRow) -> TokenAnswer:
        return cls(**cls.fields_of(row))


class MadeToken(TokenAnswer):
    """A token, in the answer to its making."""

    token: str = Field(description="the token itself; it is told this once")
