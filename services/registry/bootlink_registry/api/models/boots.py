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


class StepAnswer(Answer):
    step: str = Field(
        description="what was reached: address, loader, ipxe_address, script, login, first_read, system, idle, hello; "
        "and whole: the way to system"
    )
    at: float | None = Field(description="when, in seconds from the boot's first packet")
    took: float | None = Field(description="seconds from the step before it")
    last: float | None = Field(description="what it took in the client's boot before this one")
    peers: float | None = Field(description="the median of what it took in the peers' boots")


class BootWithStages(BootAnswer):
    stages: list[StageAnswer] = Field(description="in the order of their beginnings")
    steps: list[StepAnswer] = Field(description="the way of this boot, step by step, beside others")
    last: UUID | None = Field(description="the client's boot before this one that came as far as a disk")
    peers: int = Field(description="how many other clients' latest boots from the same version the medians are of")
