"""What the API answers and takes."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address
from typing import Annotated, Any, Generic, Literal, Self, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from bootlink_events import BootPlan, Chap, DiskPlan, LayerFormat, Mac, Policy, Refusal
from bootlink_registry.catalogue import Fault, Link, Scope
from bootlink_registry.clients import ClientRow
from bootlink_registry.images import ImageRow, VersionRow
from bootlink_registry.journal import BootRow, StageRow
from bootlink_registry.links import NamedLink
from bootlink_registry.names import Name, check_name

NOTE_LIMIT = 1_000  # characters
PATH_LIMIT = 4_096  # bytes, PATH_MAX of Linux

LinkPolicy = Literal["discard", "keep"]
"""What a link may ask for; `super` is a client's own state, and no link's."""

T = TypeVar("T")


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Wish(BaseModel):
    """The body of a request. A field that we do not know is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid")


class ProblemAnswer(Answer):
    """What is wrong with a request, and what to do (RFC 9457, with `remedy` as an extension)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="what is wrong")
    remedy: str = Field(description="what to do")


def _a_pcs(address: IPv4Address) -> IPv4Address:
    if address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved:
        raise ValueError(f"{address} is no address that a PC can have")
    return address


ClientAddress = Annotated[IPv4Address, AfterValidator(_a_pcs)]


class Page(Answer, Generic[T]):
    """A part of a listing; `next`, where there is more, is the `after` (for boots: `before`) of the next part."""

    items: list[T]
    next: str | None = None


# -- images ---------------------------------------------------------------------------------------------------------


class NewImage(Wish):
    name: Name
    path: str = Field(max_length=PATH_LIMIT, description="absolute path of the disk image on the registry's machine")
    note: str = Field(default="", max_length=NOTE_LIMIT)

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"{path!r} is no absolute path")
        return path

    @field_validator("note")
    @classmethod
    def _storable(cls, note: str) -> str:
        if "\0" in note:
            raise ValueError("a note cannot hold a NUL character")
        return note


class VersionAnswer(Answer):
    number: int
    parent: int | None = Field(description="the version that it was made from")
    layer: UUID = Field(description="the layer that it is read from")
    below: UUID | None = Field(description="the layer below that; null if it is a whole disk")
    path: str
    format: LayerFormat
    virtual_size: int = Field(description="bytes the disk shows")
    file_size: int = Field(description="bytes of the file")
    disk_usage: int = Field(description="bytes that the file occupies; less than its size where it is sparse")
    sha256: str | None = Field(description="of the file; null until it was computed")
    fault: Fault | None = Field(description="what is wrong with the file; null if nothing")
    note: str
    author: str
    created: datetime

    @classmethod
    def of(cls, row: VersionRow) -> VersionAnswer:
        version, layer = row.version, row.layer
        return cls(
            number=version.number,
            parent=version.parent,
            layer=UUID(layer.id),
            below=UUID(layer.below) if layer.below else None,
            path=layer.path,
            format=layer.format,
            virtual_size=layer.virtual_size,
            file_size=layer.file_size,
            disk_usage=row.disk_usage,
            sha256=row.sha256,
            fault=layer.fault,
            note=row.note,
            author=row.author,
            created=row.created,
        )


class ImageAnswer(Answer):
    name: str
    note: str
    created: datetime
    channels: dict[str, int] = Field(description="each channel and the version it points at")
    versions: list[VersionAnswer] = Field(description="newest first")

    @classmethod
    def of(cls, row: ImageRow) -> ImageAnswer:
        return cls(
            name=row.name,
            note=row.note,
            created=row.created,
            channels=row.channels,
            versions=[VersionAnswer.of(version) for version in row.versions],
        )


# -- links ----------------------------------------------------------------------------------------------------------


class NewLink(Wish):
    scope: Scope
    name: str = Field(default="", description="the client (name or MAC address) or the group; empty for the default")
    image: Name
    channel: Name | None = Field(default=None, description="default: production")
    version: int | None = Field(default=None, ge=1, le=2**31 - 1, description="a pinned version, instead of a channel")
    policy: LinkPolicy = "discard"
    chap: Chap = Field(
        default="off", description="whether the disk asks for the boot's CHAP secret, and proves its own"
    )

    @model_validator(mode="after")
    def _names_a_group(self) -> Self:
        if self.scope == "group" and self.name:
            check_name(self.name)
        return self


class LinkAnswer(Answer):
    scope: Scope
    name: str = Field(description="the client's or group's name; empty for the default")
    image: str
    channel: str | None
    version: int | None
    policy: Policy
    chap: Chap
    changed: datetime

    @classmethod
    def of(cls, named: NamedLink) -> LinkAnswer:
        link = named.link
        return cls(
            scope=link.scope,
            name=named.name,
            image=link.image,
            channel=link.channel,
            version=link.version,
            policy=link.policy,
            chap=link.chap,
            changed=named.changed,
        )


# -- clients --------------------------------------------------------------------------------------------------------


class NewClient(Wish):
    mac: Mac
    name: Name | None = Field(
        default=None, description="default: the next free name of the enrolment pattern, or the name it enrolled with"
    )
    group: Name | None = None
    address: ClientAddress | None = Field(default=None, description="an address reserved for it")


class ClientChange(Wish):
    """Fields that are left out stay as they are; null takes group or address away."""

    name: Name = ""
    group: Name | None = None
    address: ClientAddress | None = None
    disabled: bool = False


class ClientAnswer(Answer):
    mac: str
    name: str
    group: str | None
    address: IPv4Address | None
    disabled: bool
    enrolled: bool = Field(description="it came by itself, and nobody has changed it since")
    created: datetime

    @classmethod
    def of(cls, row: ClientRow) -> ClientAnswer:
        client = row.client
        return cls(
            mac=client.mac,
            name=client.name,
            group=client.group,
            address=client.address,
            disabled=client.disabled,
            enrolled=row.enrolled,
            created=row.created,
        )


class ResolvedLink(Answer):
    """The link that decides what a client boots, and the version it means now."""

    scope: Scope
    image: str
    channel: str | None
    version: int | None
    policy: Policy
    chap: Chap

    @classmethod
    def of(cls, link: Link, version: int | None) -> ResolvedLink:
        return cls(
            scope=link.scope,
            image=link.image,
            channel=link.channel,
            version=version,
            policy=link.policy,
            chap=link.chap,
        )


class PlanAnswer(Answer):
    """The client's boot plan."""

    revision: int | None = Field(description="null until it was compiled for the first time")
    delivered: bool = Field(description="whether the other services can see this very plan")
    target: str
    portals: list[str]
    disks: list[DiskPlan]
    refusal: Refusal | None = Field(description="why it cannot boot now; null if it can")

    @classmethod
    def of(cls, plan: BootPlan, *, revision: int | None, delivered: bool) -> PlanAnswer:
        return cls(
            revision=revision,
            delivered=delivered,
            target=plan.target,
            portals=list(plan.portals),
            disks=list(plan.disks),
            refusal=plan.refusal,
        )


