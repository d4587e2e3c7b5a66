"""Boots and their stages."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from bootlink_registry.api.models.base import Answer
from bootlink_registry.journal import BootRow, StageRow


class BootAnswer(Answer):
    id: UUID
    mac: str
    client: str | None
    state: Literal["booting", "running", "ended", "failed", "superseded"]
    started: datetime
    ended: datetime | None
    os_attached: datetime | None = Field(description="when the operating system had its disk")
    arch: str | None
    firmware: str | None
    address: str | None
    image: str | None
    version: int | None
    policy: str | None
    end_reason: str | None
    failure: FailureAnswer | None
    stage_count: int

    @classmethod
    def fields_of(cls, row: BootRow) -> dict[str, Any]:
        told = dict(row.summary)
        return {
            "id": row.boot_id,
            "mac": row.mac,
            "client": row.client,
            "state": row.state,
            "started": row.started,
            "ended": row.ended,
            "stage_count": told.pop("stages", 0),
            **{name: told.get(name) for name in _TOLD},
        }

    @classmethod
    def of(cls, row: BootRow) -> BootAnswer:
        return cls.model_validate(cls.fields_of(row))


_TOLD = (
    *("os_attached", "arch", "firmware", "address", "image", "version", "policy"),
    *("end_reason", "failure"),
)


class FailureAnswer(Answer):
    stage: str
    cause: str
    remedy: str


class StageAnswer(Answer):
    event_id: str
    kind: str = Field(description="the event, such as boot.started")
    source: str = Field(description="who saw it: service and node, such as /dhcp/server-1")
    started: datetime
    ended: datetime
    data: dict[str, Any] = Field(description="what the event says beyond that; see docs/events.md")

    @classmethod
    def of(cls, row: StageRow) -> StageAnswer:
        return cls(
            event_id=row.event_id,
            kind=row.kind,
            source=row.source,
            started=row.started,
            ended=row.ended,
            data=row.data,
        )


class BootWithStages(BootAnswer):
    stages: list[StageAnswer] = Field(description="in the order of their beginnings")
