"""Changes become plans and events on a real NATS and PostgreSQL, whichever of them is killed on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from bootlink_events import (
    LEASES_BUCKET,
    NODES_BUCKET,
    PLANS_BUCKET,
    BootPlan,
    CloudEvent,
    ImagePublished,
    NodeInfo,
    RefusalCause,
    mac_token,
)
from bootlink_registry import layers, outbox
from bootlink_registry.database import Connection, Database
from bootlink_runtime import Bus, BusUnavailable, PlanBook, connect_once, consume, follow, logger
from lab.chassis import MAC, bus_on, reader
from lab.nats import NatsServer
from lab.postgres import PostgresServer
from lab.process import Process
from lab.registry import AUTHORISED, TOKEN, WAIT, Registry, raw_disk, registry_on, until

LINK_CHANGED = "bootlink.v1.link.changed"
PORTAL = "127.0.0.1:3260"


def mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


def refusal(book: PlanBook, client: str = MAC) -> RefusalCause | None:
    plan = book.get(client)
    assert plan is not None
    return plan.refusal.cause if plan.refusal else None


async def announce(bus: Bus) -> None:
    info = NodeInfo(node="store", portals=(PORTAL,), seen=datetime.now(UTC))
    await bus.put(NODES_BUCKET, "store", info.model_dump_json().encode())


async def link_events(bus: Bus) -> list[CloudEvent]:
    return [event async for event in follow(bus, subject=f"{LINK_CHANGED}.>", wait=False)]


async def test_a_link_becomes_a_plan_and_then_an_event(nats: NatsServer, database: str, tmp_path: Path) -> None:
    async with (
        registry_on(nats.url, database, tmp_path / "data") as registry,
        reader(nats.url, tmp_path) as (bus, book),
    ):
        await registry.add_client(MAC, "pc-07", address="10.77.0.9")
        await until(lambda: book.get(MAC) is not None, "the plan of a new client")
        assert refusal(book) == "no_link"
        await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
        await announce(bus)
        await registry.link("client", "pc-07", "demo", policy="keep")
        await until(lambda: refusal(book) is None, "the plan with its disk")
        plan = book.get(MAC)
        assert plan is not None
        assert plan.bootable
        assert plan.portals == (PORTAL,)
        assert str(plan.address) == "10.77.0.9"
        assert plan.disks[0].layers[0].path == str(tmp_path / "demo.img")
        await until(lambda: _is(registry, delivered=True), "the API to see that the plan is delivered")
        (event,) = await link_events(bus)
        assert (event.data["name"], event.data["image"], event.data["policy"]) == ("pc-07", "demo", "keep")
        await registry.link("client", "pc-07", "demo", policy="keep")  # the same again
        assert (await registry.http.delete("/v1/links/client/pc-07")).status_code == 204
        await until(lambda: refusal(book) == "no_link", "the plan without a link")
        await until(lambda: _unpublished(registry, 0), "the outbox to be empty")
        assert [event.data["removed"] for event in await link_events(bus)] == [False, True]


async def _is(registry: Registry, *, delivered: bool) -> bool:
    return bool((await registry.get(f"/v1/clients/{MAC}"))["plan"]["delivered"] == delivered)


async def _unpublished(registry: Registry, count: int) -> bool:
    return bool((await registry.get("/v1/info"))["counts"]["unpublished_events"] == count)


async def test_revisions_grow_and_only_plans_that_differ_are_put(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with (
        registry_on(nats.url, database, tmp_path / "data") as registry,
        reader(nats.url, tmp_path) as (_, book),
    ):
        revisions: list[tuple[str, int]] = []
        book.subscribe(lambda client, plan: revisions.append((client, plan.revision if plan else 0)))
        await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
        await registry.add_client(mac(1), "pc-1", group="a")
        await registry.add_client(mac(2), "pc-2", group="b")
        await until(lambda: len(book) == 2, "both plans")
        await registry.link("group", "a", "demo")
        await until(lambda: refusal(book, mac(1)) == "no_blockstore", "the plan of the group's client")
        await registry.link("default", "", "demo")
        await until(lambda: refusal(book, mac(2)) == "no_blockstore", "the plan of the other")
        assert [client for client, _ in revisions] == [mac(1), mac(2), mac(1), mac(2)]
        assert [revision for _, revision in revisions] == sorted({revision for _, revision in revisions})


async def test_every_plan_arrives_and_no_event_is_lost_when_nats_is_killed_under_changes(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    seen: list[str] = []

    async def keep(event: CloudEvent) -> None:
        if event.type == LINK_CHANGED:
            seen.append(event.id)

    count = 24
    async with (
        registry_on(nats.url, database, tmp_path / "data") as registry,
        reader(nats.url, tmp_path) as (bus, book),
    ):
        consumer = asyncio.create_task(consume(bus, "keeper", keep, logger("test")))
        await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
        for number in range(count):
            await registry.add_client(mac(number), f"pc-{number}")
        for number in range(count):
            await registry.link("client", f"pc-{number}", "demo", policy="keep")
            if number in (6, 15):
                nats.kill()
            if number in (11, 20):
                nats.start()
            await asyncio.sleep(0.05)

        def all_there() -> bool:
            return all(plan.disks and plan.disks[0].policy == "keep" for plan in book) and len(book) == count

        await until(all_there, "every plan", seconds=40)
        await until(lambda: _unpublished(registry, 0), "the outbox to be empty")
        stored = await link_events(bus)
        ids = {event.id for event in stored}
        assert len(stored) == len(ids) == count
        assert {event.data["name"] for event in stored} == {f"pc-{number}" for number in range(count)}
        await until(lambda: set(seen) == ids, "the consumer to see each event")
        consumer.cancel()
        await asyncio.gather(consumer, return_exceptions=True)


async def test_changes_made_while_nats_was_never_there_follow_when_it_comes(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    nats.kill()
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
        await registry.add_client(MAC, "pc-07")
        await registry.link("client", "pc-07", "demo")
        client = await registry.get("/v1/clients/pc-07")
        assert client["plan"]["disks"][0]["image"] == "demo"
        assert not client["plan"]["delivered"]
        assert registry.chassis.health.ready, "the API does not need NATS"
        nats.start()
        async with reader(nats.url, tmp_path) as (bus, book):
            await until(lambda: book.get(MAC) is not None, "the plan")
            await until(lambda: _unpublished(registry, 0), "the outbox to be empty")
            assert len(await link_events(bus)) == 1


async def test_a_lost_store_of_nats_is_filled_again_from_the_database(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        for number in range(5):
            await registry.add_client(mac(number), f"pc-{number}")
        await until(lambda: _unpublished(registry, 0), "the outbox to be empty")
        nats.kill()
        shutil.rmtree(nats.engine.folder / "store")
        nats.start()
        async with reader(nats.url, tmp_path) as (_, book):
            await until(lambda: len(book) == 5, "all plans anew")


async def test_block_stores_are_remembered_over_a_restart_of_the_registry_and_an_empty_bucket(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with registry_on(nats.url, database, tmp_path / "data") as registry, bus_on(nats.url) as bus:
        await registry.add_client(MAC, "pc-07")
        await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
        await registry.link("default", "", "demo")
        await announce(bus)
        await until(lambda: (tmp_path / "data" / "registry" / "nodes.json").exists(), "the snapshot")
        await bus.put(NODES_BUCKET, "store", None)
    async with (
        registry_on(nats.url, database, tmp_path / "data") as registry,
        reader(nats.url, tmp_path) as (_, book),
    ):
        await until(lambda: book.get(MAC) is not None, "the plan")
        await until(lambda: _is(registry, delivered=True), "the plan of the second life to be delivered")
        plan = book.get(MAC)
        assert plan is not None
        assert plan.portals == (PORTAL,)


async def test_the_bucket_is_held_to_what_the_database_says(nats: NatsServer, database: str, tmp_path: Path) -> None:
    stranger = "52:54:00:00:00:99"
    async with (
        registry_on(nats.url, database, tmp_path / "data") as registry,
        reader(nats.url, tmp_path) as (bus, book),
    ):
        await registry.add_client(MAC, "pc-07")
        await until(lambda: book.get(MAC) is not None, "the plan")
        held = book.get(MAC)
        assert held is not None
        forged = held.model_copy(update={"client": "forged"})
        foreign = BootPlan(mac=stranger, client="x", revision=1, target="iqn.2026-11.io.bootlink:x")
        await bus.put(PLANS_BUCKET, mac_token(MAC), forged.model_dump_json().encode())
        await bus.put(PLANS_BUCKET, mac_token(stranger), foreign.model_dump_json().encode())
        await bus.put(PLANS_BUCKET, "rubbish", b"rubbish")
        await until(lambda: book.get(MAC) == held, "the forged plan to be put right")
        await until(lambda: book.get(stranger) is None, "the foreign plan to go")
        await bus.put(PLANS_BUCKET, mac_token(MAC), None)
        await until(lambda: book.get(MAC) is None or book.get(MAC) == held, "the deletion")
        await until(lambda: book.get(MAC) == held, "the deleted plan to come back")


async def test_a_file_that_goes_and_comes_back_shows_in_the_plan(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "LOOK_SECONDS", 0.1)
    disk = raw_disk(tmp_path / "demo.img")
    async with (
        registry_on(nats.url, database, tmp_path / "data") as registry,
        reader(nats.url, tmp_path) as (_, book),
    ):
        await registry.add_client(MAC, "pc-07")
        await registry.add_image("demo", disk)
        await registry.link("default", "", "demo")
        await until(lambda: book.get(MAC) is not None and refusal(book) == "no_blockstore", "the plan")
        disk.rename(tmp_path / "elsewhere.img")
        await until(lambda: refusal(book) == "image_missing", "the plan to tell that the file is gone")
        assert (await registry.get("/v1/images/demo"))["versions"][0]["fault"] == "missing"
        (tmp_path / "elsewhere.img").rename(disk)
        await until(lambda: refusal(book) == "no_blockstore", "the plan to be well again")
        raw_disk(disk, size=2 << 20)
        await until(lambda: refusal(book) == "image_missing", "the plan to tell that the file was changed")
        assert (await registry.get("/v1/images/demo"))["versions"][0]["fault"] == "changed"


# -- the outbox -----------------------------------------------------------------------------------------------------


async def test_a_relay_that_dies_between_publishing_and_forgetting_repeats_under_the_same_id(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    async def killed(_: Connection, ids: list[str]) -> None:
        raise Killed(ids)

    async def one_life() -> None:
        async with registry_on(nats.url, database, tmp_path / "data") as registry:
            await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
            async with asyncio.timeout(WAIT):
                await registry.chassis.stopping.wait()

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "forget_events", killed)
        with pytest.raises(Killed):
            await one_life()
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        await until(lambda: _unpublished(registry, 0), "the outbox to be empty")
        async with bus_on(nats.url) as bus:
            events = [event async for event in follow(bus, subject="bootlink.v1.image.published.>", wait=False)]
    assert len(events) == 1


async def test_events_of_a_slow_transaction_are_neither_skipped_nor_overtaken(nats: NatsServer, database: str) -> None:
    def published(image: str) -> ImagePublished:
        return ImagePublished(image=image, version=1, channel="production", at=datetime.now(UTC))

    async with open_database(database) as store:
        slow = store.transaction()
        slow_connection = await slow.__aenter__()
        await outbox.record(slow_connection, published("slow"), source="/test")
        async with store.transaction() as quick:
            await outbox.record(quick, published("quick"), source="/test")
        async with store.transaction() as relay:
            assert await outbox.oldest_events(relay) == [], "a sequence number alone would let the quick one pass"
        await slow.__aexit__(None, None, None)
        async with store.transaction() as relay:
            events = await outbox.oldest_events(relay)
    assert [event.data["image"] for event in events] == ["slow", "quick"]


@contextlib.asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    store = Database(url, logger("test"))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def test_a_registry_killed_again_and_again_loses_no_event_and_doubles_none(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    process = registry_process(nats.url, database, tmp_path)
    changed = 0
    async with httpx.AsyncClient(timeout=5, headers=AUTHORISED) as http:
        url = await started(process, http, tmp_path)
        disk = raw_disk(tmp_path / "demo.img")
        assert (await http.post(f"{url}/v1/images", json={"name": "demo", "path": str(disk)})).status_code == 201
        for life in range(4):
            for number in range(15):
                body = {"scope": "group", "name": f"g{life}-{number}", "image": "demo"}
                assert (await http.put(f"{url}/v1/links", json=body)).status_code == 200
                changed += 1
            process.kill()  # at once: some of these are published and some are not
            url = await started(process, http, tmp_path)
        async with bus_on(nats.url, make=False) as bus:

            async def all_stored() -> bool:
                with contextlib.suppress(BusUnavailable):
                    return len({event.id for event in await link_events(bus)}) == changed
                return False

            await until(all_stored, "every event")
            assert len(await link_events(bus)) == changed
    assert process.stop() == 0


def registry_process(nats_url: str, database_url: str, folder: Path) -> Process:
    env = os.environ | {
        "BOOTLINK_NATS_URL": nats_url,
        "BOOTLINK_DATABASE_URL": database_url,
        "BOOTLINK_DATA": str(folder / "data"),
        "BOOTLINK_ADMIN_TOKEN": TOKEN,
        "BOOTLINK_REGISTRY_API_PORT": "0",
        "BOOTLINK_LOG_FORMAT": "json",
    }
    return Process([sys.executable, "-m", "bootlink_registry"], log=folder / "registry.log", env=env)


async def started(process: Process, http: httpx.AsyncClient, folder: Path) -> str:
    """Start the process and wait until its API works; returns the API's URL, read from the log."""
    log = folder / "registry.log"
    begin = log.stat().st_size if log.exists() else 0
    process.start()
    found: list[str] = []

    def ready() -> bool:
        assert process.alive, log.read_text()
        lines = [json.loads(line) for line in log.read_bytes()[begin:].splitlines() if line.startswith(b"{")]
        found[:] = [line["address"] for line in lines if line.get("what") == "api"]
        return any(line["event"] == "ready" for line in lines)

    await until(ready, "the registry to be ready")
    return f"http://{found[0]}"


