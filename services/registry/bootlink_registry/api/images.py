"""/v1/images"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from bootlink_registry import adding, images, removal, versions
from bootlink_registry.api.context import PAGE, After, Changing, Context, Limit, Registry
from bootlink_registry.api.models.base import Page
from bootlink_registry.api.models.images import (
    ImageAnswer,
    ImageChange,
    NewImage,
    NewVersion,
    Publication,
    Rollback,
    VersionAnswer,
    VersionOf,
)
from bootlink_registry.database import Connection
from bootlink_registry.names import Name

router = APIRouter(prefix="/images", tags=["images"])

Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="the version's number")]


@router.post("", status_code=201, responses={404: {}, 409: {}})
async def add_image(body: NewImage, registry: Registry, response: Response) -> ImageAnswer:
    """Add a disk image in place: it is checked, stays where it is, and is never written to.

    It becomes version 1 of a new image, and the image's channel `production` points at it.
    """
    async with registry.database.transaction() as connection:
        await images.require_free_name(connection, body.name)
    file = await adding.examine(registry, body.path, _parent(body.parent))
    async with registry.database.transaction() as connection:
        layer = await adding.record(connection, file, subject=body.name, source=registry.source)
        image = await images.add_image(
            connection, name=body.name, layer=layer, note=body.note, author=registry.author, source=registry.source
        )
    response.headers["Location"] = f"/v1/images/{image.name}"
    return registry.shown(ImageAnswer.of(image))


@router.get("")
async def list_images(registry: Registry, limit: Limit = PAGE, after: After = "") -> Page[ImageAnswer]:
    """All images, by name."""
    async with registry.database.transaction() as connection:
        found = await images.list_images(connection, after=after, limit=limit)
    return Page(items=[ImageAnswer.of(row) for row in found], next=found[-1].name if len(found) == limit else None)


@router.get("/{name}", responses={404: {}})
async def show_image(name: str, registry: Registry) -> ImageAnswer:
    """One image, with its newest versions and its channels."""
    async with registry.database.transaction() as connection:
        return registry.shown(ImageAnswer.of(await images.get_image(connection, name)))


@router.patch("/{name}", responses={404: {}})
async def change_image(name: str, body: ImageChange, registry: Changing) -> ImageAnswer:
    """Change the note on an image."""
    async with registry.change(lambda c: _image(c, name)) as connection:
        await versions.set_note(
            connection, image=name, version=None, note=body.note, author=registry.author, source=registry.source
        )
        return registry.shown(ImageAnswer.of(await images.get_image(connection, name)))


@router.delete("/{name}", status_code=204, responses={404: {}, 409: {}})
async def remove_image(name: str, registry: Changing) -> None:
    """Remove an image with all its versions. Refused while a link, a client or another image needs it.

    Files that were added in place stay where they are; those of the image store are removed when no PC reads them.
    """
    async with registry.change(lambda c: _image(c, name)) as connection:
        await removal.remove_image(connection, image=name, author=registry.author, source=registry.source)


# -- versions -------------------------------------------------------------------------------------------------------


@router.post("/{name}/versions", status_code=201, responses={404: {}, 409: {}})
async def add_version(name: str, body: NewVersion, registry: Registry, response: Response) -> VersionAnswer:
    """Add a disk image in place as the next version of an image. No client boots it before it is published."""
    async with registry.database.transaction() as connection:
        await versions.require_image(connection, name)
    file = await adding.examine(registry, body.path, _parent(body.parent))
    async with registry.database.transaction() as connection:
        layer = await adding.record(connection, file, subject=name, source=registry.source)
        number = await versions.add_version(
            connection,
            image=name,
            layer=layer,
            parent=body.parent.version if body.parent is not None and body.parent.image == name else None,
            note=body.note,
            author=registry.author,
            source=registry.source,
        )
        if body.channel is not None:
            await versions.publish(
                connection,
                image=name,
                channel=body.channel,
                version=number,
                author=registry.author,
                source=registry.source,
            )
        version = await images.get_version(connection, name, number)
    response.headers["Location"] = f"/v1/images/{name}/versions/{number}"
    return registry.shown(VersionAnswer.of(version))


@router.get("/{name}/versions", responses={404: {}})
async def list_versions(
    name: str,
    registry: Registry,
    limit: Limit = PAGE,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="the former page's `next`")] = None,
) -> Page[VersionAnswer]:
    """The versions of one image, newest first."""
    async with registry.database.transaction() as connection:
        found = await images.list_versions(connection, name, before=before, limit=limit)
    more = str(found[-1].version.number) if len(found) == limit else None
    return Page(items=[VersionAnswer.of(row) for row in found], next=more)


@router.get("/{name}/versions/{number}", responses={404: {}})
async def show_version(name: str, number: Number, registry: Registry) -> VersionAnswer:
    """One version."""
    async with registry.database.transaction() as connection:
        return registry.shown(VersionAnswer.of(await images.get_version(connection, name, number)))


@router.patch("/{name}/versions/{number}", responses={404: {}})
async def change_version(name: str, number: Number, body: ImageChange, registry: Changing) -> VersionAnswer:
    """Change the note on a version. What it shows never changes."""
    async with registry.change(lambda c: _version(c, name, number)) as connection:
        await versions.set_note(
            connection, image=name, version=number, note=body.note, author=registry.author, source=registry.source
        )
        return registry.shown(VersionAnswer.of(await images.get_version(connection, name, number)))


@router.delete("/{name}/versions/{number}", status_code=204, responses={404: {}, 409: {}})
async def remove_version(name: str, number: Number, registry: Changing) -> None:
    """Remove a version. Refused while a channel, a link, a client or another version needs it."""
    async with registry.change(lambda c: _version(c, name, number)) as connection:
        await removal.remove_version(
            connection, image=name, version=number, author=registry.author, source=registry.source
        )


# -- channels -------------------------------------------------------------------------------------------------------


@router.put("/{name}/channels/{channel}", responses={404: {}, 409: {}})
async def publish(name: str, channel: Name, body: Publication, registry: Changing) -> ImageAnswer:
    """Point a channel at a version. Who is linked to it boots that version at the next boot; what runs, runs on."""
    move = partial(versions.publish, image=name, channel=channel, version=body.version)
    return await _moved(name, registry, partial(move, author=registry.author, source=registry.source))


@router.post("/{name}/channels/{channel}/rollback", responses={404: {}, 409: {}})
async def roll_back(name: str, channel: str, body: Rollback, registry: Changing) -> ImageAnswer:
    """Point a channel at the version that it pointed at before; done twice, it undoes itself."""
    move = partial(versions.rollback, image=name, channel=channel, version=body.version)
    return await _moved(name, registry, partial(move, author=registry.author, source=registry.source))


async def _moved(name: str, registry: Context, move: Callable[[Connection], Awaitable[object]]) -> ImageAnswer:
    """The image, with a channel moved to a version whose layers were looked at."""
    await registry.layers.glance(name)
    async with registry.change(lambda c: _image(c, name)) as connection:
        await move(connection)
        return registry.shown(ImageAnswer.of(await images.get_image(connection, name)))


@router.delete("/{name}/channels/{channel}", status_code=204, responses={404: {}, 409: {}})
async def remove_channel(name: str, channel: str, registry: Changing) -> None:
    """Take a channel away that no link names. Its versions stay."""
    async with registry.change(lambda c: _image(c, name)) as connection:
        await versions.remove_channel(
            connection, image=name, channel=channel, author=registry.author, source=registry.source
        )


def _parent(wish: VersionOf | None) -> tuple[str, int] | None:
    return (wish.image, wish.version) if wish is not None else None


async def _image(connection: Connection, name: str) -> ImageAnswer:
    return ImageAnswer.of(await images.get_image(connection, name))


async def _version(connection: Connection, name: str, number: int) -> VersionAnswer:
    return VersionAnswer.of(await images.get_version(connection, name, number))
