"""Two block stores: what a client keeps lies on one of them, and it is never given an empty disk on the other."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_events import BootId, target_iqn
from bootlink_registry import homes, outbox, writebacks
from bootlink_registry.database import Database
from bootlink_registry.delivery import Delivery
from bootlink_runtime import Chassis, logger
from lab.blockstore import identity
from lab.disks import digest, sparse_disk
from lab.iscsi import Initiator, LoginFailed
from lab.nats import NatsServer
from lab.registry import Registry, problem, registry_on, until
from lab.room import Pc, Room, store_on

SIZE = 1 << 20
PAGE = 4096
NODES = ("east", "west")


class House:
    """A registry, and two block stores that share the image store; each can be switched off and on."""

    def __init__(self, registry: Registry, nats_url: str, folder: Path) -> None:
        self.registry = registry
        self._nats_url = nats_url
        self._folder = folder
        self._running: dict[str, tuple[contextlib.AsyncExitStack, Chassis]] = {}

    async def start(self, node: str) -> None:
        stack = contextlib.AsyncExitStack()
        images = self._folder / "data" / "images"
        store = await stack.enter_async_context(store_on(self._nats_url, self._folder / node, node=node, images=images))
        self._running[node] = stack, store

    async def stop(self, node: str) -> None:
        await self._running.pop(node)[0].aclose()

    async def close(self) -> None:
        for node in list(self._running):
            await self.stop(node)

    def at(self, node: str) -> Room:
        """What clients see of this block store."""
        return Room(self.registry, self._running[node][1])

    async def plan(self, pc: Pc) -> Any:
        return (await self.registry.get(f"/v1/clients/{pc.name}"))["plan"]

    async def home(self, pc: Pc) -> str:
        """The node that its delivered plan names, and whose portal alone it names."""

        async def named() -> bool:
            plan = await self.plan(pc)
            return plan["home"] is not None and plan["delivered"] and plan["refusal"] is None

        await until(named, f"a home of {pc.name}")
        plan = await self.plan(pc)
        assert plan["portals"] == [f"127.0.0.1:{self.at(plan['home']).portal[1]}"]
        return str(plan["home"])

    async def refusal(self, pc: Pc, cause: str | None) -> Any:
        async def said() -> bool:
            plan = await self.plan(pc)
            return plan["delivered"] and (plan["refusal"] or {}).get("cause") == cause

        await until(said, f"the refusal {cause} of {pc.name}")
        return (await self.plan(pc))["refusal"]

    async def pc(self, number: int, node: str | None = None) -> Pc:
        """A client, which boots from this node; its home by default."""
        found = await Room(self.registry, self._running[NODES[0]][1]).pc(number)
        return found if node is None else self.seated(found, node)

    def seated(self, pc: Pc, node: str) -> Pc:
        """The same client, which boots from this node."""
        moved = Pc(self.at(node), pc.mac, pc.name)
        moved.boot_id = pc.boot_id
        return moved


def other(node: str) -> str:
    return NODES[1 - NODES.index(node)]


@pytest.fixture
async def house(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    monkeypatch.setattr("bootlink_registry.nodes.NODE_TTL_SECONDS", 2.0)
    monkeypatch.setattr("bootlink_runtime.chassis.ANNOUNCE_SECONDS", 0.5)
    monkeypatch.setattr("bootlink_registry.nodes.TICK_SECONDS", 0.2)
    monkeypatch.setattr(writebacks, "LOOK_SECONDS", 0.1)
    golden = sparse_disk(tmp_path / "golden.img", SIZE)
    before = digest(golden)
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        running = House(registry, nats.url, tmp_path)
        try:
            for node in NODES:
                await running.start(node)
            await registry.add_image("win11", golden)
            yield running
        finally:
            await running.close()
    assert digest(golden) == before


async def write(pc: Pc, rng: random.Random) -> tuple[int, bytes]:
    at, data = rng.randrange(1, SIZE // PAGE) * PAGE, rng.randbytes(PAGE)
    await pc.disk.write(at, data, fua=True)
    return at, data


async def refused_at(house: House, pc: Pc, node: str) -> None:
    """This block store, which has the client's plan, gives it no disk."""
    boot = BootId.mint(after=pc.boot_id)
    with pytest.raises(LoginFailed):
        await Initiator.logged_in(*house.at(node).portal, name=identity(boot, pc.mac), target=target_iqn(pc.mac))


