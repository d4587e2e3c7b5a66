"""Removing images and versions: refused while something needs them, by name.

What needs an image: links and menu entries, super clients and own layers, what one of them wrote and was left, versions
of other images that stand on its layers, and a job that works on it. What needs one version: channels, what pins it,
and versions that stand on its layer. A version that was only made from it does not: where a merge has put another layer
under that, the removed version's own parent takes its place in the history.

Files. One that was added in place is the user's: its row goes, and the file stays. One in the image store is retired:
PCs that run may still read it (see `store`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg

from bootlink_events import ImageRemoved
from bootlink_registry import outbox
from bootlink_registry.database import Connection
from bootlink_registry.problems import conflict, listed
from bootlink_registry.versions import lock_image, require_image, require_version

_NEEDED_BY = """
    SELECT 'the link of ' || CASE l.scope WHEN 'default' THEN 'everybody' WHEN 'group' THEN 'group ' || l.key
        ELSE coalesce(c.name, l.key) END AS what
    FROM links l LEFT JOIN clients c ON c.mac = l.mac WHERE l.image = $1 AND ($2::integer IS NULL OR l.version = $2)
    UNION SELECT 'the boot menu of ' || CASE scope WHEN 'default' THEN 'everybody' WHEN 'group' THEN 'group ' || key
        ELSE coalesce((SELECT name FROM clients WHERE mac = key), key) END
    FROM choices WHERE image = $1 AND ($2::integer IS NULL OR version = $2)
    UNION SELECT 'super client ' || c.name FROM branches b JOIN clients c ON c.mac = b.mac
    WHERE b.image = $1 AND ($2::integer IS NULL OR b.base = $2)
    UNION SELECT 'the own layer of ' || c.name FROM own_layers o JOIN clients c ON c.mac = o.mac
    WHERE o.image = $1 AND ($2::integer IS NULL OR o.version = $2 OR o.former_version = $2)
    UNION SELECT 'what ' || coalesce(c.name, d.mac) || ' wrote in boot ' || d.left_boot || ', which was left'
    FROM dropped_writebacks d LEFT JOIN clients c ON c.mac = d.mac
    WHERE d.left_boot IS NOT NULL AND d.image = $1 AND ($2::integer IS NULL OR d.version = $2)
    UNION SELECT 'channel ' || name FROM channels WHERE image = $1 AND version = $2
    ORDER BY 1
"""

# Versions that are not among those to be removed, and read from their layers.
_STANDING_ON = """
    WITH RECURSIVE above AS (
        SELECT layer AS id FROM versions WHERE image = $1 AND ($2::integer IS NULL OR number = $2)
        UNION SELECT l.id FROM layers l JOIN above a ON l.below = a.id)
    SELECT v.image, v.number FROM versions v JOIN above a ON a.id = v.layer
    WHERE NOT (v.image = $1 AND ($2::integer IS NULL OR v.number = $2))
    ORDER BY v.image, v.number
