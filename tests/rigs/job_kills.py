"""kill -9 of the registry at every step of a seal and of a compaction, as `registry_kills` does it to a commit.

A **seal**: a PC has kept what it wrote in its own layer; that becomes a layer file, and the link's policy changes. What
the client reads then must be, to libvhdi, what it wrote over what it wrote upon, seal upon seal.

A **compaction**: a version is written anew without blocks of zeros, and the new file takes the place of the old. What
the version shows must be the same byte for byte, and the user's own file unchanged.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from bootlink_disks import Stack, create_vhd_dynamic, open_layer, probe
from bootlink_registry import jobs, own_layers, store
from bootlink_registry.database import Database
from bootlink_runtime import logger
from lab.disks import MIB, apply_changes, digest, sparse_disk
from lab.nats import NatsServer
from lab.postgres import PostgresServer
from lab.registry import registry_on
from lab.room import Pc, Room, store_on
from lab.vhdi import read_chain
from rigs.figures import Figures, Violation
from rigs.sweep import Registries, Sweep, environment_of

SIZE: Final = 4 * MIB
PAGE: Final = 4096
WRITES: Final = 10
IMAGE: Final = "golden"
SEAL: Final = own_layers.SEAL.name
COMPACT: Final = "image.compact"


@dataclass(frozen=True)
class State:
    """What the database shows."""

    versions: tuple[tuple[str, int, uuid.UUID, uuid.UUID], ...]  # image, number, content and layer
    own: tuple[tuple[uuid.UUID | None, uuid.UUID], ...]  # layer and content
    policies: tuple[str, ...]  # of clients' links
    layers: frozenset[uuid.UUID]  # that something is read from
    retired: frozenset[uuid.UUID]
    dropped: frozenset[uuid.UUID]
    job: str


async def _state(database: Database, job: uuid.UUID) -> State:
    async with database.transaction(isolation="repeatable_read") as connection:
        versions = await connection.fetch("SELECT image, number, content, layer FROM versions ORDER BY image, number")
        own = await connection.fetch("SELECT layer, content FROM own_layers")
        links = await connection.fetch("SELECT policy FROM links WHERE scope = 'client' ORDER BY key")
        layers = await connection.fetch("SELECT id, retired FROM layers")
        dropped = await connection.fetch("SELECT content FROM dropped_writebacks")
        return State(
            tuple((row["image"], row["number"], row["content"], row["layer"]) for row in versions),
            tuple((row["layer"], row["content"]) for row in own),
            tuple(row["policy"] for row in links),
            frozenset(row["id"] for row in layers if row["retired"] is None),
            frozenset(row["id"] for row in layers if row["retired"] is not None),
            frozenset(row["content"] for row in dropped),
            await connection.fetchval("SELECT state FROM jobs WHERE id = $1", job),
        )


def _is_old(now: State, old: State) -> bool:
    def shown(state: State) -> tuple[object, ...]:
        return (state.versions, state.own, state.policies, state.layers, state.retired)

    return shown(now) == shown(old) and now.dropped <= old.dropped and now.job in ("queued", "running")


def _is_sealed(now: State, old: State, *, job: uuid.UUID) -> bool:
    ((_, content),) = old.own
    ((layer, new),) = now.own
    return (
        (now.versions, now.retired, now.layers) == (old.versions, old.retired, old.layers | {job})
        and (layer, now.policies, now.job) == (job, ("discard",), "done")
        and new != content
        and now.dropped <= old.dropped | {content}  # gone by now, perhaps
    )


def _is_compacted(now: State, old: State, *, job: uuid.UUID, image: str, user: uuid.UUID) -> bool:
    wanted = tuple((n, v, c, job if n == image else layer) for n, v, c, layer in old.versions)
    return (
        (now.versions, now.own, now.policies, now.dropped) == (wanted, old.own, old.policies, old.dropped)
        and (now.layers, now.retired) == (old.layers - {user} | {job}, old.retired)
        and now.job == "done"
    )


async def _swept(
    database: Database, registries: Registries, job: uuid.UUID, stride: int, is_new: Callable[..., bool]
) -> int:
    """The kills that this job took."""
    sweep: Sweep[State] = Sweep(database, registries, job, stride)
    await sweep.run(partial(_state, database, job), is_old=_is_old, is_new=partial(is_new, job=job))
    return sweep.kills


async def _require_clean(folder: Path, database: Database) -> None:
    """Once the sweeper has looked, the image store has those files alone that rows name."""
    images = folder / "data" / "images"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SETTLED_SECONDS", -1.0)
        await store.Sweeper(images, database, logger("rig"), retired_days=7).sweep()
    async with database.transaction() as connection:
        named = {Path(row["path"]) for row in await connection.fetch("SELECT path FROM layers WHERE owned")}
    found = {path for path in images.glob("*/*") if path.is_file()}
    if found != named:
        raise Violation(f"the image store has {sorted(found - named)} too many, and lacks {sorted(named - found)}")


# Seals


async def _keep(room: Room, pc: Pc, chance: random.Random, model: bytearray) -> None:
    """Have the client write into its own layer, and power off."""
    await room.registry.link("client", pc.name, IMAGE, own_layer=True, policy="keep")
    await pc.boot()
    for page in sorted(chance.sample(range(1, SIZE // PAGE), WRITES)):
        data = chance.randbytes(PAGE)
        await pc.disk.write(page * PAGE, data, fua=True)
        apply_changes(model, [(page * PAGE, data)])
    await pc.off()


async def _put_in_a_seal(database: Database, name: str) -> uuid.UUID:
    async with database.transaction() as connection:
        job = await own_layers.put_link(
            connection,
            name=name,
            lun=0,
            image=IMAGE,
            channel=None,
            version=None,
            policy="discard",
            chap="off",
            start=None,
            author="",
            source="/rig/lab",
        )
    assert isinstance(job, uuid.UUID)
    return job


async def _own_chain(database: Database) -> list[Path]:
    """The files that the client reads, top first."""
    async with database.transaction() as connection:
        found = await connection.fetch(
            """
            WITH RECURSIVE chain AS (
                SELECT l.*, 0 AS depth FROM layers l JOIN own_layers o ON o.layer = l.id
                UNION ALL SELECT l.*, c.depth + 1 FROM layers l JOIN chain c ON c.below = l.id)
            SELECT path FROM chain ORDER BY depth
            """
        )
    return [Path(row["path"]) for row in found]


async def _seals(
    count: int, seed: int, folder: Path, stride: int, nats_url: str, url: str, database: Database
) -> Figures:
    chance = random.Random(seed)
    raw = sparse_disk(folder / "golden.img", SIZE)
    create_vhd_dynamic(folder / "golden.vhd", raw)
    model, before = bytearray(raw.read_bytes()), digest(folder / "golden.vhd")
    kills = seals = 0
    environment = environment_of(folder, nats_url, url)
    async with store_on(nats_url, folder) as running, Registries(environment, folder / "log", SEAL) as registries:
        while kills < count or not seals:
            async with registry_on(nats_url, url, folder / "data") as registry:
                room = Room(registry, running)
                if not seals:
                    await registry.add_image(IMAGE, folder / "golden.vhd")
                pc = room.known(1) if seals else await room.pc(1)
                await _keep(room, pc, chance, model)
            kills += await _swept(database, registries, await _put_in_a_seal(database, pc.name), stride, _is_sealed)
            seals += 1
            if read_chain(*await _own_chain(database)) != model:
                raise Violation(f"seed {seed}: what was sealed is not what was written")
            await _require_clean(folder, database)
    if digest(folder / "golden.vhd") != before:
        raise Violation("the image's bytes have changed")
    return {"seals": seals, "kills": kills, "steps of a seal": kills * stride // seals, "violations": 0}


# Compactions


async def _compactions(
    count: int, seed: int, folder: Path, stride: int, nats_url: str, url: str, database: Database
) -> Figures:
    chance = random.Random(seed)
    kills = done = 0
    environment = environment_of(folder, nats_url, url)
    async with Registries(environment, folder / "log", COMPACT) as registries:
        while kills < count or not done:
            image = f"{IMAGE}-{done + 1}"
            raw = folder / f"{image}.img"
            signed = chance.randbytes(510) + b"\x55\xaa" + chance.randbytes(SIZE // 2 - 512)  # as a boot sector is
            raw.write_bytes(signed + bytes(SIZE // 2))  # zeros that take space
            before = digest(raw)
            async with registry_on(nats_url, url, folder / "data") as registry:
                await registry.add_image(image, raw)
            async with database.transaction() as connection:
                user = await connection.fetchval("SELECT layer FROM versions WHERE image = $1", image)
                job = await jobs.submit(
                    connection,
                    kind=COMPACT,
                    subject=image,
                    exclusive=f"image:{image}",
                    request={"version": 1, "format": "vhd", "note": "", "channel": None},
                    author="",
                    source="/rig/lab",
                )
            is_new = partial(_is_compacted, image=image, user=user)
            kills += await _swept(database, registries, job, stride, is_new)
            done += 1
            async with database.transaction() as connection:
                path = Path(await connection.fetchval("SELECT path FROM layers WHERE id = $1", job))
            layer = open_layer(path, probe(path).format)
            try:
                shown = Stack([layer]).read(0, SIZE)
            finally:
                layer.close()
            if shown != raw.read_bytes() or digest(raw) != before:
                raise Violation(f"seed {seed}: {path} does not show what {raw} does, or that has changed")
            await _require_clean(folder, database)
    return {"compactions": done, "kills": kills, "steps of a compaction": kills * stride // done, "violations": 0}


Rounds = Callable[[int, int, Path, int, str, str, Database], Awaitable[Figures]]


async def _run(
    rounds: Rounds, count: int, seed: int, folder: Path, stride: int, nats: str, database_url: str
) -> Figures:
    database = Database(database_url, logger("rig"))
    await database.open()
    try:
        return await rounds(count, seed, folder, stride, nats, database_url, database)
    finally:
        await database.close()


def _kills(rounds: Rounds, count: int, seed: int, folder: Path, stride: int) -> Figures:
    with NatsServer(folder) as nats, PostgresServer() as postgres:
        return asyncio.run(_run(rounds, count, seed, folder, stride, nats.url, postgres.new_database()))


def seals(count: int, seed: int, folder: Path, *, stride: int = 1) -> Figures:
    """At least `count` kills, and whole seals; one kill at each of `stride` steps."""
    return _kills(_seals, count, seed, folder, stride)


def compactions(count: int, seed: int, folder: Path, *, stride: int = 1) -> Figures:
    """At least `count` kills, and whole compactions; one kill at each of `stride` steps."""
    return _kills(_compactions, count, seed, folder, stride)
