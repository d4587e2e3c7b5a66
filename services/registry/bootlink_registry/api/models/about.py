"""The registry itself."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from bootlink_registry.api.models.base import Answer
from bootlink_registry.tokens import Role


class NodeAnswer(Answer):
    node: str
    portals: list[str]
    seen: datetime


class Counts(Answer):
    images: int
    clients: int
    links: int
    boots: int
    unpublished_events: int


class You(Answer):
    """Whose token the request came with."""

    name: str
    role: Role


class InfoAnswer(Answer):
    """The registry itself."""

    version: str
    node: str
    api: Literal["v1"] = "v1"
    you: You
    enrol: Literal["accept", "refuse"]
    nats_connected: bool
    delivering: bool = Field(description="this registry puts plans and events out; with several, one does")
    nodes: list[NodeAnswer] = Field(description="the block stores that clients are sent to")
    counts: Counts