class BootAnswer(Answer):
    id: UUID
    mac: str
    client: str | None
    state: Literal["booting", "running", "ended", "failed", "superseded"]
    started: datetime
    ended: datetime | None
    os_attached: datetime | None = Field(description="when the operating system had its disk")
    arch: str | None
    firmware: str | None
    address: str | None
    image: str | None
    version: int | None
    policy: str | None
    end_reason: str | None
    failure: FailureAnswer | None
    stage_count: int

    @classmethod
    def fields_of(cls, row: BootRow) -> dict[str, Any]:
        told = dict(row.summary)
        return {
            "id": row.boot_id,
            "mac": row.mac,
            "client": row.client,
            "state": row.state,
            "started": row.started,
            "ended": row.ended,
            "stage_count": told.pop("stages", 0),
            **{name: told.get(name) for name in _TOLD},
        }

    @classmethod
    def of(cls, row: BootRow) -> BootAnswer:
        return cls.model_validate(cls.fields_of(row))


_TOLD = (
    *("os_attached", "arch", "firmware", "address", "image", "version", "policy"),
    *("end_reason", "failure"),
)


class FailureAnswer(Answer):
    stage: str
    cause: str
    remedy: str


class StageAnswer(Answer):
    event_id: str
    kind: str = Field(description="the event, such as boot.started")
    source: str = Field(description="who saw it: service and node, such as /dhcp/server-1")
    started: datetime
    ended: datetime
    data: dict[str, Any] = Field(description="what the event says beyond that; see docs/events.md")

    @classmethod
    def of(cls, row: StageRow) -> StageAnswer:
        return cls(
            event_id=row.event_id,
            kind=row.kind,
            source=row.source,
            started=row.started,
            ended=row.ended,
            data=row.data,
        )


class BootWithStages(BootAnswer):
    stages: list[StageAnswer] = Field(description="in the order of their beginnings")


class ClientDetail(ClientAnswer):
    link: ResolvedLink | None
    plan: PlanAnswer
    last_boot: BootAnswer | None


class SightingAnswer(Answer):
    """A PC that asked and is no client."""

    mac: str
    boot_id: UUID
    address: IPv4Address | None
    arch: str
    vendor_class: str
    first_seen: datetime
    last_seen: datetime


class NodeAnswer(Answer):
    node: str
    portals: list[str]
    seen: datetime


class Counts(Answer):
    images: int
    clients: int
    links: int
    boots: int
    unpublished_events: int


class InfoAnswer(Answer):
    """The registry itself."""

    version: str
    node: str
    api: Literal["v1"] = "v1"
    enrol: Literal["accept", "refuse"]
    nats_connected: bool
    delivering: bool = Field(description="this registry puts plans and events out; with several, one does")
    nodes: list[NodeAnswer] = Field(description="the block stores that clients are sent to")
    counts: Counts
