"""The boot plan: the compiled answer to "what does this client boot?".

The registry compiles one plan per client and puts it, as JSON, into the JetStream key-value bucket `PLANS_BUCKET`
under the client's token; what many clients have in common lies there once (see `sharing`). dhcp, tftp and blockstore
hold all plans in memory. A plan is all that the boot path needs; whoever holds it asks nobody.

A plan either names disks and portals, or a `refusal`: why this client cannot boot now, and what to do. A client
without any plan is unknown to the registry.

Block stores tell where they can be reached in the bucket `NODES_BUCKET`, one `NodeInfo` per node, and the registry
compiles those portals into the plans.
"""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from bootlink_events.names import Mac

PLANS_BUCKET: Final = "bootlink_plans"
NODES_BUCKET: Final = "bootlink_nodes"
LEASES_BUCKET: Final = "bootlink_leases"
"""What the dhcp servers of one pool tell one another. Theirs alone; rebuilt from their journals."""

LayerFormat = Literal["raw", "vhd-fixed", "vhd-dynamic", "vhd-differencing", "vhdx", "vhdx-differencing"]
Policy = Literal["discard", "keep", "super"]
Chap = Literal["off", "one-way", "mutual"]
RefusalCause = Literal[
    "no_link", "image_missing", "no_blockstore", "disabled", "shared_spindle", "disk_full", "home_away"
]
StartMode = Literal["disk", "local", "shell", "kernel", "none"]


class _Plan(BaseModel):
    """Frozen, and lenient about fields it does not know: an older service must read a newer registry's plan."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class LayerPlan(_Plan):
    """One layer file, and what it must look like when it is opened (a layer never changes once published)."""

    id: str = Field(description="identity of the layer's contents; the block cache is keyed by it")
    path: str = Field(description="absolute path on the node that serves it")
    format: LayerFormat
    virtual_size: int = Field(ge=512, description="bytes the disk shows")
    file_size: int = Field(ge=0, description="bytes of the file when it was added")
    mtime_ns: int = Field(description="the file's modification time when it was added, in nanoseconds")


class DiskPlan(_Plan):
    """One disk of a client: the image's layers and what happens to what the client writes."""

    lun: int = Field(ge=0, le=255)
    image: str
    version: int = Field(ge=1)
    channel: str | None = Field(default=None, description="None where the link pins a version")
    content: str = Field(
        default="", description="identity of what the layers show; a merge changes the layers, and never this"
    )
    layers: tuple[LayerPlan, ...] = Field(min_length=1, description="top first, base last")
    policy: Policy = "discard"


class Start(_Plan):
    """How a PC starts, where that is more than attaching its disk and booting it."""

    mode: StartMode = Field(
        default="disk",
        description="local: what its own disk holds; shell: iPXE's command line; kernel: a Linux kernel and no disk. "
        "none is in no plan: a link of a further disk (LUN 1 and up) says by it that there is none",
    )
    file: str = Field(default="", description="the EFI program on the disk that UEFI starts; empty: its default")
    keep_san: bool = Field(
        default=False, description="where the disk does not boot, it stays attached for what the firmware boots next"
    )
    kernel: str = Field(default="", description="file of the loader folders, or an http URL")
    initrds: tuple[str, ...] = Field(default=(), max_length=8, description="such files, in their order")
    arguments: str = Field(default="", description="the kernel's command line; {mac} and other fields are filled in")


class MenuEntry(_Plan):
    """One thing that a PC's boot menu offers. Its disks take the place of those of the same LUN in the plan."""

    name: str = Field(description="how the choice travels in the boot chain; a name as clients have")
    title: str = Field(description="what the menu shows")
    disks: tuple[DiskPlan, ...] = Field(default=(), description="none where it starts otherwise than from a disk")
    start: Start | None = None


class Menu(_Plan):
    """A boot menu, shown before the disk is attached."""

    entries: tuple[MenuEntry, ...] = Field(min_length=1, max_length=16)
    default: str = Field(description="the name of the entry that is taken when nobody chooses")
    seconds: int = Field(ge=0, le=3600, description="until it is taken; 0: waits for ever")


class Refusal(_Plan):
    """Why a client cannot boot now. Shown on the PC's own screen."""

    cause: RefusalCause
    detail: str = Field(description="what is wrong")
    remedy: str = Field(description="what to do")


class DhcpOption(_Plan):
    """A DHCP option that an administrator set."""

    code: int = Field(ge=1, le=254)
    type: str = Field(description="how the value is to be read: address, addresses, text, byte, word, long, flag, ...")
    value: str = Field(description="as it was written, such as 10.77.0.5,10.77.0.6")


