"""Own layers: what one client has of its own over a pinned version of an image, and keeps across reboots.

Theory of operation. While the link's policy is `keep`, what the client writes goes into its own layer: the write-back,
which is bound to the own layer's content. When the policy is set to `discard`, the layer is *sealed*: a job makes a
layer file of the write-back, as a commit does (see `commits`), and from then on the client boots the version with that
layer over it, fresh each time. Set to `keep` again, it goes on above what was sealed; sealed again, that is one more.

The content changes with each seal, so no write-back is ever put on what it was not written upon. What a client writes
that is started just as its layer is sealed, upon the former content, is left where it is (see `writebacks`).

A layer holds blocks, and what they mean depends on all the blocks of the version below. So it cannot be carried to
another version: a rebase begins an empty one there (see `rebasing`).

A link that is set without an own layer leaves it alone; it is there again when a link asks for it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bootlink_events import Chap, LayerPlan, Policy, Start
from bootlink_registry import images, jobs, links, removal, writebacks
from bootlink_registry.adding import CHAIN_LIMIT
from bootlink_registry.catalogue import Client
from bootlink_registry.clients import find_client
from bootlink_registry.database import Connection
from bootlink_registry.exports import export, layers_below
from bootlink_registry.homes import home_of
from bootlink_registry.jobs import JobKind, Work
from bootlink_registry.links import NamedLink
from bootlink_registry.problems import conflict, not_found
from bootlink_registry.versions import lock_image, version_named
from bootlink_registry.writebacks import Held, Written, drop_later, holds_all

_FOUND: Final = """
    SELECT o.*, l.disk_usage AS sealed, l.created AS sealed_at, v.layer AS of_version,
        (SELECT due FROM dropped_writebacks d WHERE d.content = o.former_content) AS undo_until
    FROM own_layers o JOIN versions v ON v.image = o.image AND v.number = o.version
        LEFT JOIN layers l ON l.id = o.layer
    WHERE o.mac = $1 AND o.lun = $2
