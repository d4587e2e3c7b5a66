"""Super clients and what clients wrote, as the API takes and tells them."""

from __future__ import annotations

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import Field

from bootlink_events import Policy
from bootlink_events.commands import WritebackState
from bootlink_registry.api.etags import Tagged
from bootlink_registry.api.models.base import Answer, Wish
from bootlink_registry.branches import BranchRow
from bootlink_registry.names import Name, Note
from bootlink_registry.writebacks import Held


class NewBranch(Wish):
    """What a super client is to write upon: by default the version that the channel `production` shows now."""

    image: Name
    channel: Name | None = None
    version: int | None = Field(default=None, ge=1, le=2**31 - 1, description="a version, instead of a channel's")


class BranchAnswer(Tagged):
    """A super client: it boots this version, and what it writes may become the next."""

    client: str
    mac: str
    image: str
    base: int = Field(description="the version that it writes upon")
    author: str
    created: datetime
    changed: datetime

    @classmethod
    def of(cls, row: BranchRow) -> Self:
        return cls(
            client=row.client,
            mac=row.branch.mac,
            image=row.branch.image,
            base=row.branch.base,
            author=row.author,
            created=row.created,
            changed=row.changed,
        )


class NewCommit(Wish):
    """What to make a version of, and what becomes of the client."""

    note: Note = ""
    boot_id: UUID | None = Field(
        default=None, description="a boot of the past whose write-back is held still; null: the client's branch"
    )
    lun: int = Field(default=0, ge=0, le=254, description="which disk of that boot")
    stay: bool = Field(default=False, description="the client stays a super client, upon the new version")
    running: bool = Field(
        default=False,
        description="the client may be running: what it has flushed becomes the version, and its branch stays as it is",
    )


class BootToUndo(Wish):
    """Which boot's writes come back."""

    boot_id: UUID | None = Field(default=None, description="null: the last that was discarded")


class WritebackAnswer(Answer):
    """What a client wrote to one of its disks in one boot."""

    node: str = Field(description="the block store that holds it")
    boot_id: UUID
    lun: int
    image: str
    version: int
    policy: Policy
    state: WritebackState = Field(
        description="in_use: the client is at work on it; idle: of its last boot; discarded: may come back until it is "
        "reclaimed; kept: survives boots; failed: its disk failed; outlived: the server was restarted since"
    )
    returning: bool = Field(description="it comes back at the client's next boot")
    left: bool = Field(
        description="a version or a sealed layer was made of it, and it was written to since: a commit of this boot "
        "makes a version of all of it"
    )
    bytes: int
    since: datetime
    reason: str

    @classmethod
    def of(cls, held: Held, *, is_left: bool) -> Self:
        item = held.item
        return cls(
            node=held.node,
            boot_id=UUID(int=item.boot_id.int),
            lun=item.lun,
            image=item.image,
            version=item.version,
            policy=item.policy,
            state=item.state,
            returning=item.returning,
            left=is_left,
            bytes=item.bytes,
            since=item.since,
            reason=item.reason,
        )
