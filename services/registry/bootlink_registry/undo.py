"""What a reboot discarded is given back, from the block store that holds it still.

It was written upon the contents of a version, which lie in other layers since where that was merged; the former ones
may be gone. The block store knows only where the contents lie that the client's plan names now, so it is told where
those are that it is asked to bring back.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable

from bootlink_events import BootId
from bootlink_events.commands import ContentLayers, RestoreWriteback
from bootlink_registry.database import Connection, Database
from bootlink_registry.exports import layers_below
from bootlink_registry.problems import Problem, not_found
from bootlink_registry.writebacks import BLOCKSTORE, Held, away, held_of, refused
from bootlink_runtime import Bus, BusUnavailable, CommandError, rpc


async def undo_reboot(bus: Bus, database: Database, mac: str, name: str, boot_id: BootId | None) -> list[Held]:
    """Give the client's next boot back what it wrote in the boot that was discarded last, or in `boot_id`.

    Problem if there is nothing of it any more.
    """
    held = [one for one in await held_of(bus, mac) if one.item.state in ("discarded", "outlived")]
    found = [one for one in held if boot_id is None or one.item.boot_id == boot_id]
    if not found:
        if boot_id is None:
            raise not_found(
                f"nothing that {name} wrote and lost at a restart is held any more",
                "how long it is held is set where the block store runs; `bootlink client writebacks` shows what is",
            )
        raise not_found(
            f"what {name} wrote in boot {boot_id} is held no more",
            f"bootlink client writebacks {name} shows what can come back",
        )
    async with database.transaction() as connection:
        stacks = await _stacks(connection, {one.item.content for one in found})
    try:
        command = RestoreWriteback(mac=mac, boot_id=boot_id, stacks=stacks)
        answer = await rpc.call(bus, BLOCKSTORE, found[0].node, command)
    except CommandError as error:
        raise refused(error) from error
    except BusUnavailable as error:
        raise away(str(error)) from error
    return [Held(found[0].node, item) for item in answer.items]


async def _stacks(connection: Connection, contents: Iterable[str]) -> tuple[ContentLayers, ...]:
    """What these contents are read from now; without those that nothing shows any more, or not as a whole."""
    stacks = []
    for content in sorted(contents):
        with contextlib.suppress(ValueError):  # of before contents had identities of their own
            top = await connection.fetchval(
                """
                SELECT coalesce(o.layer, v.layer) FROM versions v
                    LEFT JOIN own_layers o ON o.image = v.image AND o.version = v.number AND o.content = $1
                WHERE v.content = $1 OR o.mac IS NOT NULL
                """,
                uuid.UUID(content),
            )
            with contextlib.suppress(Problem):
                if top is not None:
                    stacks.append(ContentLayers(content=content, layers=await layers_below(connection, top)))
    return tuple(stacks)