"""


@dataclass(frozen=True, slots=True)
class OwnLayerRow:
    """An own layer, and what it was before it was rebased."""

    mac: str
    lun: int
    image: str
    version: int
    layer: uuid.UUID | None  # None while nothing was sealed
    content: uuid.UUID
    of_version: uuid.UUID  # the layer that the version is read from
    sealed: int | None  # bytes that the sealed layer takes
    sealed_at: datetime | None
    former_version: int | None
    former_layer: uuid.UUID | None
    former_content: uuid.UUID | None
    undo_until: datetime | None
    created: datetime

    @classmethod
    def of(cls, row: Any) -> OwnLayerRow:
        return cls(*(row[name] for name in cls.__slots__))

    @property
    def top(self) -> uuid.UUID:
        """The layer that the client reads first."""
        return self.layer or self.of_version

    @property
    def written(self) -> Written:
        """What was kept in it and not sealed."""
        return Written(self.mac, self.lun, self.content, self.image, self.version, self.layer)

    @property
    def former(self) -> Written | None:
        """What was kept in it before it was rebased."""
        if self.former_content is None or self.former_version is None:
            return None
        return Written(self.mac, self.lun, self.former_content, self.image, self.former_version, self.former_layer)


async def find_own_layer(connection: Connection, mac: str, lun: int) -> OwnLayerRow | None:
    row = await connection.fetchrow(_FOUND, mac, lun)
    return OwnLayerRow.of(row) if row else None


async def get_own_layer(connection: Connection, client: Client, lun: int) -> OwnLayerRow:
    """Raises Problem if this client has none on this disk."""
    own = await find_own_layer(connection, client.mac, lun)
    if own is None:
        raise not_found(
            f"{client.name} has no layer of its own{on_lun(lun)}",
            f"give it one: bootlink link set {client.name} IMAGE --own-layer",
        )
    return own


def on_lun(lun: int) -> str:
    """Which of the disks, where it is not the one that is booted."""
    return f" on LUN {lun}" if lun else ""


# -- setting the link -----------------------------------------------------------------------------------------------


async def put_link(
    connection: Connection,
    *,
    name: str,
    lun: int,
    image: str,
    channel: str | None,
    version: int | None,
    policy: Policy,
    chap: Chap,
    start: Start | None,
    author: str,
    source: str,
) -> NamedLink | uuid.UUID:
    """Link a client to a version with a layer of its own over it. Raises Problem.

    Names neither channel nor version: the version that its own layer lies on, or what `production` shows now. The id of
    a job where the own layer is to be sealed first; the link is set at its end.
    """
    client = (await find_client(connection, name)).client
    await links.lock(connection, "client", client.mac)
    own = await find_own_layer(connection, client.mac, lun)
    if own is not None and own.image == image and channel is None and version is None:
        version = own.version
    version = await version_named(connection, image, channel=channel, version=version)
    if own is not None and (own.image, own.version) != (image, version):
        raise conflict(
            f"{client.name} has a layer of its own over version {own.version} of image {own.image}{on_lun(lun)}, and "
            f"that cannot be carried to version {version} of {image}",
            f"begin an empty one there: bootlink link rebase {client.name} --version {version}"
            if own.image == image
            else f"throw it away first: bootlink link drop-own-layer {client.name}",
        )
    former = await links.find_link(connection, "client", client.mac, lun)
    if own is not None and former is not None and former.link.own_layer:
        if (former.link.policy, policy) == ("keep", "discard"):
            return await _submit_seal(connection, client, own, chap, start, author=author, source=source)
    elif own is None:
        await connection.execute(
            "INSERT INTO own_layers (mac, lun, image, version, content) VALUES ($1, $2, $3, $4, $5)",
            *(client.mac, lun, image, version, uuid.uuid4()),
        )
    return await links.put_link(
        connection,
        scope="client",
        name=client.mac,
        lun=lun,
        image=image,
        channel=None,
        version=version,
        policy=policy,
        chap=chap,
        own_layer=True,
        start=start,
        author=author,
        source=source,
    )


# -- sealing --------------------------------------------------------------------------------------------------------


async def _submit_seal(
    connection: Connection,
    client: Client,
    own: OwnLayerRow,
    chap: Chap,
    start: Start | None,
    *,
    author: str,
    source: str,
) -> uuid.UUID:
    return await jobs.submit(
        connection,
        kind=SEAL.name,
        subject=client.name,
        exclusive=f"image:{own.image}",
        request={
            "mac": own.mac,
            "lun": own.lun,
            "chap": chap,
            "start": start.model_dump(mode="json") if start is not None else None,
        },
        author=author,
        source=source,
    )


@dataclass(frozen=True, slots=True)
class _Sealing:
    client: Client
    own: OwnLayerRow
    held: Held | None  # None where nothing was written
    below: tuple[LayerPlan, ...]


async def _seal(work: Work) -> dict[str, Any]:
    await work.progress(0, None, "looking for what was written")
    sealing = await _look(work)
    info = made = None
    if sealing.held is not None:
        writebacks.require_off([sealing.held], sealing.client.name, "what it writes meanwhile would be lost")
        info, made = await export(
            work, sealing.held, image=sealing.own.image, parent=sealing.below, content=str(sealing.own.content)
        )
        now = await _look(work)
        if now.held is None or now.held.item.state == "in_use" or not holds_all(made, now.held.item):
            raise conflict(
                f"{sealing.client.name} was started while its own layer was sealed, and nothing was changed",
                "shut it down, then set the link again",
            )
    async with work.database.transaction() as connection:
        own, client = sealing.own, sealing.client
        await lock_image(connection, own.image)
        await links.lock(connection, "client", own.mac)
        now_own = await find_own_layer(connection, own.mac, own.lun)
        link = await links.find_link(connection, "client", own.mac, own.lun)
        if now_own is None or now_own.content != own.content or link is None or not link.link.own_layer:
            raise conflict(f"the link of {client.name} was changed meanwhile", "look at it, then set it again")
        if info is not None and made is not None:
            if now_own.top != own.top:
                raise conflict(f"version {own.version} of image {own.image} was merged meanwhile", "set the link again")
            below = None if made.whole else own.top
            layer = await images.add_layer(connection, info, layer=work.id, below=below, sha256=made.sha256, owned=True)
            await connection.execute(
                "UPDATE own_layers SET layer = $3, content = $4, changed = now() WHERE mac = $1 AND lun = $2",
                *(own.mac, own.lun, layer, uuid.uuid4()),
            )
            await drop_later(connection, own.written, made=made)
        wanted = work.request.get("start")
        start = Start.model_validate(wanted) if wanted is not None else None
        await pin(connection, own, "discard", work.request["chap"], start, author=work.author, source=work.source)
        result = {
            "client": client.name,
            "image": own.image,
            "version": own.version,
            "file": made.path if made else None,
            "size": made.file_size if made else 0,
        }
        await work.finish(connection, result)
    return result


SEAL: Final = JobKind("link.seal", _seal)


async def _look(work: Work) -> _Sealing:
    mac, lun = work.request["mac"], work.request["lun"]
    async with work.database.transaction() as connection:
        client = (await find_client(connection, mac)).client
        own = await get_own_layer(connection, client, lun)
        below = await layers_below(connection, own.top)
        home = await home_of(connection, mac)
    if len(below) >= CHAIN_LIMIT:
        raise conflict(
            f"{client.name} reads from {len(below)} layers, and {CHAIN_LIMIT} is the most",
            f"merge those of the version first: bootlink image merge {own.image}:{own.version}",
        )
    found = await writebacks.held_of(work.bus, mac, home=home)
    held = [one for one in found if one.item.content == str(own.content)]
    kept = [one for one in held if one.item.lun == lun and one.item.policy == "keep"]
    return _Sealing(client, own, kept[0] if kept else None, below)


async def pin(
    connection: Connection,
    own: OwnLayerRow,
    policy: Policy,
    chap: Chap,
    start: Start | None,
    *,
    author: str,
    source: str,
) -> NamedLink:
    """Have the client's link name its own layer, over the version that this lies on."""
    return await links.put_link(
        connection,
        scope="client",
        name=own.mac,
        lun=own.lun,
        image=own.image,
        channel=None,
        version=own.version,
        policy=policy,
        chap=chap,
        own_layer=True,
        start=start,
        author=author,
        source=source,
    )


