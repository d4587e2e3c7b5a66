"""Rebasing: a client begins an empty layer of its own upon another version of the image.

What it had over the former version cannot be carried to another one (see `own_layers`). It is held for UNDO_TIME, its
layer file and its write-back, and the same command takes the rebase back until then.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

from bootlink_registry import links, removal
from bootlink_registry.catalogue import Client
from bootlink_registry.database import Connection
from bootlink_registry.links import NamedLink
from bootlink_registry.own_layers import OwnLayerRow, find_own_layer, get_own_layer, mib, on_lun, pin
from bootlink_registry.problems import Problem, conflict, invalid
from bootlink_registry.versions import lock_image, version_named
from bootlink_registry.writebacks import drop_later, keep_after_all

UNDO_TIME: Final = timedelta(days=7)  # what a rebase replaced is held: until somebody has used the PC and missed it


async def rebase(
    connection: Connection,
    client: Client,
    lun: int,
    *,
    channel: str | None,
    version: int | None,
    undo: bool,
    accept_loss: bool,
    unsealed: int,
    author: str,
    source: str,
) -> NamedLink:
    """Have a client begin an empty layer of its own upon another version of the image; or, with `undo`, take the last
    rebase back. Raises Problem: unless `accept_loss`, where something would be lost, which it names.

    `unsealed`: bytes of the own layer that are in a write-back.
    """
    own = await get_own_layer(connection, client, lun)
    await lock_image(connection, own.image)
    await links.lock(connection, "client", client.mac)
    await connection.execute("SELECT FROM own_layers WHERE mac = $1 AND lun = $2 FOR UPDATE", client.mac, lun)
    if undo and (channel is not None or version is not None):
        raise invalid("to undo a rebase needs no version", "leave it out")
    own = await get_own_layer(connection, client, lun)
    link = await links.find_link(connection, "client", client.mac, lun)
    if link is None or not link.link.own_layer or link.link.image != own.image:
        raise conflict(
            f"the link of {client.name} names no layer of its own{on_lun(lun)}",
            f"set it first: bootlink link set {client.name} {own.image} --own-layer",
        )
    await _require_no_job(connection, own.image)
    if undo:
        if own.former_content is None:
            raise conflict(
                f"{client.name} has not been rebased, or longer ago than what there was is held",
                f"it is held for {UNDO_TIME.days} days",
            )
        return await _take_back(connection, own, link, author=author, source=source)
    number = await version_named(connection, own.image, channel=channel, version=version)
    if (own.layer is not None or unsealed) and not accept_loss:
        raise _loses(client, own, unsealed, number)
    return await _begin(connection, own, link, number, author=author, source=source)


def _loses(client: Client, own: OwnLayerRow, unsealed: int, version: int) -> Problem:
    parts = []
    if own.sealed is not None and own.sealed_at is not None:
        parts.append(f"{mib(own.sealed)} sealed on {own.sealed_at:%Y-%m-%d}")
    if unsealed:
        parts.append(f"{mib(unsealed)} written since")
    return conflict(
        f"{client.name} would lose what it has of its own over version {own.version} of image {own.image} "
        f"({', '.join(parts)}): blocks of a file system cannot be carried to version {version}",
        f"say that this is meant (--yes); it is held for {UNDO_TIME.days} days, and --undo takes it back",
    )


async def _require_no_job(connection: Connection, image: str) -> None:
    job = await connection.fetchval(
        "SELECT id FROM jobs WHERE exclusive = $1 AND state IN ('queued', 'running')", f"image:{image}"
    )
    if job is not None:
        raise conflict(f"job {job} works on image {image}", f"wait for it, or cancel it: bootlink job cancel {job}")


async def _begin(
    connection: Connection, own: OwnLayerRow, link: NamedLink, version: int, *, author: str, source: str
) -> NamedLink:
    if own.former is not None:  # of a rebase before, which cannot be taken back any more
        await drop_later(connection, own.former)
    await connection.execute(
        """
        UPDATE own_layers SET version = $3, layer = NULL, content = $4, former_version = version, former_layer = layer,
            former_content = content, changed = now()
        WHERE mac = $1 AND lun = $2
        """,
        *(own.mac, own.lun, version, uuid.uuid4()),
    )
    await drop_later(connection, own.written, due=datetime.now(UTC) + UNDO_TIME)
    await removal.settle_layers(connection)
    return await _follow(connection, own, link, author=author, source=source)


async def _take_back(
    connection: Connection, own: OwnLayerRow, link: NamedLink, *, author: str, source: str
) -> NamedLink:
    assert own.former_content is not None
    await connection.execute(
        """
        UPDATE own_layers SET version = former_version, layer = former_layer, content = former_content,
            former_version = version, former_layer = layer, former_content = content, changed = now()
        WHERE mac = $1 AND lun = $2
        """,
        *(own.mac, own.lun),
    )
    await keep_after_all(connection, own.former_content)
    await drop_later(connection, own.written, due=datetime.now(UTC) + UNDO_TIME)
    return await _follow(connection, own, link, author=author, source=source)


async def _follow(connection: Connection, own: OwnLayerRow, link: NamedLink, *, author: str, source: str) -> NamedLink:
    """Have the link pin the own layer's version. An empty layer is to be written, so its policy is `keep`."""
    now = await find_own_layer(connection, own.mac, own.lun)
    assert now is not None
    policy = link.link.policy if now.layer is not None else "keep"
    return await pin(connection, now, policy, link.link.chap, link.link.start, author=author, source=source)
