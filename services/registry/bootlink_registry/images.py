"""Images as they are told, and how a file becomes one: added in place, it stays where it is and is never written."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from bootlink_registry import outbox, rows, versions
from bootlink_registry.catalogue import DEFAULT_CHANNEL, Fault, Layer, Version
from bootlink_registry.database import Connection
from bootlink_registry.problems import conflict

VERSIONS_SHOWN: Final = 20  # of one image, newest first; all of them are in its log


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version, the layer that it is read from, and what is told about them."""

    version: Version
    layer: Layer
    depth: int  # layers that it is read from, with those below
    fault: Fault | None  # of the first of them that has one
    channels: tuple[str, ...]  # that point at it
    disk_usage: int  # bytes that the layer's file occupies
    sha256: str | None  # of the layer's file; None until it was computed
    owned: bool  # the file lies in the image store, and is ours to remove
    note: str
    author: str
    from_boot: uuid.UUID | None  # the boot that wrote it, where it was committed
    created: datetime


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image with its newest versions, newest first, and its channels."""

    name: str
    note: str
    created: datetime
    versions: tuple[VersionRow, ...]
    channels: dict[str, int]


async def require_free_name(connection: Connection, name: str) -> None:
    """Raise Problem if there is an image of this name."""
    if await connection.fetchval("SELECT true FROM images WHERE name = $1", name):
        raise conflict(
            f"there is an image {name} already",
            f"choose another name, or make it a new version of that image: --new-version; bootlink image show {name}",
        )


async def add_image(
    connection: Connection, *, name: str, layer: uuid.UUID, note: str = "", author: str = "", source: str
) -> ImageRow:
    """Make an image of a recorded layer: its version 1, and its channel `production`. Raises Problem."""
    await versions.lock_image(connection, name)
    await require_free_name(connection, name)
    await connection.execute("INSERT INTO images (name, note) VALUES ($1, $2)", name, note)
    number = await versions.add_version(
        connection, image=name, layer=layer, parent=None, note=note, author=author, source=source
    )
    await versions.publish(
        connection, image=name, channel=DEFAULT_CHANNEL, version=number, author=author, source=source
    )
    return await get_image(connection, name)


class LayerFile(Protocol):
    """What is known of a file that is to be a layer: as it was probed, or as it was written."""

    @property
    def path(self) -> Path: ...
    @property
    def format(self) -> str: ...
    @property
    def virtual_size(self) -> int: ...
    @property
    def file_size(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def disk_usage(self) -> int: ...


async def add_layer(
    connection: Connection,
    file: LayerFile,
    *,
    layer: uuid.UUID | None = None,
    below: uuid.UUID | None = None,
    sha256: str | None = None,
    owned: bool = False,
) -> uuid.UUID:
    """Record a file as a layer; its id."""
    layer = layer or uuid.uuid4()
    await connection.execute(
        """
        INSERT INTO layers
            (id, below, path, format, virtual_size, file_size, mtime_ns, disk_usage, sha256, owned)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        *(layer, below, str(file.path), file.format, file.virtual_size),
        *(file.file_size, file.mtime_ns, file.disk_usage, sha256, owned),
    )
    return layer


async def stack_of(connection: Connection, image: str, number: int) -> tuple[Layer, ...]:
    """The layers that a version is read from, top first. Raises Problem."""
    await versions.require_version(connection, image, number)
    found = await connection.fetch(
        """
        WITH RECURSIVE stack AS (
            SELECT l.*, 1 AS depth FROM layers l JOIN versions v ON v.layer = l.id WHERE v.image = $1 AND v.number = $2
            UNION ALL SELECT l.*, s.depth + 1 FROM layers l JOIN stack s ON s.below = l.id)
        SELECT * FROM stack ORDER BY depth
        """,
        *(image, number),
    )
    return tuple(rows.layer_of(row) for row in found)


async def get_image(connection: Connection, name: str) -> ImageRow:
    """One image. Raises Problem."""
    await versions.require_image(connection, name)
    return (await _images(connection, await connection.fetch("SELECT * FROM images WHERE name = $1", name)))[0]


