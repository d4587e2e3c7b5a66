"""Clients and their plans."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address
from typing import Any

from pydantic import Field

from bootlink_events import BootPlan, DiskPlan, Mac, Menu, Refusal, Start
from bootlink_registry.api.etags import Tagged
from bootlink_registry.api.models.base import SOME_FIELD, Answer, Wish
from bootlink_registry.api.models.boots import BootAnswer
from bootlink_registry.api.models.branches import BranchAnswer
from bootlink_registry.api.models.links import ResolvedLink
from bootlink_registry.catalogue import Client
from bootlink_registry.clients import ClientRow
from bootlink_registry.names import ClientAddress, Name, Note
from bootlink_registry.waking import NotSent, Sent


class NewClient(Wish):
    mac: Mac
    name: Name | None = Field(
        default=None, description="default: the next free name of the enrolment pattern, or the name it enrolled with"
    )
    group: Name | None = None
    address: ClientAddress | None = Field(default=None, description="an address reserved for it")
    note: Note = ""


class ClientChange(Wish):
    """Fields that are left out stay as they are; null takes group or address away."""

    model_config = SOME_FIELD

    name: Name = ""
    group: Name | None = None
    address: ClientAddress | None = None
    disabled: bool = Field(default=False, description="a disabled client shows a screen instead of booting")
    note: Note = ""


class ClientAnswer(Tagged):
    mac: str
    name: str
    group: str | None
    address: IPv4Address | None
    disabled: bool
    note: str
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
            note=row.note,
            enrolled=row.enrolled,
            created=row.created,
        )


class PlanAnswer(Answer):
    """The client's boot plan."""

    revision: int | None = Field(description="null until it was compiled for the first time")
    delivered: bool = Field(description="whether the other services can see this very plan")
    target: str
    portals: list[str]
    home: str | None = Field(description="the one block store that serves it, as it holds what it keeps; null: any")
    disks: list[DiskPlan]
    menu: Menu | None = Field(description="what it may choose from at its boot; null: it boots at once")
    start: Start | None = Field(description="how it boots; null: from its disk")
    refusal: Refusal | None = Field(description="why it cannot boot now; null if it can")

    @classmethod
    def of(cls, plan: BootPlan, *, revision: int | None, delivered: bool) -> PlanAnswer:
        return cls(
            revision=revision,
            delivered=delivered,
            target=plan.target,
            portals=list(plan.portals),
            home=plan.home,
            disks=list(plan.disks),
            menu=plan.menu,
            start=plan.start,
            refusal=plan.refusal,
        )


class ClientDetail(ClientAnswer):
    link: ResolvedLink | None = Field(description="what it boots, and whose link says so")
    disks: list[ResolvedLink] = Field(description="all disks it has, by LUN; what it boots is the first")
    branch: BranchAnswer | None = Field(description="where it is a super client: what it boots instead")
    plan: PlanAnswer
    last_boot: BootAnswer | None

    def changeable(self) -> dict[str, Any]:
        return self.model_dump(mode="json", include=set(ClientAnswer.model_fields))


class SentBy(Answer):
    node: str
    interfaces: list[str]


class NotSentBy(Answer):
    node: str
    detail: str = Field(description="what is wrong")
    remedy: str = Field(description="what to do")


class WokenAnswer(Answer):
    """Where the magic packet was sent."""

    client: str
    mac: str
    sent: list[SentBy] = Field(description="the dhcp services that sent it; at least one")
    failed: list[NotSentBy] = Field(description="those that could not")

    @classmethod
    def of(cls, client: Client, sent: list[Sent], failed: list[NotSent]) -> WokenAnswer:
        return cls(
            client=client.name,
            mac=client.mac,
            sent=[SentBy(node=one.node, interfaces=list(one.interfaces)) for one in sent],
            failed=[NotSentBy(node=one.node, detail=one.detail, remedy=one.remedy) for one in failed],
        )