# -- throwing it away -----------------------------------------------------------------------------------------------


def written(own: OwnLayerRow, held: list[Held]) -> int:
    """Bytes of an own layer that were kept and not sealed."""
    return sum(
        one.item.bytes
        for one in held
        if one.item.lun == own.lun and one.item.policy == "keep" and one.item.content == str(own.content)
    )


def mib(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**20:.1f} MiB"


async def drop(connection: Connection, client: Client, lun: int, *, accept_loss: bool, unsealed: int) -> None:
    """Throw a client's own layer away that no link names. Raises Problem."""
    await links.lock(connection, "client", client.mac)
    own = await get_own_layer(connection, client, lun)
    link = await links.find_link(connection, "client", client.mac, lun)
    if link is not None and link.link.own_layer:
        raise conflict(
            f"the link of {client.name} names its own layer{on_lun(lun)}",
            f"set it without first: bootlink link set {client.name} {own.image}",
        )
    if (own.layer is not None or unsealed) and not accept_loss:
        raise conflict(
            f"{client.name} has {mib((own.sealed or 0) + unsealed)} of its own over version {own.version} of image "
            f"{own.image}",
            "say that throwing them away is meant (--yes); there is no undo",
        )
    await connection.execute("DELETE FROM own_layers WHERE mac = $1 AND lun = $2", own.mac, own.lun)
    for written in (own.written, own.former):
        if written is not None:
            await drop_later(connection, written)
    await removal.settle_layers(connection)
