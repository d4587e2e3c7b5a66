"""Own layers: what a client has of its own over a version of an image."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import Field

from bootlink_registry.api.models.base import Answer, Wish
from bootlink_registry.api.models.links import PinnedVersion
from bootlink_registry.names import Name
from bootlink_registry.own_layers import OwnLayerRow


class OwnLayerAnswer(Answer):
    """A client's own layer over a pinned version."""

    mac: str
    lun: int
    image: str
    version: int = Field(description="the version that it lies on")
    sealed: int | None = Field(description="bytes of the layer that was sealed; null while nothing was")
    sealed_at: datetime | None
    unsealed: int = Field(description="bytes that were kept and not sealed")
    former_version: int | None = Field(description="what it lay on before its rebase, which can be taken back")
    undo_until: datetime | None
    created: datetime

    @classmethod
    def of(cls, row: OwnLayerRow, unsealed: int) -> Self:
        return cls(
            mac=row.mac,
            lun=row.lun,
            image=row.image,
            version=row.version,
            sealed=row.sealed,
            sealed_at=row.sealed_at,
            unsealed=unsealed,
            former_version=row.former_version,
            undo_until=row.undo_until,
            created=row.created,
        )


class Rebase(Wish):
    """To which version of its image a client's own layer goes: by default what `production` shows now."""

    channel: Name | None = None
    version: PinnedVersion | None = None
    undo: bool = Field(default=False, description="take the last rebase back, instead")
    accept_loss: bool = Field(
        default=False, description="go on although something is lost; without this the answer (409) says what"
    )
