"""Branches: a super client boots one version of an image, and what it writes may become the next (see `commits`).

A branch lies upon the version that it began with, its base, and stays there: another branch of the same image, or a
publish, moves nothing below it. It has a content of its own, so it begins empty, whatever was written before.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from bootlink_events import BranchChanged
from bootlink_events.commands import ExportedLayer
from bootlink_registry import outbox, rows
from bootlink_registry.catalogue import Branch, Client
from bootlink_registry.clients import find_client
from bootlink_registry.database import Connection
from bootlink_registry.problems import Problem, conflict, not_found
from bootlink_registry.versions import lock_image, version_named
from bootlink_registry.writebacks import Written, drop_later

BOOT_LUN: Final = 0  # the disk that a branch is of
COMMIT_KIND: Final = "client.commit"  # of the job that makes a version of a branch

Became = Literal["opened", "moved", "committed", "abandoned"]

_NAMED: Final = "SELECT b.*, c.name FROM branches b JOIN clients c ON c.mac = b.mac"


@dataclass(frozen=True, slots=True)
class BranchRow:
    """A branch, its client's name, and who began it when."""

    branch: Branch
    client: str
    author: str
    created: datetime
    changed: datetime

    @classmethod
    def of(cls, row: Any) -> BranchRow:
        return cls(rows.branch_of(row), row["name"], row["author"], row["created"], row["changed"])

    @property
    def written(self) -> Written:
        """What was written on it."""
        branch = self.branch
        return Written(branch.mac, BOOT_LUN, uuid.UUID(branch.content), branch.image, branch.base, layer=None)


async def open_branch(
    connection: Connection,
    *,
    name: str,
    image: str,
    channel: str | None,
    version: int | None,
    author: str,
    source: str,
) -> tuple[BranchRow, bool]:
    """Make a client a super client, from its next boot on, upon a version of the image (default: production's).

    The second value is true if it was none before. Asked for the branch that it is on, it goes on with that. Problem if
    it is on another one.
    """
    await lock_image(connection, image)
    client = await _lock_client(connection, name)
    base = await version_named(connection, image, channel=channel, version=version)
    held = await find_branch(connection, client.mac)
    if held is not None:
        if (held.branch.image, held.branch.base) == (image, base):
            return held, False
        raise conflict(
            f"{client.name} is on a branch of {held.branch.image} already, upon version {held.branch.base}",
            f"bootlink client commit {client.name} makes a version of it, "
            f"bootlink client abandon {client.name} throws it away",
        )
    await connection.execute(
        "INSERT INTO branches (mac, image, base, content, author) VALUES ($1, $2, $3, $4, $5)",
        *(client.mac, image, base, uuid.uuid4(), author),
    )
    now = await find_branch(connection, client.mac)
    assert now is not None
    await _tell(connection, now, "opened", author=author, source=source)
    return now, True


async def abandon_branch(connection: Connection, name: str, *, author: str, source: str) -> BranchRow:
    """Make a super client an ordinary one again; what it wrote is thrown away once it is off. Raises Problem."""
    client = await _lock_client(connection, name)
    held = await get_branch(connection, client)
    job = await connection.fetchval(
        "SELECT id FROM jobs WHERE kind = $1 AND request->>'mac' = $2 AND state IN ('queued', 'running')",
        *(COMMIT_KIND, client.mac),
    )
    if job is not None:
        raise conflict(f"what {client.name} wrote is being committed", f"cancel that first: bootlink job cancel {job}")
    await close_branch(connection, held, "abandoned", author=author, source=source)
    return held


async def close_branch(
    connection: Connection,
    row: BranchRow,
    became: Literal["committed", "abandoned"],
    *,
    made: ExportedLayer | None = None,
    author: str,
    source: str,
) -> None:
    """End a branch; what was written on it is not needed any more, up to what was `made` of it."""
    await connection.execute("DELETE FROM branches WHERE mac = $1", row.branch.mac)
    await drop_later(connection, row.written, made=made)
    await _tell(connection, row, became, author=author, source=source)


async def move_branch(
    connection: Connection, row: BranchRow, base: int, *, made: ExportedLayer, author: str, source: str
) -> None:
    """Have a branch go on upon another version, with nothing written yet; what was `made` of it was."""
    mac = row.branch.mac
    await drop_later(connection, row.written, made=made)
    await connection.execute(
        "UPDATE branches SET base = $2, content = $3, changed = now() WHERE mac = $1", mac, base, uuid.uuid4()
    )
    now = await find_branch(connection, mac)
    assert now is not None
    await _tell(connection, now, "moved", author=author, source=source)


async def find_branch(connection: Connection, mac: str) -> BranchRow | None:
    row = await connection.fetchrow(f"{_NAMED} WHERE b.mac = $1", mac)
    return BranchRow.of(row) if row else None


async def get_branch(connection: Connection, client: Client) -> BranchRow:
    """The branch that this client is on. Raises Problem."""
    held = await find_branch(connection, client.mac)
    if held is None:
        raise no_branch(client.name)
    return held


def no_branch(name: str) -> Problem:
    return not_found(f"{name} is no super client", f"make it one: bootlink client super {name} --image IMAGE")


async def list_branches(connection: Connection, *, image: str | None, after: str, limit: int) -> list[BranchRow]:
    """Branches by client's name, of one image or all, after the given name."""
    found = await connection.fetch(
        f"{_NAMED} WHERE c.name > $1 AND ($2::text IS NULL OR b.image = $2) ORDER BY c.name LIMIT $3",
        *(after, image, limit),
    )
    return [BranchRow.of(row) for row in found]


async def _tell(connection: Connection, row: BranchRow, became: Became, *, author: str, source: str) -> None:
    """A branch was changed: its client's plan is compiled anew, and all hear of it."""
    await outbox.recompile(connection, "client", row.branch.mac)
    event = BranchChanged(
        mac=row.branch.mac,
        client=row.client,
        image=row.branch.image,
        base=row.branch.base,
        became=became,
        author=author,
        at=datetime.now(UTC),
    )
    await outbox.record(connection, event, source=source)


async def _lock_client(connection: Connection, name: str) -> Client:
    """The client, with nobody else changing what it boots until the transaction ends."""
    client = (await find_client(connection, name)).client
    await connection.execute("SELECT mac FROM clients WHERE mac = $1 FOR UPDATE", client.mac)
    return client
