"""The plan compiler: rows in, boot plan out. A pure function; it reads no file, no clock and no database.

A client's own link comes before its group's, and that before the default, for each disk (logical unit) by itself: a
second disk that everybody has stays with a PC that boots an image of its own. The boot menu is that of the link that
decides what is booted; an entry whose image cannot be served is left out of it.

A link may start a PC from no disk of ours: from its own, in iPXE's shell, or with a kernel. It then has a disk to
attach only where its menu offers one, and no missing block store keeps it from what needs none.

A super client boots its branch, whatever its links say, and is shown no menu. A client's own layer lies upon the pinned
version of its link, as one layer more. Both have a content of their own, to which what they write is bound.

Where something stands in the way of a boot the plan carries a refusal, whose words reach the PC's own screen; the first
that applies, in this order: disabled, no_link, image_missing, no_blockstore, home_away, shared_spindle, disk_full. A
refused plan names no disk, so that no block store serves it; only `no_blockstore` and `disk_full` leave the disks in,
as they pass by themselves when a block store announces itself, or has room again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from bootlink_events import (
    NAME,
    BootPlan,
    DiskPlan,
    LayerPlan,
    Menu,
    MenuEntry,
    Policy,
    Refusal,
    Start,
    StartMode,
    from_disk,
    named,
    target_iqn,
)
from bootlink_registry.catalogue import (
    OWN_ENTRY,
    Branch,
    Catalogue,
    Choice,
    Client,
    GroupSettings,
    Layer,
    Link,
    Version,
)

BOOT_LUN = 0
DISKS_REMEMBERED: Final = 2_000  # thousands of clients share a few hundred disks; some KB each
# What a menu shows for a start without an image, where it was given no title.
TITLES: Final[Mapping[StartMode, str]] = {
    "local": "Own disk",
    "shell": "iPXE shell",
    "kernel": "Linux",
    "disk": "",
    "none": "",
}
MAKE_ROOM: Final = "free space where the block store keeps its data, or lower BOOTLINK_REGISTRY_BOOT_RESERVE"
_NO_LINKS: Mapping[int, Link] = {}
_GROUPLESS: Final = GroupSettings()


def disks_of(catalogue: Catalogue, client: Client) -> dict[int, Link]:
    """The links that decide what disks this client has, by logical unit and in their order."""
    links = catalogue.links
    of_group = links.get(("group", client.group), _NO_LINKS) if client.group is not None else _NO_LINKS
    found = {**links.get(("default", ""), _NO_LINKS), **of_group, **links.get(("client", client.mac), _NO_LINKS)}
    return {lun: found[lun] for lun in sorted(found) if not _no_disk(found[lun])}


def _no_disk(link: Link) -> bool:
    """Whether a link says that there is no such disk, where another link would give one."""
    return link.start is not None and link.start.mode == "none"


def resolve(catalogue: Catalogue, client: Client) -> Link | None:
    """The link that decides what this client boots; None if there is none."""
    return disks_of(catalogue, client).get(BOOT_LUN)


def version_of(catalogue: Catalogue, link: Link | Choice) -> int | None:
    """The version this link means now; None if its channel points nowhere."""
    if link.channel is None:
        return link.version
    return catalogue.channels.get((link.image, link.channel))


def compile_plan(catalogue: Catalogue, client: Client, *, revision: int = 1) -> BootPlan:
    """The boot plan of one client."""
    return whole_plan(own_fields(catalogue, client), shared_fields(catalogue, client), revision=revision)


def own_fields(catalogue: Catalogue, client: Client) -> dict[str, Any]:
    """Of the boot plan of one client what no other has: OwnFields but the revision, by name."""
    return {
        "mac": client.mac,
        "client": client.name,
        "group": client.group,
        "address": client.address,
        "target": target_iqn(client.mac),
        "home": catalogue.homes.get(client.mac),
    }


def shared_fields(catalogue: Catalogue, client: Client) -> dict[str, Any]:
    """Of the boot plan of one client what others may have as well: SharedFields by name. No model, as ten thousand of
    them are made to be compared, and a few to be kept."""
    links = disks_of(catalogue, client)
    link = links.get(BOOT_LUN)
    start = _start(catalogue, client, link)
    refusal, disks, menu = _decide(catalogue, client, links)
    portals = _fit_portals(catalogue, disks, menu)
    home = catalogue.homes.get(client.mac) if _lasts(disks, menu) else None
    if home is not None:
        at_home = catalogue.nodes.get(home, ())
        portals = tuple(portal for portal in portals if portal in at_home)
        if refusal is None and not at_home:
            refusal, disks, menu = _home_away(client, home) if from_disk(start) else None, (), None
    if refusal is None and not portals:
        refusal = _shared_spindle(disks) if from_disk(start) else None
        disks, menu = (), None  # of a menu that hangs on no disk, what is left is the link itself
    elif refusal is None and catalogue.full:
        roomy = tuple(portal for portal in portals if portal not in catalogue.full)
        if roomy:
            portals = roomy
        elif from_disk(start):
            refusal = _disk_full(catalogue, portals)
        else:
            disks, menu = (), None
    settings = _GROUPLESS if client.group is None else catalogue.groups.get(client.group, _GROUPLESS)
    return {
        "portals": portals,
        "disks": disks,
        "menu": menu,
        "chap": "off" if link is None else link.chap,
        "start": start,
        "options": settings.options,
        "loaders": settings.loaders,
        "refusal": refusal,
    }


def whole_plan(own: Mapping[str, Any], shared: Mapping[str, Any], *, revision: int = 1) -> BootPlan:
    """The boot plan of these two."""
    refusal = shared["refusal"]
    told = named(refusal, own["client"]) if refusal is not None else None
    return BootPlan(**own, **{**shared, "refusal": told}, revision=revision)


def nobody(group: str | None) -> Client:
    """A client of this group that has nothing of its own."""
    return Client(mac="", name="", group=group)


Decision = tuple[Refusal | None, tuple[DiskPlan, ...], Menu | None]


def _decide(catalogue: Catalogue, client: Client, links: Mapping[int, Link]) -> Decision:
    if client.disabled:
        return _disabled(), (), None
    branch = catalogue.branches.get(client.mac)
    boots: Link | Branch | None = branch or links.get(BOOT_LUN)
    if boots is None:
        return _no_link(client), (), None
    if isinstance(boots, Link) and not from_disk(boots.start):
        return None, (), _menu(catalogue, client, boots, None)
    disks = []
    for lun, link in {**links, BOOT_LUN: boots}.items():
        disk = _disk(catalogue, client, link, lun)
        if isinstance(disk, Refusal):
            return disk, (), None
        disks.append(disk)
    disks.sort(key=lambda disk: disk.lun)
    menu = _menu(catalogue, client, boots, disks[0]) if isinstance(boots, Link) else None
    return None if catalogue.portals else _no_blockstore(), tuple(disks), menu


def _start(catalogue: Catalogue, client: Client, link: Link | None) -> Start | None:
    """How this client starts. A super client starts from its branch's disk, which its link may say how to boot."""
    if link is None or (client.mac in catalogue.branches and not from_disk(link.start)):
        return None
    return link.start


