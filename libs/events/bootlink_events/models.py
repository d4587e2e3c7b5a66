"""What happened, as data: one frozen model per event.

Every model is additive for ever: a field may be added with a default, none is renamed, retyped or removed. Readers
ignore fields they do not know. The table that says which subject each travels on is in `subjects`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import IPv4Address
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from bootlink_events.bootid import BootId
from bootlink_events.names import Mac
from bootlink_events.plans import Chap, DhcpOption, LoaderRule, Policy, Start

InitiatorKind = Literal["firmware", "os"]
Lun = Annotated[int, Field(ge=0, le=255)]


class EventData(BaseModel):
    """The data of one event."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Stage(EventData):
    """A stage of a client's boot, with its own beginning and end."""

    mac: Mac
    client: str | None = Field(default=None, description="the client's name; null while it is unknown")
    boot_id: BootId
    started: AwareDatetime
    ended: AwareDatetime

    @property
    def duration(self) -> timedelta:
        return self.ended - self.started


class BootStarted(Stage):
    """A PC asked for an address and a boot file: a boot begins."""

    arch: str = Field(description="client architecture, option 93 (RFC 4578), such as bios or uefi-x64")
    firmware: str = Field(description="what asked: PXE, iPXE or HTTP")
    vendor_class: str = Field(default="", description="option 60 as it was sent")


class BootAddressed(Stage):
    """A DHCP exchange of this boot is complete, from DISCOVER to ACK."""

    pass_: Literal["firmware", "ipxe"] = Field(alias="pass", description="whose exchange: the firmware's or iPXE's")
    address: IPv4Address
    boot_file: str


class BootLoaderSent(Stage):
    """The boot loader reached the PC."""

    file: str
    bytes: int
    peer: str


class BootLoaderChanged(EventData):
    """A PC is given another boot loader from this boot on: with the former one, boot after boot never asked for its
    script."""

    mac: Mac
    client: str | None = Field(default=None, description="the client's name; null while it is unknown")
    boot_id: BootId
    former: str = Field(description="the loader's file name")
    loader: str
    boots: int = Field(description="how many boots in a row the former one was given to")
    at: datetime


class BootScriptServed(Stage):
    """The client's script reached the PC: it boots (its disk, or what its link names instead), or shows a screen."""

    kind: Literal["sanboot", "local", "shell", "kernel", "screen"]
    menu: bool = Field(default=False, description="true where it asks first which image to boot, and may wait for ever")
    cause: str | None = Field(default=None, description="why a screen was shown")
    peer: str


class BootDiskAttached(Stage):
    """A login to the client's disk reached full-feature phase."""

    initiator: InitiatorKind
    lun: Lun
    image: str
    version: int
    policy: Policy
    session: str
    peer: str


class DiskIo(Stage):
    """What a session to the client's disk read and wrote so far."""

    initiator: InitiatorKind
    lun: Lun
    session: str
    reads: int
    bytes_read: int
    writes: int
    bytes_written: int
    first_read: AwareDatetime | None = None
    last_io: AwareDatetime | None = None


class BootDiskUsed(DiskIo):
    """A session fell silent for the first time: what it needed to get so far. `started` is its login."""


class BootDiskDetached(DiskIo):
    """A session to the client's disk ended; `started` is its login. Carries all that it read and wrote."""

    reason: str


class BootHello(Stage):
    """The operating system says that it is up. `started` is when its kernel began, where it told that."""

    system: str = Field(default="", description="as it calls itself, such as Debian GNU/Linux 12; it may say anything")
    peer: str


class BootFailed(Stage):
    """A boot cannot go on; says where and why, and what to do."""

    stage: Literal["dhcp", "loader", "script", "disk"]
    cause: str
    remedy: str


class ClientSeen(EventData):
    """A PC asked that the registry does not know."""

    mac: Mac
    boot_id: BootId
    address: IPv4Address | None = None
    arch: str = ""
    vendor_class: str = ""


class DhcpForeignServer(EventData):
    """Another server answers DHCP or PXE on the PCs' network: it is new, or gives something that it did not before."""

    server: IPv4Address = Field(description="its server identifier, option 54")
    server_mac: str | None = Field(default=None, description="of the card that sent its answer, where one was seen")
    interface: str = Field(description="our network card that heard it")
    addresses: bool = Field(description="whether it gives out addresses")
    boot_files: bool = Field(description="whether it tells PCs what to boot")
    boot_file: str = ""
    client_mac: str = Field(default="", description="the PC that it answered")
    expected: bool = Field(description="whether it belongs there: the other server of a proxy, or a known one")
    at: datetime