@pytest.mark.parametrize("lasting", ["super", "keep", "own"])
async def test_what_a_client_keeps_is_served_by_the_block_store_that_has_it_and_by_no_other(
    house: House, lasting: str
) -> None:
    rng, pc = random.Random(1), await house.pc(1)
    if lasting == "super":
        await house.at(NODES[0]).make_super(pc, "win11")
    else:
        await house.registry.link("client", pc.name, "win11", policy="keep", own_layer=lasting == "own")
    home = await house.home(pc)
    away = other(home)
    pc = house.seated(pc, home)
    await house.seated(pc, away).planned()
    await refused_at(house, pc, away)
    await pc.boot()
    at, data = await write(pc, rng)
    await pc.off()

    await house.stop(home)
    refusal = await house.refusal(pc, "home_away")
    assert home in refusal["detail"]
    assert "bootlink client leave-node" in refusal["remedy"]
    await refused_at(house, pc, away)
    if lasting == "super":
        job = await house.at(away).job(f"/v1/clients/{pc.name}/commit", {})
        assert (job["state"], f"block store {home}" in job["problem"]["detail"]) == ("failed", True)
    if lasting == "own":
        body = {"scope": "client", "name": pc.name, "image": "win11", "own_layer": True, "policy": "discard"}
        sealing = await house.registry.http.put("/v1/links", json=body)
        job = await house.at(away).over(sealing.json())
        assert (job["state"], f"block store {home}" in job["problem"]["detail"]) == ("failed", True)

    await house.start(home)
    assert await house.home(pc) == home
    pc = house.seated(pc, home)
    await pc.boot()
    assert await pc.disk.read(at, PAGE) == data
    await pc.off()
    if lasting == "super":
        assert (await house.at(home).commit(pc))["branch"] == "ended"


async def test_a_client_that_has_never_booted_is_sent_elsewhere_and_one_that_has_only_where_that_is_said(
    house: House,
) -> None:
    rng, pc = random.Random(2), await house.pc(1)
    await house.registry.link("client", pc.name, "win11", policy="keep")
    first = await house.home(pc)
    await house.stop(first)
    second = other(first)

    async def moved() -> bool:
        plan = await house.plan(pc)
        return bool(plan["home"] == second and plan["delivered"])

    await until(moved, "another home for a client that has nothing yet")
    await house.start(first)
    pc = house.seated(pc, second)
    running = problem(await house.registry.http.delete(f"/v1/clients/{pc.name}/home"), 409)
    assert f"block store {second}" in running["detail"]
    await pc.boot()
    at, data = await write(pc, rng)
    boot = str(pc.boot_id)
    await pc.off()
    await house.stop(second)
    await house.refusal(pc, "home_away")

    assert (await house.registry.http.delete(f"/v1/clients/{pc.name}/home")).status_code == 204
    assert await house.home(pc) == first
    pc = house.seated(pc, first)
    await pc.boot()
    assert await pc.disk.read(at, PAGE) != data
    await write(pc, rng)
    await pc.off()
    await house.start(second)  # with what was given up
    assert await house.home(pc) == first
    held = await house.registry.get(f"/v1/clients/{pc.name}/writebacks")
    assert {(one["node"], one["boot_id"] == boot) for one in held} == {(first, False), (second, True)}