def _disk(catalogue: Catalogue, client: Client, link: Link | Choice | Branch, lun: int) -> DiskPlan | Refusal:
    """The disk that this link names; or why it cannot be served."""
    number = link.base if isinstance(link, Branch) else version_of(catalogue, link)
    version = catalogue.versions.get((link.image, number)) if number is not None else None
    if version is None:
        return _image_missing(link, None)
    top, content = version.layer, version.content
    if isinstance(link, Branch):
        content = link.content
    elif isinstance(link, Link) and link.own_layer:
        own = catalogue.own_layers.get((client.mac, lun))
        if own is not None and (own.image, own.version) == (version.image, version.number):
            top, content = own.layer or top, own.content
    chain = chain_of(catalogue.layers, top)
    broken = next((layer for layer in chain if layer.fault is not None), None)
    if not chain or broken is not None:
        return _image_missing(link, broken)
    channel = None if isinstance(link, Branch) else link.channel
    return _disk_plan(lun, version, channel, content, chain, "super" if isinstance(link, Branch) else link.policy)


@lru_cache(DISKS_REMEMBERED)
def _disk_plan(
    lun: int, version: Version, channel: str | None, content: str, chain: tuple[Layer, ...], policy: Policy
) -> DiskPlan:
    return DiskPlan(
        lun=lun,
        image=version.image,
        version=version.number,
        channel=channel,
        content=content,
        layers=tuple(layer_plan(layer) for layer in chain),
        policy=policy,
    )


