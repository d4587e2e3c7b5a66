"""What block stores hold of clients' writes: asked, and thrown away when it is due.

What is not needed any more (after a commit, an abandoned branch, a rebase) is a row in the transaction that made it so,
since a client that runs holds it and a block store may be away; `Reclaim` asks until it is gone.

A commit or a seal looks whether its layer holds all that was written, and only then gives the write-back up. Between
that look and the new plan's arrival at the block store the client may be started, and write upon what it had. So the
row says what of it the layer holds, and where there is more by the time that it is to go, it is *left*: it stays, as
long as it takes, until it was made a version (`client commit --boot`) or is thrown away by name.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from bootlink_events import BootId, WritebackLeft
from bootlink_events.commands import (
    Answer,
    DropWriteback,
    ExportedLayer,
    ListWritebacks,
    WritebackItem,
)
from bootlink_registry import outbox, removal
from bootlink_registry.database import Connection, Database, DatabaseAway
from bootlink_registry.problems import Problem, conflict, not_found
from bootlink_runtime import Bus, BusUnavailable, CommandError, Logger, rpc

BLOCKSTORE: Final = "blockstore"
LOOK_SECONDS: Final = 15.0  # between looks for what is due to be thrown away
DUE_AT_ONCE: Final = 100  # rows of one look
GIVE_UP_AFTER: Final = timedelta(days=30)  # where no block store that held it came back, nobody will


@dataclass(frozen=True, slots=True)
class Held:
    """A write-back, and the block store that has it."""

    node: str
    item: WritebackItem


async def held_of(bus: Bus, mac: str, *, home: str | None = None) -> list[Held]:
    """What the block stores hold of this client, the newest boot first. Problem if none of them answers, or not that
    one which is its `home`."""
    try:
        answers = await rpc.call_all(bus, BLOCKSTORE, ListWritebacks(mac=mac))
    except BusUnavailable as error:
        raise away(str(error)) from error
    held = [
        Held(node, item)
        for node, answer in answers.items()
        if not isinstance(answer, CommandError)
        for item in answer.items
    ]
    silent = [answer for answer in answers.values() if isinstance(answer, CommandError)]
    if not held and (silent or not answers):
        raise away(silent[0].detail if silent else "none has announced itself")
    if home is not None and not isinstance(answers.get(home), Answer):
        raise Problem(
            503,
            f"block store {home}, which holds what this client keeps, does not answer",
            f"start blockstore on {home}, then repeat; nothing is lost",
        )
    newest = sorted(held, key=lambda one: (one.item.boot_id, one.item.since), reverse=True)
    return sorted(newest, key=lambda one: home not in (None, one.node))


def away(why: str) -> Problem:
    """No block store could be asked."""
    return Problem(
        503,
        f"no block store can be asked what it holds: {why}",
        "look whether blockstore and NATS run (bootlink status), then repeat",
    )


def refused(error: CommandError) -> Problem:
    """What a block store says to a command, as an answer to a request."""
    return Problem(409 if error.cause == "refused" else 503, error.detail, error.remedy)


def require_off(held: list[Held], name: str, what: str) -> None:
    """Problem if the client is at work on one of these."""
    if any(one.item.state == "in_use" for one in held):
        raise conflict(f"{name} is running, and {what}", "shut it down first, then repeat")


def holds_all(made: ExportedLayer, item: WritebackItem) -> bool:
    """Whether a layer that was made of a write-back holds all that is in that now."""
    return item.boot_id == made.boot_id and made.written is not None and item.written == made.written


@dataclass(frozen=True, slots=True)
class Written:
    """What one client wrote to a disk, by the content that it wrote upon, and what that is read from."""

    mac: str
    lun: int
    content: uuid.UUID
    image: str
    version: int
    layer: uuid.UUID | None  # of the client's own; None: the version's


async def drop_later(
    connection: Connection, what: Written, *, made: ExportedLayer | None = None, due: datetime | None = None
) -> None:
    """Have this thrown away once it is `due` (now: None), in the caller's transaction. `made`: only if it is no more
    than this layer holds."""
    await connection.execute(
        """
        INSERT INTO dropped_writebacks (content, mac, lun, image, version, layer, boot_id, written, due)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, now()))
        ON CONFLICT (content) DO UPDATE SET due = least(dropped_writebacks.due, excluded.due),
            boot_id = excluded.boot_id, written = excluded.written, left_boot = NULL
        """,
        *(what.content, what.mac, what.lun, what.image, what.version, what.layer),
        *((made.boot_id, made.written) if made else (None, None)),
        due,
    )


async def drop_left(connection: Connection, content: uuid.UUID, made: ExportedLayer) -> None:
    """Where this had been left: a layer holds all of it now, so it may go."""
    await connection.execute(
        """
        UPDATE dropped_writebacks SET boot_id = $2, written = $3, left_boot = NULL
        WHERE content = $1 AND left_boot IS NOT NULL
        """,
        *(content, made.boot_id, made.written),
    )


async def throw_away(connection: Connection, name: str, boot_id: uuid.UUID, contents: list[str]) -> None:
    """Have what a boot wrote upon these contents, and was left, thrown away after all, whatever it holds. Problem if
    nothing of it was left."""
    done = await connection.execute(
        """
        UPDATE dropped_writebacks SET boot_id = NULL, written = NULL, left_boot = NULL, due = now()
        WHERE content::text = ANY($1::text[]) AND left_boot IS NOT NULL
        """,
        contents,
    )
    if done == "UPDATE 0":
        raise not_found(
            f"nothing that {name} wrote in boot {boot_id} was left behind",
            f"bootlink client writebacks {name} shows what is held, and what of it was left",
        )


async def left_of(connection: Connection, mac: str) -> frozenset[str]:
    """The contents upon which this client wrote what was left."""
    found = await connection.fetch(
        "SELECT content FROM dropped_writebacks WHERE mac = $1 AND left_boot IS NOT NULL", mac
    )
    return frozenset(str(row["content"]) for row in found)


async def keep_after_all(connection: Connection, content: uuid.UUID) -> None:
    """Take back a `drop_later`."""
    await connection.execute("DELETE FROM dropped_writebacks WHERE content = $1", content)


class Reclaim:
    """Throws away what is due, for ever."""

    def __init__(self, database: Database, bus: Bus, log: Logger) -> None:
        self._database = database
        self._bus = bus
        self._log = log

    async def run(self) -> None:
        while True:
            try:
                await self._look()
            except DatabaseAway:
                await self._database.recovered()
            except BusUnavailable as error:
                self._log.debug("nothing reclaimed", error=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        async with self._database.transaction() as connection:
            due = await connection.fetch(
                """
                SELECT d.*, h.node AS home FROM dropped_writebacks d LEFT JOIN homes h ON h.mac = d.mac
                WHERE d.due <= now() AND d.left_boot IS NULL ORDER BY d.due LIMIT $1 FOR UPDATE OF d
                """,
                DUE_AT_ONCE,
            )
            await _cannot_return(connection, [row["content"] for row in due])
        for row in due:
            gone, left = await self._drop(row)
            async with self._database.transaction() as connection:
                if left is not None:
                    await self._leave(connection, row, left)
                elif gone:
                    await connection.execute(
                        "DELETE FROM dropped_writebacks WHERE content = $1 AND boot_id IS NOT DISTINCT FROM $2",
                        *(row["content"], row["boot_id"]),
                    )
                    await removal.settle_layers(connection)

    async def _drop(self, row: Any) -> tuple[bool, WritebackItem | None]:
        """Whether nothing of it is there any more; and what was left, as it holds more than the layer made of it.
        A node that does not answer may hold it, and so may the client's home while it is silent: asked again later."""
        command = DropWriteback(
            mac=row["mac"],
            lun=row["lun"],
            content=str(row["content"]),
            exported_boot=BootId(int=row["boot_id"].int) if row["boot_id"] else None,
            exported_written=row["written"],
        )
        answers = await rpc.call_all(self._bus, BLOCKSTORE, command)
        silent = row["home"] is not None and row["home"] not in answers
        for node, answer in answers.items():
            if isinstance(answer, CommandError):
                self._log.debug("write-back held still", node=node, mac=row["mac"], problem=answer.detail)
                silent = True
            elif answer.left:
                return False, answer.left[0]
        return (bool(answers) and not silent) or _is_old(row), None

    async def _leave(self, connection: Connection, row: Any, item: WritebackItem) -> None:
        """Note and tell that this stays. A boot that goes on writing to it is the same one, or a later look's."""
        await connection.execute(
            "UPDATE dropped_writebacks SET left_boot = $2 WHERE content = $1", row["content"], item.boot_id
        )
        name = await connection.fetchval("SELECT name FROM clients WHERE mac = $1", row["mac"])
        event = WritebackLeft(
            mac=item.mac,
            client=name,
            boot_id=item.boot_id,
            lun=item.lun,
            bytes=item.bytes,
            image=row["image"],
            version=row["version"],
        )
        await outbox.record(connection, event, source=self._bus.source)
        self._log.warning(
            "write-back left: it was written to after a layer was made of it",
            client=name,
            boot_id=str(item.boot_id),
            remedy=f"make a version of it: bootlink client commit {name} --boot {item.boot_id}; "
            f"or throw it away: bootlink client abandon {name} --boot {item.boot_id}",
        )


def _is_old(row: Any) -> bool:
    return bool(datetime.now(row["due"].tzinfo) - row["due"] > GIVE_UP_AFTER)


async def _cannot_return(connection: Connection, contents: list[uuid.UUID]) -> None:
    """Before what was written is thrown away: a rebase that would go back to it cannot be undone any more."""
    done = await connection.execute(
        """
        UPDATE own_layers SET former_version = NULL, former_layer = NULL, former_content = NULL
        WHERE former_content = ANY($1::uuid[])
        """,
        contents,
    )
    if done != "UPDATE 0":
        await removal.settle_layers(connection)