class DhcpLoaderMissing(EventData):
    """A boot loader that rules ask for cannot be sent: it is not there, or starts no such PC. They get the next one."""

    loader: str
    group: str | None = Field(default=None, description="whose rule asks for it; none: the settings'")
    arch: str = Field(default="", description="the firmware that the rule is for; empty: any")
    reason: str
    remedy: str
    at: datetime


class DhcpAddressTaken(EventData):
    """A host answers for addresses of the pool that it was not given: it was found so, or answers for more than before;
    or a PC that was given one found that another host has it, and declined it.

    One address is a host whose address was set by hand. Many are one that answers ARP for whatever is asked (proxy ARP,
    a broken bridge): new PCs get no address at all.
    """

    mac: str | None = Field(default=None, description="of the host; none where a relay agent, or the PC, is between us")
    address: IPv4Address = Field(description="one that it answers for")
    addresses: int = Field(description="how many of those that were asked about")
    everything: bool = Field(description="whether it answers for whatever is asked")
    remedy: str
    at: datetime


class Writeback(EventData):
    """Something in the life of one client's write-back."""

    mac: Mac
    client: str | None = None
    boot_id: BootId = Field(description="the boot that wrote it")
    lun: Lun
    bytes: int = Field(description="bytes it takes on disk")


class WritebackDiscarded(Writeback):
    """A newer boot took over: what the former boot wrote is gone for the client."""


class WritebackKept(Writeback):
    """A boot ended whose write-back survives it."""


class WritebackRestored(Writeback):
    """A discarded write-back came back: this boot goes on with it."""

    written_by: BootId = Field(description="the boot that had it before")


class WritebackPressure(Writeback):
    """A write-back nears its limit, or its disk is nearly full."""

    limit: int = Field(description="bytes that the client may write; 0: it is the disk that is nearly full")
    percent: int | None = Field(default=None, description="of the limit, reached just now; at 100 writes are refused")
    free: int | None = Field(default=None, description="bytes left on the disk, where that is what is nearly full")


class WritebackCommitted(Writeback):
    """A write-back became a version of an image."""

    image: str
    version: int


class WritebackLeft(Writeback):
    """A write-back of which a layer was made was written to since, so it was not thrown away.

    Its client was started before its new boot plan had reached the block store. What it holds lies on no branch or own
    layer any more; it may become a version, or be thrown away.
    """

    image: str
    version: int = Field(description="the version that it lies upon")


class ClientChanged(EventData):
    """A client was added, enrolled itself, was changed or was removed."""

    mac: Mac
    client: str = Field(description="its name; where it was removed, the name it had")
    change: Literal["added", "enrolled", "changed", "removed"]
    former: str | None = Field(default=None, description="the name it had until now, where it was given another")
    group: str | None = None
    address: IPv4Address | None = Field(default=None, description="the address reserved for it")
    disabled: bool = False
    note: str = ""
    author: str = Field(default="", description="who did it: the name of an API token; empty where it enrolled itself")
    at: datetime


class GroupChanged(EventData):
    """What the clients of a group are told over DHCP has changed."""

    group: str
    options: tuple[DhcpOption, ...] = Field(default=(), description="the DHCP options it has now")
    loaders: tuple[LoaderRule, ...] = Field(default=(), description="the loader rules it has now")
    author: str = Field(default="", description="who did it: the name of an API token")
    at: datetime


class LinkChanged(EventData):
    """What a client, a group or everyone else boots has changed."""

    scope: Literal["client", "group", "default"]
    name: str = Field(default="", description="the client or group; empty for the default")
    image: str = Field(description="empty where the link names none: it boots no disk of ours")
    channel: str | None = None
    version: int | None = Field(default=None, description="a pinned version, where the link names one")
    start: Start | None = Field(default=None, description="how it boots; null: from its disk")
    policy: Policy
    chap: Chap = Field(default="off", description="whether the disk asks for CHAP")
    lun: Lun = Field(default=0, description="which of the disks; 0 is what is booted")
    menu: tuple[str, ...] = Field(default=(), description="what its boot menu offers beside the link itself, by name")
    own_layer: bool = Field(default=False, description="whether a layer of the client's own lies over the version")
    removed: bool = Field(
        default=False, description="true where the link was taken away; the other fields tell what it was"
    )
    author: str = Field(default="", description="who did it: the name of an API token")
    at: datetime


