"""Boot menus."""

from __future__ import annotations

from pydantic import Field

from bootlink_events import Policy, Start
from bootlink_registry.api.etags import Tagged
from bootlink_registry.api.models.base import Answer, Wish
from bootlink_registry.api.models.links import LinkPolicy, PinnedVersion
from bootlink_registry.api.models.starts import NewStart
from bootlink_registry.catalogue import OWN_ENTRY, Choice, Scope
from bootlink_registry.links import pointer
from bootlink_registry.menus import ENTRIES_LIMIT, SECONDS, MenuRow
from bootlink_registry.names import Name, Title


class NewEntry(Wish):
    name: Name = Field(description="how the choice travels to the disk server, and what `default` may name")
    title: Title = ""
    image: Name | None = Field(default=None, description="null where `start` boots none")
    channel: Name | None = Field(default=None, description="default: production")
    version: PinnedVersion | None = None
    policy: LinkPolicy = "discard"
    start: NewStart | None = Field(default=None, description="how it boots; null: from its disk")

    def choice(self) -> Choice:
        """Raises Problem."""
        channel = pointer(self.channel, self.version) if self.image is not None else self.channel
        start = self.start.start() if self.start is not None else None
        return Choice(self.name, self.title, self.image or "", channel, self.version, self.policy, start)


class NewMenu(Wish):
    title: Title = Field(default="", description="of the link itself, the menu's first entry; empty: its image's name")
    seconds: int = Field(default=SECONDS, ge=0, le=3600, description="until the default is taken; 0: waits for ever")
    default: Name = Field(default=OWN_ENTRY, description=f"an entry's name; {OWN_ENTRY}: the link itself")
    entries: list[NewEntry] = Field(
        min_length=1, max_length=ENTRIES_LIMIT, description="what is offered beside the link itself, in this order"
    )


class EntryAnswer(Answer):
    name: str
    title: str
    image: str | None
    channel: str | None
    version: int | None
    policy: Policy
    start: Start | None = Field(description="how it boots; null: from its disk")


class MenuAnswer(Tagged):
    scope: Scope
    name: str = Field(description="the client's or group's name; empty for the default")
    title: str
    seconds: int
    default: str
    entries: list[EntryAnswer]

    @classmethod
    def of(cls, row: MenuRow) -> MenuAnswer:
        link = row.named.link
        return cls(
            scope=link.scope,
            name=row.named.name,
            title=link.title,
            seconds=link.menu_seconds,
            default=link.menu_default,
            entries=[
                EntryAnswer(
                    name=choice.name,
                    title=choice.title,
                    image=choice.image or None,
                    channel=choice.channel,
                    version=choice.version,
                    policy=choice.policy,
                    start=choice.start,
                )
                for choice in row.choices
            ],
        )