"""


async def remove_image(connection: Connection, *, image: str, author: str = "", source: str) -> None:
    """Remove an image with its versions and channels. Raises Problem."""
    await lock_image(connection, image)
    await require_image(connection, image)
    await _require_unneeded(connection, image, None)
    await connection.execute("DELETE FROM channels WHERE image = $1", image)
    with _alone(image):
        await connection.execute("DELETE FROM versions WHERE image = $1", image)
        await connection.execute("DELETE FROM images WHERE name = $1", image)
        await settle_layers(connection)
    await _tell(connection, image, None, author, source)


async def remove_version(connection: Connection, *, image: str, version: int, author: str = "", source: str) -> None:
    """Remove one version, but not the only one. Raises Problem."""
    await lock_image(connection, image)
    await require_version(connection, image, version)
    await _require_unneeded(connection, image, version)
    if await connection.fetchval("SELECT count(*) FROM versions WHERE image = $1", image) == 1:
        raise conflict(
            f"version {version} is the only one of image {image}", f"remove the image: bootlink image remove {image}"
        )
    await connection.execute(
        """
        UPDATE versions SET parent = (SELECT parent FROM versions WHERE image = $1 AND number = $2)
        WHERE image = $1 AND parent = $2
        """,
        *(image, version),
    )
    await connection.execute("UPDATE channels SET former = NULL WHERE image = $1 AND former = $2", image, version)
    with _alone(image):
        await connection.execute("DELETE FROM versions WHERE image = $1 AND number = $2", image, version)
        await settle_layers(connection)
    await _tell(connection, image, version, author, source)


async def settle_layers(connection: Connection) -> None:
    """Retire the image store's layers that no version is read from any more, and forget those that are the user's."""
    await connection.execute(
        """
        WITH RECURSIVE used AS (
            SELECT layer AS id FROM versions UNION SELECT layer FROM own_layers WHERE layer IS NOT NULL
            UNION SELECT former_layer FROM own_layers WHERE former_layer IS NOT NULL
            UNION SELECT layer FROM dropped_writebacks WHERE layer IS NOT NULL
            UNION SELECT l.below FROM layers l JOIN used u ON u.id = l.id WHERE l.below IS NOT NULL)
        UPDATE layers SET retired = CASE WHEN EXISTS (SELECT FROM used WHERE used.id = layers.id) THEN NULL
            ELSE now() END
        WHERE owned AND (retired IS NULL) <> EXISTS (SELECT FROM used WHERE used.id = layers.id)
        """
    )
    while True:
        # A layer at a time from the top: the one below may be free after it.
        done = await connection.execute(
            """
            DELETE FROM layers WHERE NOT owned
                AND NOT EXISTS (SELECT FROM versions v WHERE v.layer = layers.id)
                AND NOT EXISTS (SELECT FROM own_layers o WHERE layers.id IN (o.layer, o.former_layer))
                AND NOT EXISTS (SELECT FROM dropped_writebacks d WHERE d.layer = layers.id)
                AND NOT EXISTS (SELECT FROM layers upper WHERE upper.below = layers.id)
            """
        )
        if done == "DELETE 0":
            return


async def _require_unneeded(connection: Connection, image: str, version: int | None) -> None:
    what = f"image {image}" if version is None else f"version {version} of image {image}"
    needed = [row["what"] for row in await connection.fetch(_NEEDED_BY, image, version)]
    if needed:
        raise conflict(
            f"{what} is needed by {listed(needed, len(needed))}",
            "set or remove what needs it first; bootlink link list and bootlink image show tell more",
        )
    standing = [_named(row) for row in await connection.fetch(_STANDING_ON, image, version)]
    if standing:
        first = standing[0]
        raise conflict(
            f"{listed(standing, len(standing))} stands on {what}",
            f"merge it into a disk of its own first: bootlink image merge {first}; or remove it",
        )
    job = await connection.fetchval(
        "SELECT id FROM jobs WHERE exclusive = $1 AND state IN ('queued', 'running')", f"image:{image}"
    )
    if job is not None:
        raise conflict(f"job {job} works on image {image}", f"wait for it, or cancel it: bootlink job cancel {job}")


def _named(row: Any) -> str:
    return f"{row['image']}:{row['number']}"


@contextlib.contextmanager
def _alone(image: str) -> Iterator[None]:
    """Problem, instead of a violated foreign key, where somebody began to need it in this very moment."""
    try:
        yield
    except asyncpg.ForeignKeyViolationError as error:
        raise conflict(
            f"something was linked to image {image}, or made upon it, just now",
            "look with bootlink link list and bootlink image list, then repeat",
        ) from error


async def _tell(connection: Connection, image: str, version: int | None, author: str, source: str) -> None:
    event = ImageRemoved(image=image, version=version, author=author, at=datetime.now(UTC))
    await outbox.record(connection, event, source=source)
