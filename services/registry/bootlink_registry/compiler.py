"""The plan compiler: rows in, boot plan out. A pure function; it reads no file, no clock and no database.

A client's own link comes before its group's, and that before the default. Where something stands in the way of a
boot the plan carries a refusal, whose words reach the PC's own screen; the first that applies, in this order:
disabled, no_link, image_missing, no_blockstore. A refused plan names no disk, so that no block store serves it; only
`no_blockstore` leaves the disks in, as it passes by itself when a block store announces itself.
"""

from __future__ import annotations

from bootlink_events import BootPlan, DiskPlan, LayerPlan, Refusal, target_iqn
from bootlink_registry.catalogue import Catalogue, Client, Layer, Link


def resolve(catalogue: Catalogue, client: Client) -> Link | None:
    """The link that decides what this client boots; None if there is none."""
    links = catalogue.links
    own = links.get(("client", client.mac))
    if own is not None:
        return own
    of_group = links.get(("group", client.group)) if client.group is not None else None
    return of_group or links.get(("default", ""))


def version_of(catalogue: Catalogue, link: Link) -> int | None:
    """The version this link means now; None if its channel points nowhere."""
    if link.channel is None:
        return link.version
    return catalogue.channels.get((link.image, link.channel))


def compile_plan(catalogue: Catalogue, client: Client, *, revision: int = 1) -> BootPlan:
    """The boot plan of one client."""
    refusal, disks = _decide(catalogue, client)
    link = resolve(catalogue, client)
    return BootPlan(
        mac=client.mac,
        client=client.name,
        group=client.group,
        address=client.address,
        revision=revision,
        target=target_iqn(client.mac),
        portals=catalogue.portals,
        disks=disks,
        chap="off" if link is None else link.chap,
        refusal=refusal,
    )


def _decide(catalogue: Catalogue, client: Client) -> tuple[Refusal | None, tuple[DiskPlan, ...]]:
    if client.disabled:
        return _disabled(client), ()
    link = resolve(catalogue, client)
    if link is None:
        return _no_link(client), ()
    number = version_of(catalogue, link)
    version = catalogue.versions.get((link.image, number)) if number is not None else None
    chain = _chain(catalogue, version.layer) if version is not None else ()
    broken = next((layer for layer in chain if layer.fault is not None), None)
    if version is None or not chain or broken is not None:
        return _image_missing(link, broken), ()
    disk = DiskPlan(
        lun=0,
        image=link.image,
        version=version.number,
        channel=link.channel,
        content=version.content,
        layers=tuple(_layer_plan(layer) for layer in chain),
        policy=link.policy,
    )
    return (None if catalogue.portals else _no_blockstore()), (disk,)


def _chain(catalogue: Catalogue, top: str) -> tuple[Layer, ...]:
    """The layer and those below it, top first; empty if one of them is not known, or they go round in a circle."""
    chain: list[Layer] = []
    at: str | None = top
    while at is not None:
        layer = catalogue.layers.get(at)
        if layer is None or len(chain) > len(catalogue.layers):
            return ()
        chain.append(layer)
        at = layer.below
    return tuple(chain)


def _layer_plan(layer: Layer) -> LayerPlan:
    return LayerPlan(
        id=layer.id,
        path=layer.path,
        format=layer.format,
        virtual_size=layer.virtual_size,
        file_size=layer.file_size,
        mtime_ns=layer.mtime_ns,
    )


def _disabled(client: Client) -> Refusal:
    return Refusal(
        cause="disabled",
        detail=f"{client.name} is switched off in the registry",
        remedy=f"switch it on again: PATCH /v1/clients/{client.name} with disabled = false",
    )


def _no_link(client: Client) -> Refusal:
    group = f"its group {client.group} has none" if client.group else "it is in no group"
    return Refusal(
        cause="no_link",
        detail=f"{client.name} has no image link of its own, {group}, and there is no default link",
        remedy=f"bootlink link set {client.name} IMAGE; or for all PCs: bootlink link set --default IMAGE",
    )


def _image_missing(link: Link, broken: Layer | None) -> Refusal:
    if broken is None:
        wanted = link.channel or f"version {link.version}"
        return Refusal(
            cause="image_missing",
            detail=f"the link names {wanted} of image {link.image}, which is not there",
            remedy=f"bootlink image show {link.image} tells what there is; then set the link anew",
        )
    if broken.fault == "missing":
        return Refusal(
            cause="image_missing",
            detail=f"the file of image {link.image} is gone: {broken.path}",
            remedy="put the file back where it was, as it was",
        )
    if broken.fault == "corrupt":
        return Refusal(
            cause="image_missing",
            detail=f"the file of image {link.image} is damaged, by its checksum: {broken.path}",
            remedy="restore the file from a copy; `bootlink image verify` looks again",
        )
    return Refusal(
        cause="image_missing",
        detail=f"the file of image {link.image} was changed after it was added: {broken.path}",
        remedy="restore the file as it was; or add the changed file as another image and link that",
    )


def _no_blockstore() -> Refusal:
    return Refusal(
        cause="no_blockstore",
        detail="no block store has announced itself, so there is nothing to read the disk from",
        remedy="start the blockstore service; `bootlink status` shows whether it runs",
    )
