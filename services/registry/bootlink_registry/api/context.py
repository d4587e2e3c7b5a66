"""What a request's handler works with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Query, Request

from bootlink_registry.api.roles import identity_of
from bootlink_registry.database import Database
from bootlink_registry.delivery import Delivery
from bootlink_registry.enrolment import Rule, first_rule
from bootlink_registry.layers import Layers
from bootlink_registry.nodes import NodeWatch
from bootlink_registry.settings import RegistrySettings
from bootlink_registry.tokens import Tokens
from bootlink_runtime import Bus, Health

PAGE: int = 100  # items of a listing unless told
PAGE_LIMIT: int = 1_000  # items of one answer; the rest is behind `next`


@dataclass(frozen=True)
class Context:
    """The registry's parts, for the API."""

    database: Database
    layers: Layers
    nodes: NodeWatch
    delivery: Delivery
    bus: Bus
    health: Health
    settings: RegistrySettings
    tokens: Tokens
    author: str = ""  # whose token a request came with

    @property
    def first_rule(self) -> Rule:
        """What becomes of unknown PCs until an administrator has said so."""
        return first_rule(self.settings)

    @property
    def source(self) -> str:
        """The source of events that the API's changes set off."""
        return self.bus.source


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return replace(context, author=identity_of(request).name)


Registry = Annotated[Context, Depends(_context)]

Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT, description="items at most")]
After = Annotated[str, Query(description="the former page's `next`")]