async def list_images(connection: Connection, *, after: str, limit: int) -> list[ImageRow]:
    """Images by name, after the given one."""
    return await _images(
        connection, await connection.fetch("SELECT * FROM images WHERE name > $1 ORDER BY name LIMIT $2", after, limit)
    )


async def get_version(connection: Connection, image: str, number: int) -> VersionRow:
    """One version. Raises Problem."""
    await versions.require_version(connection, image, number)
    return (await _versions(connection, [image], number=number))[0]


async def list_versions(connection: Connection, image: str, *, before: int | None, limit: int) -> list[VersionRow]:
    """The versions of one image, newest first, below the given number. Raises Problem."""
    await versions.require_image(connection, image)
    return await _versions(connection, [image], before=before, limit=limit)


async def _images(connection: Connection, found: list[Any]) -> list[ImageRow]:
    """Images with their versions and channels, from rows of `images`."""
    names = [row["name"] for row in found]
    newest = await _versions(connection, names, limit=VERSIONS_SHOWN)
    channels: dict[str, dict[str, int]] = {name: {} for name in names}
    for row in await connection.fetch(
        "SELECT image, name, version FROM channels WHERE image = ANY($1::text[]) ORDER BY image, name", names
    ):
        channels[row["image"]][row["name"]] = row["version"]
    of_image: dict[str, list[VersionRow]] = {name: [] for name in names}
    for version in newest:
        of_image[version.version.image].append(version)
    return [
        ImageRow(row["name"], row["note"], row["created"], tuple(of_image[row["name"]]), channels[row["name"]])
        for row in found
    ]


async def _versions(
    connection: Connection,
    images: list[str],
    *,
    number: int | None = None,
    before: int | None = None,
    limit: int = 1,
) -> list[VersionRow]:
    """At most `limit` versions of each image: of this number, or below that, or all; by image, newest first."""
    found = await connection.fetch(
        """
        WITH placed AS (
            SELECT v.*, row_number() OVER (PARTITION BY image ORDER BY number DESC) AS place FROM versions v
            WHERE image = ANY($1::text[]) AND ($2::integer IS NULL OR number = $2)
                AND ($3::integer IS NULL OR number < $3))
        SELECT l.*, v.image, v.number, v.parent, v.content, v.layer, v.note, v.author, v.from_boot, v.created AS made,
            ARRAY(SELECT name FROM channels c WHERE c.image = v.image AND c.version = v.number ORDER BY name)
                AS channels
        FROM placed v JOIN layers l ON l.id = v.layer
        WHERE v.place <= $4 ORDER BY v.image, v.number DESC
        """,
        *(images, number, before, limit),
    )
    chains = await _chains(connection, [row["layer"] for row in found])
    return [
        VersionRow(
            version=rows.version_of(row),
            layer=rows.layer_of(row),
            depth=chains[row["layer"]][0],
            fault=chains[row["layer"]][1],
            channels=tuple(row["channels"]),
            created=row["made"],
            **{name: row[name] for name in ("disk_usage", "sha256", "owned", "note", "author", "from_boot")},
        )
        for row in found
    ]


async def _chains(connection: Connection, tops: list[Any]) -> dict[Any, tuple[int, Fault | None]]:
    """Of each layer: how many it is read from, with those below, and the first fault among them, from the top."""
    found = {
        row["id"]: (row["below"], row["fault"])
        for row in await connection.fetch(
            """
            WITH RECURSIVE used AS (
                SELECT id, below, fault FROM layers WHERE id = ANY($1::uuid[])
                UNION SELECT l.id, l.below, l.fault FROM layers l JOIN used u ON u.below = l.id)
            SELECT * FROM used
            """,
            tops,
        )
    }
    chains: dict[Any, tuple[int, Fault | None]] = {None: (0, None)}
    for top in tops:
        path = []
        while top not in chains:
            path.append(top)
            top = found[top][0]
        depth, fault = chains[top]
        for layer in reversed(path):
            depth, fault = depth + 1, found[layer][1] or fault
            chains[layer] = (depth, fault)
    return chains


async def all_layers(connection: Connection, image: str | None = None) -> list[Layer]:
    """The layers that one image's versions are read from, or all that any is, for a look at their files."""
    if image is None:
        found = await connection.fetch("SELECT * FROM layers WHERE retired IS NULL")
        return [rows.layer_of(row) for row in found]
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
