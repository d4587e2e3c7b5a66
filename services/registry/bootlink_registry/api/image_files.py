"""/v1/imports, and the long work on /v1/images: each answers 202 with a job."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import APIRouter, Response

from bootlink_registry import flattening, images, jobs, merging, versions
from bootlink_registry.api.context import Registry
from bootlink_registry.api.jobs import accepted
from bootlink_registry.api.models.image_files import CompactWish, ExportWish, ImportWish, MergeWish, VerifyWish
from bootlink_registry.api.models.jobs import JobAnswer

router = APIRouter(tags=["images"])


@router.post("/imports", status_code=202, responses={404: {}, 409: {}})
async def import_image(body: ImportWish, registry: Registry, response: Response) -> JobAnswer:
    """Copy or convert a disk from a file or a URL into the image store: a new image, or a new version of one.

    Its checksum, given or found beside it, is compared before the image exists.
    """
    async with registry.database.transaction() as connection:
        if body.new_version:
            await versions.require_image(connection, body.name)
        else:
            await images.require_free_name(connection, body.name)
        job = await jobs.submit(
            connection,
            kind="image.import",
            subject=body.name,
            exclusive=f"image:{body.name}",
            request=body.model_dump(mode="json", exclude={"name"}),
            author=registry.author,
            source=registry.source,
        )
        return await accepted(connection, job, response)


@router.post("/images/{name}/export", status_code=202, responses={404: {}, 409: {}})
async def export_image(name: str, body: ExportWish, registry: Registry, response: Response) -> JobAnswer:
    """Write a version as one whole file on the registry's machine."""
    await asyncio.to_thread(flattening.require_writable, Path(body.path), registry.settings.image_store)
    async with registry.database.transaction() as connection:
        number = await versions.version_named(connection, name, channel=body.channel, version=body.version)
        job = await jobs.submit(
            connection,
            kind="image.export",
            subject=name,
            exclusive=f"file:{body.path}",
            request={"path": body.path, "format": body.format, "version": number},
            author=registry.author,
            source=registry.source,
        )
        return await accepted(connection, job, response)


@router.post("/images/{name}/verify", status_code=202, responses={404: {}, 409: {}})
async def verify_image(name: str, body: VerifyWish, registry: Registry, response: Response) -> JobAnswer:
    """Read every layer of an image, compare the checksums, and look whether its chains are intact."""
    async with registry.database.transaction() as connection:
        if body.version is not None:
            await versions.require_version(connection, name, body.version)
        await versions.require_image(connection, name)
        job = await jobs.submit(
            connection,
            kind="image.verify",
            subject=name,
            exclusive=f"verify:{name}",
            request={"version": body.version},
            author=registry.author,
            source=registry.source,
        )
        return await accepted(connection, job, response)


@router.post("/images/{name}/merge", status_code=202, responses={404: {}, 409: {}})
async def merge_image(name: str, body: MergeWish, registry: Registry, response: Response) -> JobAnswer:
    """Have a version read from fewer layers, which show the same. No client is stopped for it."""
    async with registry.database.transaction() as connection:
        number = await versions.version_named(connection, name, channel=body.channel, version=body.version)
        if body.onto is not None:
            await versions.require_version(connection, name, body.onto)
        await merging.split(connection, name, number, body.onto)
        job = await jobs.submit(
            connection,
            kind="image.merge",
            subject=name,
            exclusive=f"image:{name}",
            request={"version": number, "onto": body.onto},
            author=registry.author,
            source=registry.source,
        )
        return await accepted(connection, job, response)


@router.post("/images/{name}/compact", status_code=202, responses={404: {}, 409: {}})
async def compact_image(name: str, body: CompactWish, registry: Registry, response: Response) -> JobAnswer:
    """Write a version anew without zeros and free space, and tell the sizes before and after.

    Where free space was dropped this makes a new version; where only zeros were, the version stays what it is.
    """
    async with registry.database.transaction() as connection:
        number = await versions.version_named(connection, name, channel=body.channel, version=body.version)
        stack = await images.stack_of(connection, name, number)
        job = await jobs.submit(
            connection,
            kind="image.compact",
            subject=name,
            exclusive=f"image:{name}",
            request={
                "version": number,
                "format": body.format or merging.whole_format(stack[0].virtual_size),
                "note": body.note,
                "channel": body.publish,
            },
            author=registry.author,
            source=registry.source,
        )
        return await accepted(connection, job, response)
