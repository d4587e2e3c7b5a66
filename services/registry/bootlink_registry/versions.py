"""Versions and channels: what is added to an image, and which of it the channels show.

A version never changes; a channel is a name that points at one. Publishing moves the channel: the plans of all who
are linked to it name the version from then on, so that they boot it at their next boot, and nobody's running disk
changes. A rollback is a publish of what the channel pointed at before. The number of a version is given once, also
when the version is removed again.

All changes of one image happen one after the other, under an advisory lock that is taken before the first write, so
that the events are in the order of the changes (see `links`).
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from bootlink_events import BootId, ImageChanged, ImagePublished, ImageVersionAdded
from bootlink_registry import locks, outbox
from bootlink_registry.catalogue import DEFAULT_CHANNEL
from bootlink_registry.database import Connection
from bootlink_registry.problems import Problem, conflict, invalid, listed, not_found


async def lock_image(connection: Connection, image: str) -> None:
    """One change of an image after the other, until the end of this transaction. Take it before the first write."""
    await connection.execute(locks.PAIR, locks.Kind.IMAGE, image)


async def require_image(connection: Connection, image: str) -> None:
    """Raise Problem, with the names there are, unless there is this image."""
    if await connection.fetchval("SELECT true FROM images WHERE name = $1", image):
        return
    names = [row["name"] for row in await connection.fetch("SELECT name FROM images ORDER BY name LIMIT 10")]
    total = await connection.fetchval("SELECT count(*) FROM images")
    raise not_found(
        f"there is no image {image!r}; there are: {listed(names, total)}",
        f"correct the name, or add the image: bootlink image add {image} FILE",
    )


async def require_version(connection: Connection, image: str, number: int) -> None:
    """Raise Problem, with the numbers there are, unless the image has this version."""
    numbers = await numbers_of(connection, image)
    if number not in numbers:
        raise not_found(
            f"image {image} has no version {number}; there are: {listed(map(str, numbers), len(numbers))}",
            f"name a version that it has; bootlink image log {image} tells them",
        )


async def numbers_of(connection: Connection, image: str) -> list[int]:
    """The versions of an image, newest first. Raises Problem."""
    await require_image(connection, image)
    found = await connection.fetch("SELECT number FROM versions WHERE image = $1 ORDER BY number DESC", image)
    return [row["number"] for row in found]


async def version_named(connection: Connection, image: str, *, channel: str | None, version: int | None) -> int:
    """The version meant by a channel or a number; by neither: the channel `production`. Raises Problem."""
    if version is not None:
        if channel is not None:
            raise invalid("a channel and a version are named", "name one of them")
        await require_version(connection, image, version)
        return version
    return (await _channel(connection, image, channel or DEFAULT_CHANNEL))[0]


async def add_version(
    connection: Connection,
    *,
    image: str,
    layer: uuid.UUID,
    parent: int | None,
    note: str = "",
    author: str = "",
    from_boot: uuid.UUID | None = None,
    content: uuid.UUID | None = None,
    source: str,
) -> int:
    """Make a recorded layer the next version of an image; its number. No channel moves. Raises Problem.

    `content` is given where the layer shows what another one has shown, as a client's own; it is new otherwise.
    """
    await lock_image(connection, image)
    await require_image(connection, image)
    number: int = await connection.fetchval(
        "UPDATE images SET numbered = numbered + 1 WHERE name = $1 RETURNING numbered", image
    )
    await connection.execute(
        """
        INSERT INTO versions (image, number, parent, content, layer, note, author, from_boot)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        *(image, number, parent, content or uuid.uuid4(), layer, note, author, from_boot),
    )
    facts = await connection.fetchrow("SELECT virtual_size, file_size FROM layers WHERE id = $1", layer)
    event = ImageVersionAdded(
        image=image,
        version=number,
        parent=parent,
        note=note,
        author=author,
        from_boot=BootId(int=from_boot.int) if from_boot is not None else None,
        virtual_size=facts["virtual_size"],
        file_size=facts["file_size"],
        at=datetime.now(UTC),
    )
    await outbox.record(connection, event, source=source)
    return number


async def publish(
    connection: Connection, *, image: str, channel: str, version: int, author: str = "", source: str
) -> None:
    """Point a channel at a version, for the next boots; a channel that is not there is made. Raises Problem.

    Pointing it where it points already changes nothing and tells nobody.
    """
    await lock_image(connection, image)
    await require_version(connection, image, version)
    await _require_sound(connection, image, version)
    former = await connection.fetchval("SELECT version FROM channels WHERE image = $1 AND name = $2", image, channel)
    if former == version:
        return
    if channel.isdigit():
        raise invalid(f"{channel} reads as a version's number", "give the channel a name with a letter in it")
    await _point(connection, image, channel, version, former=former, rollback=False, author=author, source=source)


async def rollback(
    connection: Connection, *, image: str, channel: str, version: int | None = None, author: str = "", source: str
) -> int:
    """Point a channel at the version that it pointed at before, or at `version`; that version. Raises Problem.

    Done twice, it undoes itself.
    """
    await lock_image(connection, image)
    now, before = await _channel(connection, image, channel)
    wanted = version if version is not None else before
    if wanted is None:
        raise conflict(
            f"channel {channel} of image {image} has pointed at nothing but version {now}",
            f"name the version to go to: bootlink image rollback {image} --channel {channel} --to N",
        )
    await require_version(connection, image, wanted)
    await _require_sound(connection, image, wanted)
    if wanted != now:
        await _point(connection, image, channel, wanted, former=now, rollback=True, author=author, source=source)
    return wanted


