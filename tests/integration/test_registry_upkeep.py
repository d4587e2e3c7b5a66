"""What the registry stands on is lost, restored or held by two, while it runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.js.api import KeyValueConfig

from bootlink_events import EVENTS_STREAM, PLANS_BUCKET, LinkChanged
from bootlink_registry import layers, links, outbox, provisioning
from bootlink_registry.catalogue import Layer
from bootlink_registry.database import Database
from bootlink_registry.problems import Problem
from bootlink_runtime import BusUnavailable, Health, PlanBook, follow, logger, provision, replica
from lab.chassis import MAC, bus_on
from lab.nats import NatsServer
from lab.registry import WAIT, Registry, raw_disk, registry_on, until

LINKS = "bootlink.v1.link.changed.>"


async def test_a_stream_and_a_bucket_deleted_under_a_connection_that_stays_are_made_and_filled_again(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provisioning, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(replica, "WATCHDOG_SECONDS", 0.2)
    async with registry_on(nats.url, database, tmp_path / "data") as registry, bus_on(nats.url) as bus:
        await registry.add_client(MAC, "pc-07")
        await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
        await registry.all_told()
        await bus.jetstream.delete_key_value(PLANS_BUCKET)
        await bus.jetstream.delete_stream(EVENTS_STREAM)
        await registry.link("default", "", "demo")
        await registry.all_told()
        book = PlanBook(bus, folder=tmp_path, log=logger("reader"), health=Health("reader", "lab"))
        task = asyncio.create_task(book.run())
        await until(lambda: book.get(MAC) is not None, "the plan in the new bucket")
        assert [event.data["image"] async for event in follow(bus, subject=LINKS, wait=False)] == ["demo"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_there_is_not_made_again(nats: NatsServer) -> None:
    async with bus_on(nats.url, make=False) as bus:
        assert await provision(bus) is True
        before = await bus.jetstream.stream_info(EVENTS_STREAM)
        assert await provision(bus) is False
        after = await bus.jetstream.stream_info(EVENTS_STREAM)
        assert (before.created, before.config) == (after.created, after.config)


async def test_a_plan_that_nats_refuses_shows_in_the_registrys_health(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with bus_on(nats.url, make=False) as bus:
        await bus.jetstream.create_key_value(KeyValueConfig(bucket=PLANS_BUCKET, max_value_size=16))
        async with registry_on(nats.url, database, tmp_path / "data") as registry:

            def check() -> dict[str, object]:
                found: dict[str, object] = registry.chassis.health.report()["checks"]["delivery"]
                return found

            await until(lambda: check()["ok"] is True, "nothing to wait")
            await registry.add_client(MAC, "pc-07")
            await until(lambda: check()["ok"] is False, "the refusal to be shown")
            assert "message size exceeds" in str(check()["detail"])


async def test_events_restored_from_a_dump_of_another_server_are_published(database: str) -> None:
    store = await opened(database)
    event = LinkChanged.model_validate(
        {"scope": "default", "image": "i", "channel": "c", "policy": "keep", "at": "2026-01-01T00:00:00Z"}
    )
    async with store.transaction() as connection:
        await outbox.record(connection, event, source="/registry/lab")
        await connection.execute("UPDATE outbox SET xid = '4000000000'")  # the other server was much older
    async with store.transaction() as connection:
        assert [found.data["image"] for found in await outbox.oldest_events(connection)] == ["i"]
    await store.close()


async def test_of_two_removals_of_a_link_the_second_finds_none(database: str, tmp_path: Path) -> None:
    store = await opened(database)
    async with store.transaction() as connection:
        await connection.execute("INSERT INTO images (name) VALUES ('demo')")
        await connection.execute(
            """
            WITH made AS (
                INSERT INTO layers (id, path, format, virtual_size, file_size, mtime_ns, disk_usage)
                VALUES (gen_random_uuid(), '/x', 'raw', 512, 512, 0, 0) RETURNING id)
            INSERT INTO versions (image, number, content, layer) SELECT 'demo', 1, id, id FROM made
            """
        )
        await connection.execute("INSERT INTO channels (image, name, version) VALUES ('demo', 'production', 1)")
        await links.put_link(
            connection,
            scope="group",
            name="g",
            image="demo",
            channel=None,
            version=None,
            policy="keep",
            author="",
            source="/registry/lab",
        )

    async def remove() -> None:
        async with store.transaction() as connection:
            await links.remove_link(connection, scope="group", name="g", author="", source="/registry/lab")

    async with store.transaction() as connection:
        await links.remove_link(connection, scope="group", name="g", author="", source="/registry/lab")
        second = asyncio.create_task(remove())
        await asyncio.sleep(0.2)  # it waits for the first
        assert not second.done()
    with pytest.raises(Problem, match="group g has no link"):
        await asyncio.wait_for(second, WAIT)
    async with store.transaction() as connection:
        removed = [event for event in await outbox.oldest_events(connection) if event.data["removed"]]
    assert len(removed) == 1
    await store.close()


async def test_links_set_at_once_are_told_in_the_order_in_which_they_were_set(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
        for _ in range(10):
            policies = ["keep", "discard"] * 5
            await asyncio.gather(*(registry.link("default", "", "demo", policy=policy) for policy in policies))
            await registry.all_told()
            told = [event.data["policy"] async for event in follow(registry.chassis.bus, subject=LINKS, wait=False)]
            assert told[-1] == (await registry.get("/v1/links/default"))["policy"]


async def test_of_two_registries_that_see_a_file_differently_one_tells(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: set[layers.Layers] = set()
    look_at = layers.Layers._look_at

    async def noted(self: layers.Layers, looked_at: list[Layer], seconds: float | None) -> None:
        looked.add(self)
        await look_at(self, looked_at, seconds)

    monkeypatch.setattr(layers.Layers, "_look_at", noted)
    monkeypatch.setattr(layers, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(layers, "REST_SECONDS", 0.1)
    async with registry_on(nats.url, database, tmp_path / "one") as one:
        await until(lambda: delivers(one), "the first to deliver")
        await until(lambda: len(looked) == 1, "the first to look")
        async with registry_on(nats.url, database, tmp_path / "two"):
            await asyncio.sleep(1.5)
            assert len(looked) == 1


async def delivers(registry: Registry) -> bool:
    return bool((await registry.get("/v1/info"))["delivering"])


async def opened(url: str) -> Database:
    """The database, migrated."""
    store = Database(url, logger("test"))
    await store.open()
    return store


async def test_a_key_in_another_form_of_a_clients_address_is_removed_and_its_plan_kept(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with registry_on(nats.url, database, tmp_path / "data") as registry, bus_on(nats.url) as bus:
        await registry.add_client(MAC, "pc-07")
        before = (await registry.get("/v1/clients/pc-07"))["plan"]["revision"]

        async def compiled() -> bool:
            nonlocal before
            before = (await registry.get("/v1/clients/pc-07"))["plan"]["revision"]
            return before is not None

        await until(compiled, "the first plan")
        strange = MAC.replace(":", "")
        await bus.put(PLANS_BUCKET, strange, b"{}")

        async def gone() -> bool:
            bucket = await bus.key_value(PLANS_BUCKET)
            if bucket is None:
                raise BusUnavailable("no bucket")
            return strange not in await bucket.keys()

        await until(gone, "the strange key to be removed")
        assert (await registry.get("/v1/clients/pc-07"))["plan"]["revision"] == before
