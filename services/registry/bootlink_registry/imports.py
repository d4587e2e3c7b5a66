"""Importing: a copy of somebody's disk becomes a layer of ours.

In this order: fetch (a URL), convert into the draft, seal, and one transaction that makes the layer, the version and
the end of the job. The checksum, given or found beside the source, is compared before the draft gets its name. What a
URL has brought stays when the registry is restarted, and half of it also when the job fails: the next try goes on.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bootlink_registry import images, imaging, making, versions
from bootlink_registry.database import Connection
from bootlink_registry.jobs.work import Work
from bootlink_registry.problems import Problem
from bootlink_registry.store import Place, download_of, place_of


async def import_image(work: Work) -> dict[str, Any]:
    """The job `image.import`."""
    wanted = work.request
    store = work.settings.image_store
    place = place_of(store, work.subject, work.id, wanted["format"])
    checked = None  # nobody knows, where a former attempt has done it
    if await place.ready():
        made = await making.found(work, place)
    else:
        written = await _written(work, place)
        checked = written.checked
        made = await making.sealed(place, written)
    async with work.database.transaction() as connection:
        await making.record(connection, work, made)
        number = await _become_version(connection, work)
        result = {
            "image": work.subject,
            "version": number,
            "path": str(made.path),
            "format": made.format,
            "virtual_size": made.virtual_size,
            "file_size": made.file_size,
            "disk_usage": made.disk_usage,
            "sha256": made.sha256,
            "source_checked": checked,
        }
        await work.finish(connection, result)
    await _forget_download(work)
    return result


async def _written(work: Work, place: Place) -> imaging.Written:
    """The draft, written whole. Raises Problem."""
    wanted = work.request
    try:
        source = await _fetched(work) if is_url(wanted["source"]) else Path(wanted["source"])
        return await imaging.run(
            imaging.Convert(
                source=source,
                source_format=wanted["source_format"],
                sha256=wanted["sha256"],
                target=place.draft,
                format=wanted["format"],
            ),
            making.progress(work, "converting"),
        )
    except asyncio.CancelledError:
        if work.cancelled:
            await _forget_download(work)
        raise
    except Problem:
        await _forget_download(work)
        raise


async def _fetched(work: Work) -> Path:
    """The source, downloaded; its checksum, if one was known, lies beside it as beside any other file."""
    target = download_of(work.settings.image_store, work.subject, work.request["source"])
    if await asyncio.to_thread(target.exists):  # a former attempt came so far
        return target
    fetched = await imaging.run(
        imaging.Fetch(url=work.request["source"], sha256=work.request["sha256"], target=target),
        making.progress(work, "downloading"),
    )
    if fetched.checked:
        await asyncio.to_thread(_checksum_of(target).write_text, f"{fetched.sha256}\n")
    return target


async def _forget_download(work: Work) -> None:
    """Remove what was fetched whole. Half a download stays for the next try."""
    if is_url(work.request["source"]):
        target = download_of(work.settings.image_store, work.subject, work.request["source"])
        for path in (target, _checksum_of(target)):
            await asyncio.to_thread(path.unlink, missing_ok=True)


def _checksum_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


async def _become_version(connection: Connection, work: Work) -> int:
    """Make the layer an image or its next version; the version's number."""
    wanted = work.request
    told = {"note": wanted["note"], "author": work.author, "source": work.source}
    if not wanted["new_version"]:
        await images.add_image(connection, name=work.subject, layer=work.id, **told)
        return 1
    number = await versions.add_version(connection, image=work.subject, layer=work.id, parent=None, **told)
    if wanted["channel"] is not None:
        await versions.publish(
            connection,
            image=work.subject,
            channel=wanted["channel"],
            version=number,
            author=work.author,
            source=work.source,
        )
    return number


def is_url(source: str) -> bool:
    """Whether an import's source is fetched, and not a file."""
    return source.startswith(("http://", "https://"))
