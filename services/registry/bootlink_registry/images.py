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
from bootlink_registry.catalogue import DEFAULT_CHANNEL, Fault, Layer, Version
from bootlink_registry.database import Connection
from bootlink_registry.problems import Problem, conflict, listed, not_found


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version, the layer that it is read from, and what is told about them."""

    version: Version
    layer: Layer
    disk_usage: int  # bytes that the layer's file occupies
    sha256: str | None  # of the layer's file; None until it was computed
    owned: bool  # the file lies in the image store, and is ours to remove
    note: str
    author: str
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
    layer = await add_layer(connection, info)
    await connection.execute(
        "INSERT INTO versions (image, number, content, layer, note) VALUES ($1, 1, $2, $3, $4)",
        *(name, uuid.uuid4(), layer, note),
    )
    await connection.execute("INSERT INTO channels (image, name, version) VALUES ($1, $2, 1)", name, DEFAULT_CHANNEL)
    event = ImagePublished(image=name, version=1, channel=DEFAULT_CHANNEL, at=datetime.now(UTC))
    await outbox.record(connection, event, source=source)
    return await get_image(connection, name)


async def add_layer(
    connection: Connection,
    info: ImageInfo,
    *,
    layer: uuid.UUID | None = None,
    below: uuid.UUID | None = None,
    sha256: str | None = None,
    owned: bool = False,
) -> uuid.UUID:
    """Record a layer file that was probed; its id."""
    layer = layer or uuid.uuid4()
    await connection.execute(
        """
        INSERT INTO layers
            (id, below, path, format, virtual_size, file_size, mtime_ns, disk_usage, sha256, owned)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        *(layer, below, str(info.path), info.format, info.virtual_size),
        *(info.file_size, info.mtime_ns, info.disk_usage, sha256, owned),
    )
    return layer


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
        """
        SELECT l.*, v.image, v.number, v.parent, v.content, v.layer, v.note, v.author, v.created AS made
        FROM versions v JOIN layers l ON l.id = v.layer
        WHERE v.image = ANY($1::text[]) ORDER BY v.image, v.number DESC
        """,
        names,
    ):
        versions[row["image"]].append(
            VersionRow(
                rows.version_of(row),
                rows.layer_of(row),
                *(row[column] for column in ("disk_usage", "sha256", "owned", "note", "author", "made")),
            )
        )
    for row in await connection.fetch(
        "SELECT image, name, version FROM channels WHERE image = ANY($1::text[]) ORDER BY image, name", names
    ):
        channels[row["image"]][row["name"]] = row["version"]
    return [
        ImageRow(row["name"], row["note"], row["created"], tuple(versions[row["name"]]), channels[row["name"]])
        for row in found
    ]


async def all_layers(connection: Connection, image: str | None = None) -> list[Layer]:
    """The layers that one image's versions are read from, or all layers, for a look at their files."""
    if image is None:
        return [rows.layer_of(row) for row in await connection.fetch("SELECT * FROM layers")]
    found = await connection.fetch(
        """
        WITH RECURSIVE used AS (
            SELECT l.* FROM layers l JOIN versions v ON v.layer = l.id WHERE v.image = $1
            UNION SELECT l.* FROM layers l JOIN used u ON u.below = l.id)
        SELECT * FROM used
        """,
        image,
    )
    return [rows.layer_of(row) for row in found]


async def set_fault(connection: Connection, layer: Layer, fault: Fault | None) -> None:
    """Record what is wrong with a layer's file, or that it is well again; all plans that name it follow."""
    await connection.execute("UPDATE layers SET fault = $2 WHERE id = $1", layer.id, fault)
    await outbox.recompile(connection, "all")