async def test_what_is_to_be_thrown_away_is_asked_of_the_block_store_that_has_it_and_not_only_of_those_that_run(
    house: House,
) -> None:
    """Forgotten before that, it would stay there for ever; and what was written after its commit would be nothing's."""
    pc = await house.pc(1)
    await house.at(NODES[0]).make_super(pc, "win11")
    home = await house.home(pc)
    pc = house.seated(pc, home)
    await pc.boot()
    await write(pc, random.Random(4))
    await pc.off()
    await house.stop(home)
    await house.refusal(pc, "home_away")
    path = f"/v1/clients/{pc.name}"
    assert (await house.registry.http.delete(f"{path}/branch")).status_code == 204
    await asyncio.sleep(1.0)  # some looks, at which the other block store says that it has nothing
    await house.start(home)

    async def gone() -> bool:
        answer = await house.registry.http.get(f"{path}/writebacks")
        return answer.status_code == 200 and answer.json() == []

    await until(gone, "what was written on the branch to be thrown away")


async def test_who_is_at_home_where_is_asked_of_the_block_stores_where_the_registry_does_not_know(
    house: House, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a dump was restored that is older than what clients keep."""
    monkeypatch.setattr(homes, "CENSUS_SECONDS", 0.5)
    rng = random.Random(3)
    pcs = [await house.pc(number) for number in range(1, 7)]
    kept = {}
    for pc in pcs:
        await house.registry.link("client", pc.name, "win11", policy="keep")
        node = await house.home(pc)
        seated = house.seated(pc, node)
        await seated.boot()
        kept[pc.name] = node, *await write(seated, rng)
        await seated.off()
    assert {node for node, _, _ in kept.values()} == set(NODES), "they are spread"
    records = Database(database, logger("test"))
    await records.open()
    try:
        async with records.transaction() as connection:
            await connection.execute("UPDATE homes SET node = CASE node WHEN 'east' THEN 'west' ELSE 'east' END")
            await connection.execute("UPDATE homes SET held = false, boot_id = NULL, since = now() + interval '1 hour'")
    finally:
        await records.close()
    for node in NODES:  # so they are asked anew
        await house.stop(node)
        await house.start(node)

    async def right() -> bool:
        return [(await house.plan(pc))["home"] for pc in pcs] == [kept[pc.name][0] for pc in pcs]

    await until(right, "the homes that there were")
    for pc in pcs:
        node, at, data = kept[pc.name]
        assert await house.home(pc) == node
        seated = house.seated(pc, node)
        await seated.boot()
        assert await seated.disk.read(at, PAGE) == data
        await seated.off()


async def test_a_home_that_a_census_moves_is_in_its_plan_with_the_next_change_of_anybodys(
    house: House, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round for one client takes the census in, and no full round comes after it for minutes."""
    keeps, another = await house.pc(1), await house.pc(2)
    await house.registry.link("client", keeps.name, "win11", policy="keep")
    node = await house.home(keeps)
    seated = house.seated(keeps, node)
    await seated.boot()
    await write(seated, random.Random(4))
    await seated.off()
    records = Database(database, logger("test"))
    await records.open()
    try:
        async with records.transaction() as connection:
            await connection.execute(
                "UPDATE homes SET node = $1, held = false, boot_id = NULL, since = now() + interval '1 hour'",
                other(node),
            )
            await outbox.recompile(connection, "client", keeps.mac)
    finally:
        await records.close()

    async def astray() -> bool:
        plan = await house.plan(keeps)
        return bool(plan["home"] == other(node) and plan["delivered"])

    await until(astray, "the home that it does not have")
    monkeypatch.setattr(Delivery, "full_round", lambda self: None)
    monkeypatch.setattr(homes, "CENSUS_SECONDS", 0.2)
    policies = itertools.cycle(("keep", "discard"))

    async def moved() -> bool:
        await house.registry.link("client", another.name, "win11", policy=next(policies))
        plan = await house.plan(keeps)
        return bool(plan["home"] == node and plan["delivered"])

    await until(moved, "the home that it had")
