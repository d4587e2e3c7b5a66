"""/v1/images"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response

from bootlink_registry import images
from bootlink_registry.api.context import PAGE, After, Limit, Registry
from bootlink_registry.api.models.base import Page
from bootlink_registry.api.models.images import ImageAnswer, NewImage
from bootlink_registry.layers import require_whole

router = APIRouter(prefix="/images", tags=["images"])


@router.post("", status_code=201, responses={409: {}})
async def add_image(body: NewImage, registry: Registry, response: Response) -> ImageAnswer:
    """Add a disk image in place: it is checked, stays where it is, and is never written to.

    It becomes version 1 of a new image, and the image's channel `production` points at it.
    """
    async with registry.database.transaction() as connection:
        await images.require_free_name(connection, body.name)
    info = await registry.layers.probe(Path(body.path))
    require_whole(info)
    async with registry.database.transaction() as connection:
        image = await images.add_image(connection, name=body.name, note=body.note, info=info, source=registry.source)
    response.headers["Location"] = f"/v1/images/{image.name}"
    return ImageAnswer.of(image)


@router.get("")
async def list_images(registry: Registry, limit: Limit = PAGE, after: After = "") -> Page[ImageAnswer]:
    """All images, by name."""
    async with registry.database.transaction() as connection:
        found = await images.list_images(connection, after=after, limit=limit)
    return Page(items=[ImageAnswer.of(row) for row in found], next=found[-1].name if len(found) == limit else None)


@router.get("/{name}", responses={404: {}})
async def show_image(name: str, registry: Registry) -> ImageAnswer:
    """One image, with its versions and channels."""
    async with registry.database.transaction() as connection:
        return ImageAnswer.of(await images.get_image(connection, name))