def _menu(catalogue: Catalogue, client: Client, link: Link, own: DiskPlan | None) -> Menu | None:
    """The boot menu of this link; None where it offers nothing else. `own`: what the link itself boots, if a disk."""
    choices = catalogue.choices.get((link.scope, link.key))
    if not choices:
        return None
    entries = [_entry(OWN_ENTRY, link, own)]
    for choice in choices:
        if not from_disk(choice.start):
            entries.append(_entry(choice.name, choice, None))
            continue
        disk = _disk(catalogue, client, choice, BOOT_LUN)
        if not isinstance(disk, Refusal):
            entries.append(_entry(choice.name, choice, disk))
    if len(entries) == 1:
        return None
    known = any(entry.name == link.menu_default for entry in entries)
    default = link.menu_default if known else OWN_ENTRY
    return Menu(entries=tuple(entries), default=default, seconds=link.menu_seconds)


def _entry(name: str, link: Link | Choice, disk: DiskPlan | None) -> MenuEntry:
    usual = link.image if link.image or link.start is None else TITLES[link.start.mode]
    return MenuEntry(name=name, title=link.title or usual, disks=(disk,) if disk is not None else (), start=link.start)


def _fit_portals(catalogue: Catalogue, disks: tuple[DiskPlan, ...], menu: Menu | None) -> tuple[str, ...]:
    """The portals that may serve all of these layers."""
    if not catalogue.unfit:
        return catalogue.portals
    offered = [disk for entry in menu.entries for disk in entry.disks] if menu is not None else []
    layers = {layer.id for disk in (*disks, *offered) for layer in disk.layers}
    bad = frozenset().union(*(catalogue.unfit.get(layer, frozenset()) for layer in layers))
    return tuple(portal for portal in catalogue.portals if portal not in bad)


def _lasts(disks: tuple[DiskPlan, ...], menu: Menu | None) -> bool:
    """Whether something of what the client writes outlives its boot, whatever it chooses."""
    offered = [disk for entry in menu.entries for disk in entry.disks] if menu is not None else []
    return any(disk.policy != "discard" for disk in (*disks, *offered))


def chain_of(layers: Mapping[str, Layer], top: str) -> tuple[Layer, ...]:
    """The layer and those below it, top first; empty if one of them is not known, or they go round in a circle."""
    chain: list[Layer] = []
    at: str | None = top
    while at is not None:
        layer = layers.get(at)
        if layer is None or len(chain) > len(layers):
            return ()
        chain.append(layer)
        at = layer.below
    return tuple(chain)


def layer_plan(layer: Layer) -> LayerPlan:
    """A layer as plans name it."""
    return LayerPlan(
        id=layer.id,
        path=layer.path,
        format=layer.format,
        virtual_size=layer.virtual_size,
        file_size=layer.file_size,
        mtime_ns=layer.mtime_ns,
    )


def _disabled() -> Refusal:
    return Refusal(
        cause="disabled",
        detail=f"{NAME} is switched off in the registry",
        remedy=f"switch it on again: bootlink client enable {NAME}",
    )


def _no_link(client: Client) -> Refusal:
    group = f"its group {client.group} has none" if client.group else "it is in no group"
    return Refusal(
        cause="no_link",
        detail=f"{NAME} has no image link of its own, {group}, and there is no default link",
        remedy=f"bootlink link set {NAME} IMAGE; or for all PCs: bootlink link set --default IMAGE",
    )


def _image_missing(link: Link | Choice | Branch, broken: Layer | None) -> Refusal:
    if broken is None:
        wanted = f"version {link.base}" if isinstance(link, Branch) else link.channel or f"version {link.version}"
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


def _home_away(client: Client, home: str) -> Refusal:
    return Refusal(
        cause="home_away",
        detail=f"what {client.name} keeps lies on block store {home}, which is silent",
        remedy=f"start blockstore on {home}; if what lies there is lost: bootlink client leave-node {client.name}",
    )


def _shared_spindle(disks: tuple[DiskPlan, ...]) -> Refusal:
    names = " and ".join(dict.fromkeys(disk.image for disk in disks))
    return Refusal(
        cause="shared_spindle",
        detail=f"each block store keeps image {names} and its write-backs on one rotating disk",
        remedy="move one of them to another disk (bootlink status names it), or set BOOTLINK_REGISTRY_SPINDLE=warn",
    )


def _disk_full(catalogue: Catalogue, portals: tuple[str, ...]) -> Refusal:
    left = ", ".join(dict.fromkeys(catalogue.full[portal] for portal in portals))
    return Refusal(
        cause="disk_full",
        detail=f"there is no room for what this PC would write: block store {left}",
        remedy=MAKE_ROOM,
    )
