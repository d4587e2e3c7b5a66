"""Links."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bootlink_events import Chap, Policy, Start
from bootlink_registry.api.etags import Tagged
from bootlink_registry.api.models.base import Answer, Wish
from bootlink_registry.api.models.starts import NewStart
from bootlink_registry.catalogue import Link, Scope
from bootlink_registry.links import LUN_LIMIT, NamedLink
from bootlink_registry.names import Name, check_name

LinkPolicy = Literal["discard", "keep"]
"""What a link may ask for; `super` is a client's own state, and no link's."""

PinnedVersion = Annotated[int, Field(ge=1, le=2**31 - 1, description="a pinned version, instead of a channel")]
Lun = Annotated[int, Field(ge=0, le=LUN_LIMIT, description="which of a client's disks; 0 is what it boots")]


class NewLink(Wish):
    scope: Scope
    name: str = Field(default="", description="the client (name or MAC address) or the group; empty for the default")
    image: Name | None = Field(default=None, description="null where `start` boots none")
    channel: Name | None = Field(default=None, description="default: production")
    version: PinnedVersion | None = None
    start: NewStart | None = Field(default=None, description="how it boots; null: from its disk")
    policy: LinkPolicy | None = Field(default=None, description="default: discard; with an own layer: keep")
    own_layer: bool = Field(
        default=False,
        description="a layer of the client's own over a pinned version: with the policy keep what it writes goes into "
        "that, with discard it begins anew above it at every boot",
    )
    lun: Lun = 0
    chap: Chap = Field(
        default="off", description="whether the disk asks for the boot's CHAP secret, and proves its own"
    )

    @model_validator(mode="after")
    def _names_a_group(self) -> Self:
        if self.scope == "group" and self.name:
            check_name(self.name)
        if self.own_layer and self.scope != "client":
            raise ValueError("only a client has a layer of its own")
        if self.own_layer and self.image is None:
            raise ValueError("a layer of its own lies upon an image; name that")
        return self


class LinkAnswer(Tagged):
    scope: Scope
    name: str = Field(description="the client's or group's name; empty for the default")
    image: str | None = Field(description="null where it boots none of ours: see `start`")
    channel: str | None
    version: int | None
    start: Start | None = Field(description="how it boots; null: from its disk")
    policy: Policy
    chap: Chap
    own_layer: bool = Field(description="a layer of the client's own lies over the version")
    lun: int
    changed: datetime

    @classmethod
    def of(cls, named: NamedLink) -> LinkAnswer:
        link = named.link
        return cls(
            scope=link.scope,
            name=named.name,
            image=link.image or None,
            channel=link.channel,
            version=link.version,
            start=link.start,
            policy=link.policy,
            chap=link.chap,
            own_layer=link.own_layer,
            lun=link.lun,
            changed=named.changed,
        )


class ResolvedLink(Answer):
    """The link that decides what a client has as one of its disks, and the version it means now."""

    lun: int
    scope: Scope
    image: str | None = Field(description="null where it boots none of ours: see `start`")
    channel: str | None
    version: int | None
    start: Start | None = Field(description="how it boots; null: from its disk")
    policy: Policy
    chap: Chap
    own_layer: bool = Field(description="a layer of the client's own lies over the version")

    @classmethod
    def of(cls, link: Link, version: int | None) -> ResolvedLink:
        return cls(
            lun=link.lun,
            scope=link.scope,
            image=link.image or None,
            channel=link.channel,
            version=version,
            start=link.start,
            policy=link.policy,
            chap=link.chap,
            own_layer=link.own_layer,
        )
