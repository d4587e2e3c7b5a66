"""Clients, their plans, and the PCs that are none."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from bootlink_events import BootPlan, DiskPlan, Mac, Menu, Refusal
from bootlink_registry.api.models.base import Answer, Wish
from bootlink_registry.api.models.boots import BootAnswer
from bootlink_registry.api.models.links import ResolvedLink
from bootlink_registry.clients import ClientRow
from bootlink_registry.names import Name


def _a_pcs(address: IPv4Address) -> IPv4Address:
    if address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved:
        raise ValueError(f"{address} is no address that a PC can have")
    return address


ClientAddress = Annotated[IPv4Address, AfterValidator(_a_pcs)]


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


class PlanAnswer(Answer):
    """The client's boot plan."""

    revision: int | None = Field(description="null until it was compiled for the first time")
    delivered: bool = Field(description="whether the other services can see this very plan")
    target: str
    portals: list[str]
    disks: list[DiskPlan]
    menu: Menu | None = Field(description="what it may choose from at its boot; null: it boots at once")
    refusal: Refusal | None = Field(description="why it cannot boot now; null if it can")

    @classmethod
    def of(cls, plan: BootPlan, *, revision: int | None, delivered: bool) -> PlanAnswer:
        return cls(
            revision=revision,
            delivered=delivered,
            target=plan.target,
            portals=list(plan.portals),
            disks=list(plan.disks),
            menu=plan.menu,
            refusal=plan.refusal,
        )


class ClientDetail(ClientAnswer):
    link: ResolvedLink | None = Field(description="what it boots, and whose link says so")
    disks: list[ResolvedLink] = Field(description="all disks it has, by LUN; what it boots is the first")
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
