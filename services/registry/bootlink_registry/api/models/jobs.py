"""Long work, as the API tells of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from bootlink_registry.api.models.base import Answer
from bootlink_registry.jobs import JobRow

State = Literal["queued", "running", "done", "failed", "cancelled"]


class JobProblemAnswer(Answer):
    """Why a job failed."""

    detail: str = Field(description="what is wrong")
    remedy: str = Field(description="what to do")


class JobAnswer(Answer):
    """Long work, and how far it is."""

    id: UUID
    kind: str = Field(description="such as image.import")
    subject: str = Field(description="whom it is about: an image, a client")
    state: State
    cancelling: bool = Field(description="somebody asked for its end; it is cleaning up")
    stage: str = Field(description="what it is doing just now")
    done: int = Field(description="how much of `total` is done, mostly in bytes")
    total: int | None = Field(description="null while nobody knows")
    attempts: int = Field(description="more than 1: the registry was restarted in between")
    author: str
    result: dict[str, Any] | None = Field(description="what came of it, once it is done")
    problem: JobProblemAnswer | None = Field(description="why it failed")
    created: datetime
    started: datetime | None
    ended: datetime | None

    @classmethod
    def of(cls, row: JobRow) -> JobAnswer:
        return cls(
            id=row.id,
            kind=row.kind,
            subject=row.subject,
            state=row.state,
            cancelling=row.cancelling and not row.over,
            stage=row.stage,
            done=row.done,
            total=row.total,
            attempts=row.attempts,
            author=row.author,
            result=row.result,
            problem=JobProblemAnswer(**row.problem) if row.problem else None,
            created=row.created,
            started=row.started,
            ended=row.ended,
        )
