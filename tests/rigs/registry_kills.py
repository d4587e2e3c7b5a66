"""kill -9 of the registry at every step of a commit: what there is then is the old state or the new one.

A super client has written; its commit is put in, and a registry works on it that ends itself at the first step. Another
one begins the same job again, and ends itself at the second; and so on, until one has no more steps to die at. After
each death the database must show the image, the branch and the job all as they were, or all as they will be; and what
each commit has made must be, to libvhdi, what the client wrote over what it wrote upon. In the end every version's
event has been published, once.

The process is killed, and not the machine: a layer file is synced before it has its name, and the block store's rigs
are about that.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from bootlink_disks import create_vhd_dynamic
from bootlink_events import ImageVersionAdded, WritebackCommitted
from bootlink_registry import commits
from bootlink_registry.database import Database
from bootlink_runtime import follow, logger
from lab.chassis import bus_on
from lab.disks import MIB, apply_changes, sparse_disk
from lab.nats import NatsServer
from lab.postgres import PostgresServer
from lab.registry import registry_on, until
from lab.room import Pc, Room, store_on
from lab.vhdi import read_chain
from rigs.figures import Figures, Violation
from rigs.sweep import Registries, Sweep, environment_of

SIZE: Final = 4 * MIB
PAGE: Final = 4096
WRITES: Final = 10
IMAGE: Final = "golden"


@dataclass(frozen=True)
class State:
    """What the database shows of the image and its super client."""

    versions: tuple[tuple[int, int | None, uuid.UUID], ...]  # number, parent and layer
    branches: int
    job: str
    layers: int
    dropped: int
    events: int  # of this commit that wait to be published


async def _state(database: Database, job: uuid.UUID) -> State:
    async with database.transaction(isolation="repeatable_read") as connection:
        versions = await connection.fetch("SELECT number, parent, layer FROM versions ORDER BY number")
        return State(
            tuple((row["number"], row["parent"], row["layer"]) for row in versions),
            await connection.fetchval("SELECT count(*) FROM branches"),
            await connection.fetchval("SELECT state FROM jobs WHERE id = $1", job),
            await connection.fetchval("SELECT count(*) FROM layers"),
            await connection.fetchval("SELECT count(*) FROM dropped_writebacks"),
            await connection.fetchval(
                "SELECT count(*) FROM outbox WHERE event LIKE '%image.version_added%' AND event LIKE $1",
                f"%v1.image.version_added.%{len(versions)}%",
            ),
        )


def _is_old(now: State, old: State) -> bool:
    return (now.versions, now.branches, now.layers, now.dropped, now.events) == (
        *(old.versions, old.branches, old.layers, old.dropped, old.events),
    ) and now.job in ("queued", "running")


def _is_new(now: State, old: State, *, job: uuid.UUID) -> bool:
    number = len(old.versions) + 1
    return (
        now.versions == (*old.versions, (number, number - 1 or None, job))
        and (now.branches, now.layers, now.job) == (0, old.layers + 1, "done")
        and now.dropped in (old.dropped, old.dropped + 1)  # thrown away by now, perhaps
    )


async def _write(room: Room, pc: Pc, chance: random.Random, model: bytearray) -> None:
    """Have the client write upon the newest version, as a super client, and power off."""
    newest = (await room.registry.get(f"/v1/images/{IMAGE}"))["versions"][0]["number"]
    await room.make_super(pc, IMAGE, version=newest)
    await pc.boot()
    for page in sorted(chance.sample(range(1, SIZE // PAGE), WRITES)):
        data = chance.randbytes(PAGE)
        await pc.disk.write(page * PAGE, data, fua=True)
        apply_changes(model, [(page * PAGE, data)])
    await pc.off()


async def _run(count: int, seed: int, folder: Path, stride: int, nats: NatsServer, database_url: str) -> Figures:
    chance = random.Random(seed)
    raw = sparse_disk(folder / "golden.img", SIZE)
    create_vhd_dynamic(folder / "golden.vhd", raw)
    model = bytearray(raw.read_bytes())
    environment = environment_of(folder, nats.url, database_url)
    database = Database(database_url, logger("rig"))
    await database.open()
    kills = sweeps = 0
    number = 0
    try:
        async with (
            store_on(nats.url, folder) as store,
            Registries(environment, folder / "registry.log", commits.KIND) as registries,
        ):
            while kills < count or not sweeps:
                async with registry_on(nats.url, database_url, folder / "data") as registry:
                    room = Room(registry, store)
                    if not sweeps:
                        await registry.add_image(IMAGE, folder / "golden.vhd")
                    pc = await room.pc(sweeps + 1)
                    await _write(room, pc, chance, model)
                async with database.transaction() as connection:
                    job = await commits.submit_commit(
                        connection, name=pc.name, note="", past=None, author="", source="/rig/lab"
                    )
                sweep: Sweep[State] = Sweep(database, registries, job, stride)
                try:
                    await sweep.run(partial(_state, database, job), is_old=_is_old, is_new=partial(_is_new, job=job))
                except Violation as violation:
                    raise Violation(f"seed {seed}, commit {sweeps + 1}: {violation}") from None
                kills += sweep.kills
                sweeps += 1
                number = await _judge(database, model, seed)
            async with registry_on(nats.url, database_url, folder / "data"):
                await _require_told_once(nats.url, number)
    finally:
        await database.close()
    return {"commits": sweeps, "kills": kills, "steps of a commit": kills * stride // sweeps, "violations": 0}


async def _judge(database: Database, model: bytearray, seed: int) -> int:
    """The newest version's chain is `model` to libvhdi; its number."""
    async with database.transaction() as connection:
        found = await connection.fetch(
            "SELECT v.number, l.path FROM versions v JOIN layers l ON l.id = v.layer ORDER BY v.number DESC"
        )
    if read_chain(*(Path(row["path"]) for row in found)) != model:
        raise Violation(f"seed {seed}: version {found[0]['number']} is not what was written")
    return int(found[0]["number"])


async def _require_told_once(url: str, newest: int) -> None:
    """Every commit's events have been published, and each once by its id."""
    wanted = {("version", number): 1 for number in range(2, newest + 1)}
    wanted |= {("committed", number): 1 for number in range(2, newest + 1)}
    async with bus_on(url, service="reader", make=False) as bus:

        async def told() -> Any:
            seen: dict[str, tuple[str, int]] = {}
            async for event in follow(bus, subject="bootlink.v1.>", wait=False):
                match event.decode():
                    case ImageVersionAdded(version=version) if version > 1:
                        seen[event.id] = ("version", version)
                    case WritebackCommitted(version=version):
                        seen[event.id] = ("committed", version)
            return Counter(seen.values())

        async def all_told() -> bool:
            return bool(await told() == wanted)

        await until(all_told, "the events of all commits, each once")


def run(count: int, seed: int, folder: Path, *, stride: int = 1) -> Figures:
    """At least `count` kills, and whole commits; one kill at each of `stride` steps."""
    with NatsServer(folder) as nats, PostgresServer() as postgres:
        return asyncio.run(_run(count, seed, folder, stride, nats, postgres.new_database()))