class BranchChanged(EventData):
    """A client became a super client, is upon another version, or is none any more."""

    mac: Mac
    client: str
    image: str
    base: int = Field(description="the version that it writes upon")
    became: Literal["opened", "moved", "committed", "abandoned"] = Field(
        description="moved: it goes on upon the version that was made of what it wrote; committed and abandoned: it is "
        "over"
    )
    author: str = ""
    at: datetime


class ImagePublished(EventData):
    """A channel of an image points at a version."""

    image: str
    version: int
    channel: str
    at: datetime
    former: int | None = Field(default=None, description="the version that it pointed at until now")
    from_boot: BootId | None = Field(default=None, description="the boot that wrote the version, where one did")
    rollback: bool = Field(default=False, description="whether it was taken back, and not published anew")
    author: str = Field(default="", description="who did it: the name of an API token")


class ImageVersionAdded(EventData):
    """An image has a new version. No client boots it until it is published, or a link names it."""

    image: str
    version: int
    parent: int | None = Field(default=None, description="the version that it was made from")
    note: str = ""
    author: str = ""
    from_boot: BootId | None = Field(default=None, description="the boot that wrote it, where it was committed")
    virtual_size: int = Field(description="bytes the disk shows")
    file_size: int = Field(description="bytes of its layer's file")
    at: datetime


class ImageChanged(EventData):
    """Something of an image or of a version has changed that changes no byte of what PCs see."""

    image: str
    version: int | None = Field(default=None, description="null where it is the image itself")
    what: Literal["note", "layers", "channel_removed"] = Field(
        description="layers: the version is read from other files from now on, which show the same"
    )
    channel: str | None = Field(default=None, description="the channel that was removed")
    author: str = ""
    at: datetime


class ImageRemoved(EventData):
    """An image, or one version of it, is gone."""

    image: str
    version: int | None = Field(default=None, description="null where the whole image was removed")
    author: str = ""
    at: datetime


class TokenChanged(EventData):
    """An API token was made or taken away. The token itself is told in no event."""

    name: str
    role: Literal["viewer", "operator", "admin"]
    change: Literal["added", "removed"]
    expires: datetime | None = None
    author: str = Field(default="", description="who did it: the name of an API token")
    at: datetime


class WebhookChanged(EventData):
    """A webhook was added, changed, switched on or off, or removed. Its URL and its secret are told in no event."""

    name: str
    change: Literal["added", "changed", "removed", "secret_replaced", "switched_on", "switched_off"]
    problem: str = Field(default="", description="why it was switched off, where nobody did that")
    author: str = Field(default="", description="who did it: the name of an API token")
    at: AwareDatetime


class JobChanged(EventData):
    """Long work was asked for, has begun, or is over."""

    id: UUID
    kind: str = Field(description="such as image.import")
    subject: str = Field(description="whom it is about: an image, a client")
    author: str = ""
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    attempt: int = Field(default=0, description="more than 1: the registry was restarted in between")
    problem: str | None = Field(default=None, description="why it failed")
    remedy: str | None = Field(default=None, description="what to do about that")
    at: datetime


class JobProgress(EventData):
    """How far a running job is: told now and then, and not told again where it was lost."""

    id: UUID
    kind: str
    subject: str
    stage: str = Field(default="", description="what it is doing just now")
    done: int = Field(description="of `total`, mostly in bytes")
    total: int | None = None


class SpindleShared(EventData):
    """Images and write-backs of a node lie on one rotating disk, where each slows the other down."""

    node: str
    disk: str = Field(description="the disk's name on that node, such as sda")
    model: str = ""
    writebacks: str = Field(description="folder of the write-backs")
    files: tuple[str, ...] = Field(description="files of images on that disk, the first of them")
    count: int = Field(description="how many files of images there are on it")
    refused: bool = Field(description="whether clients are kept from booting from them")
    at: datetime
