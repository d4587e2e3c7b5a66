"""Images and their versions, added in place: the file stays where it is and is never opened for writing."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from bootlink_disks import ImageInfo
from bootlink_events import ImagePublished
from bootlink_registry import outbox, rows
from bootlink_registry.catalogue import DEFAULT_CHANNEL, Fault, Version
from bootlink_registry.database import Connection
from bootlink_registry.problems import Problem, conflict, listed, not_found


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version and what is told about it."""

    version: Version
    disk_usage: int  # bytes that the file occupies
    note: str
    created: datetime


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image with its versions, newest first, and its channels."""

    name: str
    note: str
    created: datetime
    versions: tuple[VersionRow, ...]
    channels: dict[str, int]


async def require_free_name(connection: Connection, name: str) -> None:
    """Raise Problem if there is an image of this name."""
    if await connection.fetchval("SELECT true FROM images WHERE name = $1", name):
        raise _name_taken(name)


async def add_image(connection: Connection, *, name: str, note: str, info: ImageInfo, source: str) -> ImageRow:
    """Make an image, its version 1 and its channel `production` from a file that was probed. Raises Problem."""
    try:
        await connection.execute("INSERT INTO images (name, note) VALUES ($1, $2)", name, note)
    except asyncpg.UniqueViolationError as error:
        raise _name_taken(name) from error
    await connection.execute(
        """
        INSERT INTO versions (image, number, layer, path, format, virtual_size, file_size, mtime_ns, disk_usage, note)
        VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        *(name, uuid.uuid4(), str(info.path), info.format, info.virtual_size),
        *(info.file_size, info.mtime_ns, info.disk_usage, note),
    )
    await connection.execute("INSERT INTO channels (image, name, version) VALUES ($1, $2, 1)", name, DEFAULT_CHANNEL)
    event = ImagePublished(image=name, version=1, channel=DEFAULT_CHANNEL, at=datetime.now(UTC))
    await outbox.record(connection, event, source=source)
    return await get_image(connection, name)


def _name_taken(name: str) -> Problem:
    return conflict(
        f"there is an image {name} already", f"choose another name; bootlink image show {name} tells what it is"
    )


async def get_image(connection: Connection, name: str) -> ImageRow:
    """One image. Raises Problem."""
    found = await connection.fetchrow("SELECT * FROM images WHERE name = $1", name)
    if found is None:
        names = [row["name"] for row in await connection.fetch("SELECT name FROM images ORDER BY name LIMIT 10")]
        total = await connection.fetchval("SELECT count(*) FROM images")
        raise not_found(
            f"there is no image {name!r}; there are: {listed(names, total)}",
            f"correct the name, or add the image: bootlink image add {name} FILE",
        )
    return (await _images(connection, [found]))[0]


async def list_images(connection: Connection, *, after: str, limit: int) -> list[ImageRow]:
    """Images by name, after the given one."""
    return await _images(
        connection, await connection.fetch("SELECT * FROM images WHERE name > $1 ORDER BY name LIMIT $2", after, limit)
    )


async def _images(connection: Connection, found: list[Any]) -> list[ImageRow]:
    """Images with their versions and channels, from rows of `images`."""
    names = [row["name"] for row in found]
    versions: dict[str, list[VersionRow]] = {name: [] for name in names}
    channels: dict[str, dict[str, int]] = {name: {} for name in names}
    for row in await connection.fetch(
        "SELECT * FROM versions WHERE image = ANY($1::text[]) ORDER BY image, number DESC", names
    ):
        versions[row["image"]].append(VersionRow(rows.version_of(row), row["disk_usage"], row["note"], row["created"]))
    for row in await connection.fetch(
        "SELECT image, name, version FROM channels WHERE image = ANY($1::text[]) ORDER BY image, name", names
    ):
        channels[row["image"]][row["name"]] = row["version"]
    return [
        ImageRow(row["name"], row["note"], row["created"], tuple(versions[row["name"]]), channels[row["name"]])
        for row in found
    ]


async def all_layers(connection: Connection, image: str | None = None) -> list[Version]:
    """The versions of one image or of all, for a look at their files."""
    found = await connection.fetch("SELECT * FROM versions WHERE $1::text IS NULL OR image = $1", image)
    return [rows.version_of(row) for row in found]


async def set_fault(connection: Connection, version: Version, fault: Fault | None) -> None:
    """Record what is wrong with a version's file, or that it is well again; all plans that name it follow."""
    await connection.execute(
        "UPDATE versions SET fault = $3 WHERE image = $1 AND number = $2", version.image, version.number, fault
    )
    await outbox.recompile(connection, "all")
