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
from bootlink_registry.database import Connection, DatabaseAway
from bootlink_registry.jobs.queue import JobOver
from bootlink_registry.jobs.work import Work
from bootlink_registry.problems import Problem
from bootlink_registry.store import Download, Place, download_of, place_of


async def import_image(work: Work) -> dict[str, Any]:
    """The job `image.import`."""
    try:
        result = await _import(work)
    except (DatabaseAway, JobOver):  # it begins again, or has done so elsewhere
        raise
    except Exception:
        await _forget(work)  # the next job asks the URL what is there then, and knows of no checksum that this one had
        raise
    await _forget(work)
    return result


async def _import(work: Work) -> dict[str, Any]:
    wanted = work.request
    store = work.settings.image_store
    place = place_of(store, work.subject, work.id, wanted["format"])
    checked = None  # nobody knows, where a former attempt has done it
    # A raw file says nothing of itself, but what is on the disk may look like another format: so it is made anew.
    if await place.ready(anew=wanted["format"] == "raw"):
        made = await making.found(work, place)
    else:
        async with place.drafting():
            written, checked = await _written(work, place)
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
    return result


async def _forget(work: Work) -> None:
    source = work.request["source"]
    if is_url(source):
        await download_of(work.settings.image_store, work.subject, source).forget()


async def _written(work: Work, place: Place) -> tuple[imaging.Written, bool]:
    """The draft, written whole, and whether the source's checksum was known and right. Raises Problem."""
    wanted = work.request
    if not is_url(wanted["source"]):
        written = await _converted(work, Path(wanted["source"]), place, sha256=wanted["sha256"])
        return written, written.checked
    download = download_of(work.settings.image_store, work.subject, wanted["source"])
    try:
        checked = await _fetched(work, download)
        return await _converted(work, download.path, place, sha256=None), checked
    except asyncio.CancelledError:
        if work.cancelled:
            await download.forget(half=True)
        raise
    except Problem as problem:
        told = problem.detail.replace(str(download.path), wanted["source"])
        raise Problem(problem.status, told, problem.remedy) from problem


async def _converted(work: Work, source: Path, place: Place, *, sha256: str | None) -> imaging.Written:
    return await imaging.run(
        imaging.Convert(
            source=source,
            source_format=work.request["source_format"],
            sha256=sha256,
            target=place.draft,
            format=work.request["format"],
        ),
        making.progress(work, "converting"),
    )


async def _fetched(work: Work, download: Download) -> bool:
    """Download the source, unless a former attempt came so far. Whether its checksum was known, and right."""
    if await asyncio.to_thread(download.path.exists):
        return await asyncio.to_thread(download.checked.exists)
    fetched = await imaging.run(
        imaging.Fetch(url=work.request["source"], sha256=work.request["sha256"], target=download.path),
        making.progress(work, "downloading"),
    )
    if fetched.checked:
        await asyncio.to_thread(download.checked.touch)
    return fetched.checked


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