# -- several registries, and PostgreSQL that goes away --------------------------------------------------------------


async def test_of_two_registries_one_delivers_and_the_other_takes_over(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with reader(nats.url, tmp_path) as (_, book), contextlib.AsyncExitStack() as lives:
        first_life = await lives.enter_async_context(contextlib.AsyncExitStack())
        first = await first_life.enter_async_context(registry_on(nats.url, database, tmp_path / "one", node="one"))
        await first.add_client(mac(1), "pc-1")
        await until(lambda: len(book) == 1, "the first plan")
        second = await lives.enter_async_context(registry_on(nats.url, database, tmp_path / "two", node="two"))
        await second.add_client(mac(2), "pc-2")
        await until(lambda: len(book) == 2, "the plan of a change that the other registry took")
        assert [(await registry.get("/v1/info"))["delivering"] for registry in (first, second)] == [True, False]
        await first_life.aclose()
        await second.add_client(mac(3), "pc-3")
        await until(lambda: len(book) == 3, "the plan after the other registry took over")
        assert (await second.get("/v1/info"))["delivering"]


async def test_a_registry_recovers_by_itself_when_postgresql_is_killed(nats: NatsServer, tmp_path: Path) -> None:
    with PostgresServer() as server:
        async with (
            registry_on(nats.url, server.url, tmp_path / "data") as registry,
            reader(nats.url, tmp_path) as (_, book),
        ):
            await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
            await registry.add_client(MAC, "pc-07")
            await until(lambda: book.get(MAC) is not None, "the plan")
            for policy in ("keep", "discard"):
                server.kill()
                answer = await registry.http.get("/v1/clients")
                assert answer.status_code == 503, answer.text
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["retry-after"]
                await until(lambda: not registry.chassis.health.ready, "readiness to tell")
                await asyncio.to_thread(server.start)
                await until(lambda: registry.chassis.health.ready, "readiness to come back")
                await registry.link("client", "pc-07", "demo", policy=policy)

                def linked(wanted: str = policy) -> bool:
                    plan = book.get(MAC)
                    return plan is not None and bool(plan.disks) and plan.disks[0].policy == wanted

                await until(linked, "the plan after the restart")
            assert not registry.chassis.stopping.is_set()


async def test_the_event_stream_is_there_for_others_once_the_registry_ran(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with registry_on(nats.url, database, tmp_path / "data") as registry:

        def provisioned() -> bool:
            return bool(registry.chassis.health.report()["checks"]["bus"]["ok"])

        await until(provisioned, "the stream and the buckets")
    client = await connect_once(nats.url, "test")
    streams = {info.config.name for info in await client.jetstream().streams_info()}
    await client.close()
    assert streams == {"BOOTLINK_EVENTS", f"KV_{PLANS_BUCKET}", f"KV_{NODES_BUCKET}", f"KV_{LEASES_BUCKET}"}


async def test_more_changes_than_are_taken_at_once_are_everybodys(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what is shared would show the changes that are left, to clients that are only compiled with those."""
    monkeypatch.setattr(outbox, "RECOMPILE_BATCH", 3)
    records = Database(database, logger("test"))
    await records.open()
    try:
        async with records.transaction() as connection:
            await outbox.recompile_clients(connection, [f"52:54:00:00:00:0{number}" for number in range(2)])
            assert not (await outbox.oldest_recompiles(connection)).everybody
            await outbox.recompile(connection, "group", "room")
            assert (await outbox.oldest_recompiles(connection)).everybody
    finally:
        await records.close()
