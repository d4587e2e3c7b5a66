"""The API's application: its routes under /v1, its OpenAPI document, and its errors."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, FastAPI

from bootlink_registry.api import answers, boots, branches, clients, image_files, images, jobs, links, menus, own_layers
from bootlink_registry.api.context import Context, Registry
from bootlink_registry.api.limit import BodyLimit
from bootlink_registry.api.models.about import Counts, InfoAnswer, NodeAnswer
from bootlink_runtime import __version__

_COUNTS = """
    SELECT (SELECT count(*) FROM images) AS images, (SELECT count(*) FROM clients) AS clients,
        (SELECT count(*) FROM links) AS links, (SELECT count(*) FROM boots) AS boots,
        (SELECT count(*) FROM outbox) AS unpublished_events
"""

PARTS: Final = (images, image_files, clients, branches, own_layers, links, menus, boots, jobs)

about = APIRouter(tags=["about"])


@about.get("/info")
async def info(registry: Registry) -> InfoAnswer:
    """The registry itself: what it knows of the system, and how much it holds."""
    async with registry.database.transaction() as connection:
        counts = await connection.fetchrow(_COUNTS)
    return InfoAnswer(
        version=__version__,
        node=registry.health.node,
        enrol=registry.settings.enrol,
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
        redoc_url=None,
    )
    app.state.context = context
    app.add_middleware(BodyLimit)
    for router in (about, *(part.router for part in PARTS)):
        app.include_router(router, prefix="/v1")
    answers.install(app, log=log)
    return app