ARCHITECTURES: Final = frozenset(
    f"{kind}-{cpu}" for kind in ("uefi", "http") for cpu in ("ia32", "x64", "arm32", "arm64", "riscv64", "loong64")
) | {"bios", "http-bios"}
"""Names of firmware, as `LoaderRule.arch` and boot events have them: how it boots, and its processor."""


class LoaderRule(_Plan):
    """Which boot loaders a firmware is given. A field that is empty fits every firmware."""

    arch: str = Field(default="", description="the processor architecture, such as bios, uefi-x64 or http-x64")
    vendor_class: str = Field(default="", description="how the firmware's vendor class (option 60) begins")
    model: str = Field(default="", description="how the client's MAC address begins, which tells its maker")
    loaders: tuple[str, ...] = Field(min_length=1, description="file names; the first that works is sent")


class OwnFields(_Plan):
    """What a plan says of its client alone."""

    mac: Mac
    client: str = Field(description="the client's name, such as pc-007")
    group: str | None = None
    address: IPv4Address | None = Field(default=None, description="its reserved address, if it has one")
    revision: int = Field(ge=1, description="grows with every change of this plan")
    target: str = Field(description="IQN of the client's target")
    home: str | None = Field(
        default=None,
        description="the block store that holds what lasts of this client, and that alone may begin a boot of which "
        "something lasts; None: there is nothing",
    )


class SharedFields(_Plan):
    """What a plan says that is the same for many clients."""

    portals: tuple[str, ...] = Field(default=(), description="block stores that serve it, each host:port")
    disks: tuple[DiskPlan, ...] = ()
    menu: Menu | None = Field(default=None, description="what the PC may choose from; None: it boots its disks at once")
    chap: Chap = Field(default="off", description="whether a login must know the boot's secret, and proves it in turn")
    start: Start | None = Field(default=None, description="how it boots; None: from its disk")
    options: tuple[DhcpOption, ...] = Field(default=(), description="DHCP options of its group")
    loaders: tuple[LoaderRule, ...] = Field(
        default=(), description="loader rules of its group, which come before those of the dhcp service's settings"
    )
    refusal: Refusal | None = None


class BootPlan(OwnFields, SharedFields):
    """What one client boots. Its fields are those of the two above, and none of its own (see `sharing`)."""

    @property
    def bootable(self) -> bool:
        """True when nothing stands in the way of a boot."""
        if self.refusal is not None:
            return False
        return not from_disk(self.start) or (bool(self.disks) and bool(self.portals))

    def chosen(self, entry: str) -> BootPlan | None:
        """This plan with the disks of an entry of its menu; itself for "", and None if it has no such entry."""
        if not entry:
            return self
        for offered in self.menu.entries if self.menu else ():
            if offered.name == entry:
                disks = {disk.lun: disk for disk in (*self.disks, *offered.disks)}
                update = {"disks": tuple(disks[lun] for lun in sorted(disks)), "start": offered.start}
                return self.model_copy(update=update)
        return None


def from_disk(start: Start | None) -> bool:
    """Whether what starts so is on a disk of ours."""
    return start is None or start.mode == "disk"


class PhysicalDisk(_Plan):
    """A disk of a node, as its kernel tells."""

    name: str = Field(description="such as sda")
    rotational: bool
    model: str = ""


class Mount(_Plan):
    """A mounted file system of a node."""

    point: str = Field(description="absolute path that it is mounted on")
    disks: tuple[str, ...] = Field(
        description="physical disks behind it, through partitions, LVM and RAID; may be none"
    )


class Storage(_Plan):
    """Where a node keeps what."""

    writebacks: str = Field(description="absolute path of the folder that holds what clients write")
    mounts: tuple[Mount, ...]
    disks: tuple[PhysicalDisk, ...]

    def behind(self, path: str) -> frozenset[str]:
        """The names of the physical disks behind an absolute path; empty where they are not known."""
        best: Mount | None = None
        for mount in self.mounts:  # of two on one point, the later lies over the earlier
            inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
            if inside and (best is None or len(mount.point) >= len(best.point)):
                best = mount
        return frozenset(best.disks) if best is not None else frozenset()


class NodeInfo(_Plan):
    """A running block store and where clients reach it."""

    node: str
    portals: Annotated[tuple[str, ...], Field(min_length=1)]
    seen: datetime
    storage: Storage | None = Field(default=None, description="None where the node cannot tell")
    free: int | None = Field(default=None, ge=0, description="bytes that write-backs may still take; None: not told")
