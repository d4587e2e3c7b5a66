"""Groups."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bootlink_events import DhcpOption, LoaderRule
from bootlink_registry.api.etags import Tagged
from bootlink_registry.api.models.base import Answer, Wish
from bootlink_registry.api.models.links import LinkAnswer
from bootlink_registry.catalogue import GroupSettings
from bootlink_registry.group_settings import OPTIONS_LIMIT, RULES_LIMIT
from bootlink_registry.groups import MOVED_AT_ONCE, GroupRow
from bootlink_registry.names import Name, check_name
from bootlink_registry.problems import invalid
from bootlink_wire.dhcp_values import CODES

OptionType = Literal["address", "addresses", "text", "byte", "word", "long", "flag", "domains", "hex"]


class GroupChange(Wish):
    name: Name


class NewMembers(Wish):
    clients: list[str] = Field(min_length=1, max_length=MOVED_AT_ONCE, description="names or MAC addresses")

    def checked(self, group: str) -> str:
        """The group's name, which stands in the path. Raises Problem if it is none."""
        try:
            return check_name(group)
        except ValueError as error:
            raise invalid(f"the group: {error}", "choose such a name") from error


class NewOption(Wish):
    code: int = Field(ge=CODES[0], le=CODES[-1], description="RFC 2132 and its followers name them")
    type: OptionType = Field(description="how the value is to be read")
    value: str = Field(max_length=1024, description="such as 10.77.0.5,10.77.0.6 for addresses")

    def option(self) -> DhcpOption:
        return DhcpOption(code=self.code, type=self.type, value=self.value)


class NewLoaderRule(Wish):
    arch: str = Field(default="", pattern=r"^[a-z0-9-]{0,32}$", description="such as uefi-x64; empty: every one")
    vendor_class: str = Field(
        default="", pattern=r"^[ -~]{0,255}$", description="how the vendor class (option 60) begins; empty: every one"
    )
    model: str = Field(
        default="",
        pattern=r"^([0-9a-f]{2}(:[0-9a-f]{2}){0,5})?$",
        description="how the MAC address begins, which tells the network card's maker; empty: every one",
    )
    loaders: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]] = Field(
        min_length=1, max_length=8, description="file names in the loaders' folder; the first that works is sent"
    )

    def rule(self) -> LoaderRule:
        return LoaderRule(arch=self.arch, vendor_class=self.vendor_class, model=self.model, loaders=tuple(self.loaders))


class NewGroupSettings(Wish):
    """All of a group's settings; lists that are empty, or left out, take what was there away."""

    options: list[NewOption] = Field(default=[], max_length=OPTIONS_LIMIT)
    loaders: list[NewLoaderRule] = Field(default=[], max_length=RULES_LIMIT, description="the first that fits counts")


class OptionAnswer(Answer):
    code: int
    type: str
    value: str


class LoaderRuleAnswer(Answer):
    arch: str
    vendor_class: str
    model: str
    loaders: list[str]


class GroupSettingsAnswer(Tagged):
    group: str
    options: list[OptionAnswer]
    loaders: list[LoaderRuleAnswer]

    @classmethod
    def of(cls, group: str, settings: GroupSettings) -> GroupSettingsAnswer:
        return cls(
            group=group,
            options=[OptionAnswer(code=o.code, type=o.type, value=o.value) for o in settings.options],
            loaders=[
                LoaderRuleAnswer(
                    arch=rule.arch, vendor_class=rule.vendor_class, model=rule.model, loaders=list(rule.loaders)
                )
                for rule in settings.loaders
            ],
        )


class GroupAnswer(Tagged):
    name: str
    clients: int = Field(description="how many are in it")
    links: list[LinkAnswer] = Field(description="what its clients have as disks, by LUN, unless they have links of own")

    @classmethod
    def of(cls, row: GroupRow) -> GroupAnswer:
        return cls(name=row.name, clients=row.clients, links=[LinkAnswer.of(link) for link in row.links])
