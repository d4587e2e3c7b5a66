"""The API's application: its routes under /v1, its OpenAPI document, and its errors."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute

from bootlink_registry.api import (
    answers,
    boots,
    branches,
    clients,
    enrolment,
    groups,
    image_files,
    images,
    jobs,
    links,
    menus,
    own_layers,
    roster,
    tokens,
    webhooks,
)
from bootlink_registry.api.context import Context, Registry
from bootlink_registry.api.guard import Guard
from bootlink_registry.api.limit import BodyLimit
from bootlink_registry.api.measured import Measured
from bootlink_registry.api.models.about import Counts, InfoAnswer, NodeAnswer, You
from bootlink_registry.api.openapi import describe
from bootlink_registry.api.roles import identity_of, require_role
from bootlink_registry.enrolment import read_rule
from bootlink_runtime import __version__

_COUNTS = """
    SELECT (SELECT count(*) FROM images) AS images, (SELECT count(*) FROM clients) AS clients,
        (SELECT count(*) FROM links) AS links, (SELECT count(*) FROM boots) AS boots,
        (SELECT count(*) FROM outbox) AS unpublished_events
"""

PARTS: Final = (
    *(images, image_files, clients, enrolment, groups, roster, branches, own_layers, links, menus, boots, jobs, tokens),
    webhooks,
)

about = APIRouter(tags=["about"])


@about.get("/info")
async def info(registry: Registry, request: Request) -> InfoAnswer:
    """The registry itself: what it knows of the system, and how much it holds."""
    async with registry.database.transaction() as connection:
        counts = await connection.fetchrow(_COUNTS)
        rule = await read_rule(connection, registry.first_rule)
    return InfoAnswer(
        version=__version__,
        node=registry.health.node,
        you=You(name=identity_of(request).name, role=identity_of(request).role),
        enrol=rule.policy,
        nats_connected=registry.bus.connected,
        delivering=registry.delivery.active,
        nodes=[
            NodeAnswer(node=node.node, portals=list(node.portals), seen=node.seen) for node in registry.nodes.nodes.all
        ],
        counts=Counts(**dict(counts)),
    )


def api(context: Context, *, log: Any) -> FastAPI:
    """The application."""
    app = FastAPI(
        title="Bootlink registry",
        version=__version__,
        description="Images, links, clients and boots. Errors are problem documents (RFC 9457) with a `remedy`.",
        # Pages of their own would be a surface for a web site to attack, and load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation,
    )
    app.state.context = context
    app.add_middleware(BodyLimit)
    app.add_middleware(Guard, tokens=context.tokens, log=log)
    app.add_middleware(Measured, requests=context.requests)  # the last is the outermost
    for router in (about, *(part.router for part in PARTS)):
        app.include_router(router, prefix="/v1", dependencies=[Depends(require_role)])
    answers.install(app, log=log)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    return app


def _operation(route: APIRoute) -> str:
    """The name of an operation: its function's, which the table of roles knows it by."""
    return route.name
