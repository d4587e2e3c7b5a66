"""Groups."""

from __future__ import annotations

from pydantic import Field

from bootlink_registry.api.etags import Tagged
from bootlink_registry.api.models.base import Wish
from bootlink_registry.api.models.links import LinkAnswer
from bootlink_registry.groups import MOVED_AT_ONCE, GroupRow
from bootlink_registry.names import Name, check_name
from bootlink_registry.problems import invalid


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


class GroupAnswer(Tagged):
    name: str
    clients: int = Field(description="how many are in it")
    links: list[LinkAnswer] = Field(description="what its clients have as disks, by LUN, unless they have links of own")

    @classmethod
    def of(cls, row: GroupRow) -> GroupAnswer:
        return cls(name=row.name, clients=row.clients, links=[LinkAnswer.of(link) for link in row.links])
