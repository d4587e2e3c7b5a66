"""Enrolment: the rule, and the PCs that are no clients."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from bootlink_registry.api.etags import Tagged
from bootlink_registry.api.models.base import SOME_FIELD, Answer, Wish
from bootlink_registry.enrolment import Policy, Rule
from bootlink_registry.names import ClientAddress, Name, Note, check_pattern

PATTERN_LIMIT = 80  # characters; the names that it makes have fewer

Pattern = Annotated[str, AfterValidator(check_pattern), Field(max_length=PATTERN_LIMIT)]


class RuleChange(Wish):
    """Fields that are left out stay as they are; null takes the group away."""

    model_config = SOME_FIELD

    policy: Policy = Field(default="accept", description="accept: it becomes a client by itself; refuse: a sighting")
    pattern: Pattern = Field(default="pc-{n:03}", description="of names; {n} counts")
    group: Name | None = Field(default=None, description="the group that such clients join")


class RuleAnswer(Tagged):
    policy: Policy
    pattern: str
    group: str | None

    @classmethod
    def of(cls, rule: Rule) -> RuleAnswer:
        return cls(policy=rule.policy, pattern=rule.pattern, group=rule.group)


class SightingAnswer(Answer):
    """A PC that asked and is no client."""

    mac: str
    boot_id: UUID
    address: IPv4Address | None
    arch: str
    vendor_class: str
    first_seen: datetime
    last_seen: datetime


class Acceptance(Wish):
    name: Name | None = Field(default=None, description="default: the next free name of the enrolment pattern")
    group: Name | None = Field(default=None, description="default: the enrolment rule's")
    address: ClientAddress | None = Field(default=None, description="an address reserved for it")
    note: Note = ""
