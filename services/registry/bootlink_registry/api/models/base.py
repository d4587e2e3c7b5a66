"""What all answers and requests have in common."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Wish(BaseModel):
    """The body of a request. A field that we do not know is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid")


class ProblemAnswer(Answer):
    """What is wrong with a request, and what to do (RFC 9457, with `remedy` as an extension)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="what is wrong")
    remedy: str = Field(description="what to do")


class Page(Answer, Generic[T]):
    """A part of a listing; `next`, where there is more, is the `after` (for boots: `before`) of the next part."""

    items: list[T]
    next: str | None = None


SOME_FIELD = ConfigDict(json_schema_extra={"minProperties": 1})
"""Of a change: one that names no field changes nothing, and is refused."""