async def remove_channel(connection: Connection, *, image: str, channel: str, author: str = "", source: str) -> None:
    """Take a channel away that no link names. Raises Problem."""
    await lock_image(connection, image)
    await _channel(connection, image, channel)
    users = await connection.fetchval(
        """
        SELECT (SELECT count(*) FROM links WHERE image = $1 AND channel = $2)
            + (SELECT count(*) FROM choices WHERE image = $1 AND channel = $2)
        """,
        *(image, channel),
    )
    if users:
        raise conflict(
            f"{users} link{'s' if users > 1 else ''} or menu entries name channel {channel} of image {image}",
            "set them to another channel first; bootlink link list shows them",
        )
    await connection.execute("DELETE FROM channels WHERE image = $1 AND name = $2", image, channel)
    await _changed(connection, image, None, "channel_removed", channel=channel, author=author, source=source)


async def set_note(
    connection: Connection, *, image: str, version: int | None, note: str, author: str = "", source: str
) -> None:
    """Write a new note on a version, or on the image itself. Raises Problem."""
    await lock_image(connection, image)
    if version is None:
        await require_image(connection, image)
        await connection.execute("UPDATE images SET note = $2 WHERE name = $1", image, note)
    else:
        await require_version(connection, image, version)
        await connection.execute("UPDATE versions SET note = $3 WHERE image = $1 AND number = $2", image, version, note)
    await _changed(connection, image, version, "note", author=author, source=source)


async def put_layer(
    connection: Connection, *, image: str, version: int, layer: uuid.UUID, author: str = "", source: str
) -> None:
    """Have a version read from another layer, which shows the same. Its `content` stays. Raises Problem."""
    await lock_image(connection, image)
    await require_version(connection, image, version)
    await connection.execute("UPDATE versions SET layer = $3 WHERE image = $1 AND number = $2", image, version, layer)
    await recompile_users(connection, image)
    await _changed(connection, image, version, "layers", author=author, source=source)


async def recompile_users(connection: Connection, image: str, channel: str | None = None) -> None:
    """Have the plans compiled anew of all who are linked to an image, or to one channel of it."""
    found = await connection.fetch(
        """
        SELECT scope, key FROM links WHERE image = $1 AND ($2::text IS NULL OR channel = $2)
        UNION SELECT scope, key FROM choices WHERE image = $1 AND ($2::text IS NULL OR channel = $2)
        UNION SELECT 'client', mac FROM branches WHERE image = $1 AND $2::text IS NULL
        UNION SELECT 'client', mac FROM own_layers WHERE image = $1 AND $2::text IS NULL
        """,
        *(image, channel),
    )
    if any(row["scope"] == "default" for row in found):
        await outbox.recompile(connection, "all")
        return
    for row in found:
        await outbox.recompile(connection, row["scope"], row["key"])


async def _channel(connection: Connection, image: str, channel: str) -> tuple[int, int | None]:
    """Where a channel points, and where it pointed before. Raises Problem."""
    await require_image(connection, image)
    row = await connection.fetchrow(
        "SELECT version, former FROM channels WHERE image = $1 AND name = $2", image, channel
    )
    if row is None:
        found = await connection.fetch("SELECT name FROM channels WHERE image = $1 ORDER BY name", image)
        raise not_found(
            f"image {image} has no channel {channel}; there are: {listed((r['name'] for r in found), len(found))}",
            "name a channel that it has, or make it with a publish",
        )
    return row["version"], row["former"]


async def _require_sound(connection: Connection, image: str, version: int) -> None:
    """Raise Problem if something is known to be wrong with one of the files that the version is read from."""
    row = await connection.fetchrow(
        """
        WITH RECURSIVE used AS (
            SELECT l.* FROM layers l JOIN versions v ON v.layer = l.id WHERE v.image = $1 AND v.number = $2
            UNION SELECT l.* FROM layers l JOIN used u ON u.below = l.id)
        SELECT path, fault FROM used WHERE fault IS NOT NULL LIMIT 1
        """,
        *(image, version),
    )
    if row is not None:
        raise unusable(image, version, row["path"], row["fault"])


def unusable(image: str, version: int, path: str, fault: str) -> Problem:
    """What is said of a version whose file is not what it was."""
    wrong = {
        "missing": "is gone",
        "changed": "was changed after it was added",
        "corrupt": "is damaged, by its checksum",
    }
    return conflict(
        f"version {version} of image {image} cannot be used: its file {path} {wrong[fault]}",
        "restore the file as it was; or choose another version",
    )


async def _point(
    connection: Connection,
    image: str,
    channel: str,
    version: int,
    *,
    former: int | None,
    rollback: bool,
    author: str,
    source: str,
) -> None:
    await connection.execute(
        """
        INSERT INTO channels (image, name, version) VALUES ($1, $2, $3)
        ON CONFLICT (image, name) DO UPDATE SET version = excluded.version, former = $4, changed = now()
        """,
        *(image, channel, version, former),
    )
    await recompile_users(connection, image, channel)
    wrote = await connection.fetchval(
        "SELECT from_boot FROM versions WHERE image = $1 AND number = $2", *(image, version)
    )
    event = ImagePublished(
        image=image,
        version=version,
        channel=channel,
        at=datetime.now(UTC),
        former=former,
        from_boot=BootId(int=wrote.int) if wrote is not None else None,
        rollback=rollback,
        author=author,
    )
    await outbox.record(connection, event, source=source)


async def _changed(
    connection: Connection,
    image: str,
    version: int | None,
    what: str,
    *,
    channel: str | None = None,
    author: str,
    source: str,
) -> None:
    event = ImageChanged.model_validate(
        {
            "image": image,
            "version": version,
            "what": what,
            "channel": channel,
            "author": author,
            "at": datetime.now(UTC),
        }
    )
    await outbox.record(connection, event, source=source)
