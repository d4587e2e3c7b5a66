"""What a request's handler works with."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Query, Request, Response
from starlette.datastructures import MutableHeaders

from bootlink_registry.api.etags import IF_MATCH, Current, Tagged, change, etag_of
from bootlink_registry.api.measured import Requests
from bootlink_registry.api.roles import identity_of
from bootlink_registry.database import Connection, Database
from bootlink_registry.delivery import Delivery
from bootlink_registry.enrolment import Rule, first_rule
from bootlink_registry.layers import Layers
from bootlink_registry.nodes import NodeWatch
from bootlink_registry.settings import RegistrySettings
from bootlink_registry.spindles import Spindles
from bootlink_registry.tokens import Tokens
from bootlink_registry.webhooks.forwarder import Forwarder
from bootlink_runtime import Bus, Health

T = TypeVar("T", bound=Tagged)

PAGE: int = 100  # items of a listing unless told
PAGE_LIMIT: int = 1_000  # items of one answer; the rest is behind `next`


@dataclass(frozen=True)
class Context:
    """The registry's parts, for the API."""

    database: Database
    layers: Layers
    nodes: NodeWatch
    spindles: Spindles
    delivery: Delivery
    bus: Bus
    health: Health
    settings: RegistrySettings
    tokens: Tokens
    forwarder: Forwarder
    requests: Requests = field(default_factory=Requests)
    author: str = ""  # whose token a request came with
    if_match: str | None = None
    headers: MutableHeaders = field(default_factory=MutableHeaders)  # of the answer

    @property
    def first_rule(self) -> Rule:
        """What becomes of unknown PCs until an administrator has said so."""
        return first_rule(self.settings)

    @property
    def source(self) -> str:
        """The source of events that the API's changes set off."""
        return self.bus.source

    def change(self, current: Current) -> AbstractAsyncContextManager[Connection]:
        """A transaction for a change of what `current` reads. Problem 412 if the request's If-Match says otherwise."""
        return change(self.database, self.if_match, current)

    def shown(self, answer: T) -> T:
        """The answer itself, whose ETag goes into the headers."""
        self.headers["ETag"] = etag_of(answer)
        return answer


def _context(request: Request, response: Response) -> Context:
    context: Context = request.app.state.context
    return replace(context, author=identity_of(request).name, headers=response.headers)


Registry = Annotated[Context, Depends(_context)]


def _changing(
    context: Registry,
    if_match: Annotated[
        str | None,
        Header(
            description="the ETag of what is to be changed; 412 if it is another by now",
            json_schema_extra={"pattern": IF_MATCH},
        ),
    ] = None,
) -> Context:
    return replace(context, if_match=if_match)


Changing = Annotated[Context, Depends(_changing)]
"""The registry's parts, for a handler that changes something which has an ETag."""

Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT, description="items at most")]
After = Annotated[str, Query(description="the former page's `next`")]
