"""kill -9 of the registry between the commit of a change and the publishing of its event: none is lost, none doubled.

Three changes are committed; then a registry starts that ends itself at one of the steps of bringing them out (see
`dying_relay`), another step in each life, so that later lives find what earlier ones left. In the end a registry lives
on. The stream must then hold exactly the events that were recorded, each id once, in the order of their commits.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Final

from bootlink_registry import links, outbox
from bootlink_registry.database import Database
from bootlink_runtime import follow, logger
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.postgres import PostgresServer
from lab.registry import raw_disk, registry_on
from rigs.dying_relay import KINDS, step_of
from rigs.figures import Figures, Violation
from rigs.sweep import Registries

CHANGES: Final = 3  # committed before each life
DIES_WITHIN: Final = 60.0  # seconds; it takes one or two
SUBJECT: Final = "bootlink.v1.link.changed.>"


async def _change(database: Database, life: int) -> tuple[list[str], int]:
    """Commit changes, one after the other; the ids of events about links that wait, and how many wait in all."""
    for number in range(CHANGES):
        async with database.transaction() as connection:
            await links.put_link(
                connection,
                scope="group",
                name=f"room-{life}-{number}",
                image="demo",
                channel=None,
                version=None,
                policy="discard",
                author="",
                source="/rig/lab",
            )
    async with database.transaction() as connection:
        found = await connection.fetch("SELECT id FROM outbox WHERE event LIKE '%link.changed%' ORDER BY xid, seq")
        waiting = await connection.fetchval("SELECT count(*) FROM outbox")
    return [str(row["id"]) for row in found], min(waiting, outbox.EVENT_BATCH)


async def _run(count: int, folder: Path, nats: NatsServer, database_url: str) -> Figures:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "BOOTLINK_NATS_URL": nats.url,
        "BOOTLINK_DATABASE_URL": database_url,
        "BOOTLINK_DATA": str(folder / "data"),
        "BOOTLINK_NODE": "lab",
        "BOOTLINK_REGISTRY_API_PORT": "0",
        "BOOTLINK_LOG_FORMAT": "json",
    }
    async with registry_on(nats.url, database_url, folder / "data") as registry:
        await registry.add_image("demo", raw_disk(folder / "demo.img"))
    database = Database(database_url, logger("rig"))
    await database.open()
    recorded: dict[str, None] = {}  # ids, in the order of their commits
    left = 0
    try:
        async with Registries(environment, folder / "relay.log", module="rigs.dying_relay") as registries:
            for life in range(count):
                waiting, events = await _change(database, life)
                left += len(waiting) - CHANGES
                recorded |= dict.fromkeys(waiting)
                await registries.start(step_of(life % KINDS, events))
                async with asyncio.timeout(DIES_WITHIN):
                    status = await registries.said()
                if status != -signal.SIGKILL:
                    raise Violation(f"life {life}: it ended with status {status}:\n{registries.words()}")
        async with registry_on(nats.url, database_url, folder / "data") as registry:
            await registry.all_told()
            async with bus_on(nats.url, service="reader", make=False) as bus:
                stored = [event.id async for event in follow(bus, subject=SUBJECT, wait=False)]
    finally:
        await database.close()
    if stored != list(recorded):
        lost = recorded.keys() - set(stored)
        raise Violation(f"{len(lost)} events lost, {len(stored) - len(set(stored))} doubled, or their order is another")
    return {"kills": count, "events": len(stored), "found again by a later life": left, "lost": 0, "doubled": 0}


def run(count: int, seed: int, folder: Path) -> Figures:
    """`count` lives. There is nothing random in it."""
    with NatsServer(folder) as nats, PostgresServer() as postgres:
        return asyncio.run(_run(count, folder, nats, postgres.new_database()))
