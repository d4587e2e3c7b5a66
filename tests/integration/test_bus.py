"""The bus on a real nats-server that comes late, is killed and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import ConsumerConfig

from bootlink_events import (
    EVENTS_STREAM,
    LEASES_BUCKET,
    NODES_BUCKET,
    PLANS_BUCKET,
    BootId,
    BootPlan,
    ClientSeen,
    CloudEvent,
    mac_token,
)
from bootlink_runtime import (
    Bus,
    BusUnavailable,
    Compared,
    CompareFailed,
    Health,
    PlanBook,
    Replica,
    batch,
    compare_and_set_all,
    consume,
    consumer,
    ended,
    follow,
    logger,
    provision,
    put_all,
    replica,
    stores,
)
from bootlink_runtime.backlog import CONSUMERS_LIMIT, look
from lab.chassis import MAC, bus_on, plan
from lab.nats import NatsServer

WAIT = 20.0  # seconds; nothing here takes more than three


def seen(number: int) -> ClientSeen:
    return ClientSeen(mac=f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}", boot_id=BootId.mint())


async def put(bus: Bus, item: BootPlan) -> None:
    bucket = await bus.key_value(PLANS_BUCKET)
    assert bucket is not None
    await bucket.put(mac_token(item.mac), item.model_dump_json().encode())


@contextlib.asynccontextmanager
async def plan_book(bus: Bus, folder: Path) -> AsyncIterator[PlanBook]:
    book = PlanBook(bus, folder=folder, log=logger("test"), health=Health("test", "lab"))
    task = asyncio.create_task(book.run())
    try:
        yield book
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_revision(book: PlanBook, mac: str, revision: int) -> None:
    async with asyncio.timeout(WAIT):
        while (held := book.get(mac)) is None or held.revision < revision:
            await asyncio.sleep(0.02)


async def all_seen(bus: Bus) -> list[CloudEvent]:
    return [event async for event in follow(bus, wait=False)]


async def test_events_that_were_emitted_before_the_server_is_there_arrive(nats: NatsServer) -> None:
    nats.kill()
    bus = Bus(nats.url, service="test", node="lab", log=logger("test"), health=Health("test", "lab"))
    bus.start()
    bus.emit(seen(1))
    await asyncio.sleep(0.3)
    assert bus.waiting == 1
    nats.start()
    async with bus_on(nats.url) as other, asyncio.timeout(WAIT):
        while bus.waiting:
            await asyncio.sleep(0.02)
        assert [event.type for event in await all_seen(other)] == ["bootlink.v1.client.seen"]
    await bus.close()


async def test_no_event_is_lost_and_plans_keep_arriving_when_the_server_is_killed_under_load(
    nats: NatsServer, tmp_path: Path
) -> None:
    handled: list[str] = []

    async def handle(event: CloudEvent) -> None:
        handled.append(str(event.data["mac"]))

    async with (
        bus_on(nats.url, service="publisher") as publisher,
        bus_on(nats.url, service="reader", make=False) as reader,
        plan_book(reader, tmp_path) as book,
    ):
        task = asyncio.create_task(consume(reader, "test", handle, logger("test")))
        await put(publisher, plan(revision=1))
        await until_revision(book, MAC, 1)
        emitted = []
        for number in range(600):
            event = seen(number)
            emitted.append(event.mac)
            publisher.emit(event)
            if number in (150, 400):
                nats.kill()
            if number in (250, 450):
                nats.start()
            await asyncio.sleep(0.002)
        async with asyncio.timeout(WAIT):
            while set(handled) != set(emitted) or publisher.waiting:
                await asyncio.sleep(0.05)
        stored = await all_seen(publisher)
        assert len({event.id for event in stored}) == len(stored) == len(emitted)
        await put(publisher, plan(revision=2))
        await until_revision(book, MAC, 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_plan_that_was_taken_away_during_an_outage_is_gone_afterwards(nats: NatsServer, tmp_path: Path) -> None:
    other_mac = "52:54:00:00:00:01"
    async with bus_on(nats.url) as bus:
        await put(bus, plan())
        await put(bus, plan(other_mac))
        async with plan_book(bus, tmp_path) as book:
            await until_revision(book, other_mac, 1)
            await asyncio.sleep(1.5)  # the snapshot is written a second after a change
        bucket = await bus.key_value(PLANS_BUCKET)
        assert bucket is not None
        await bucket.delete(mac_token(other_mac))
        async with plan_book(bus, tmp_path) as book:
            assert book.get(other_mac) is not None, "the snapshot still has it"
            async with asyncio.timeout(WAIT):
                await book.synced()
            assert book.get(other_mac) is None
            assert book.get(MAC) is not None


async def test_a_service_that_starts_without_nats_serves_the_plans_of_its_snapshot(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with bus_on(nats.url) as bus, plan_book(bus, tmp_path) as book:
        await put(bus, plan(revision=7))
        await until_revision(book, MAC, 7)
        await asyncio.sleep(1.5)
    nats.kill()
    lonely = Bus(nats.url, service="test", node="lab", log=logger("test"), health=Health("test", "lab"))
    lonely.start()
    async with plan_book(lonely, tmp_path) as book:
        held = book.get(MAC)
        assert held is not None
        assert held.revision == 7
    await lonely.close()


async def test_a_full_reading_takes_no_plan_away_while_changes_come_in(nats: NatsServer, tmp_path: Path) -> None:
    macs = [seen(number).mac for number in range(400)]

    def plans(revision: int) -> dict[str, bytes | None]:
        return {mac_token(mac): plan(mac, revision=revision).model_dump_json().encode() for mac in macs}

    async with bus_on(nats.url) as bus:
        await put_all(bus, PLANS_BUCKET, plans(1))
        async with plan_book(bus, tmp_path) as book:
            await until_revision(book, macs[-1], 1)
            await asyncio.sleep(1.5)  # the snapshot is written a second after a change
        went: list[str] = []
        async with plan_book(bus, tmp_path) as book:
            book.subscribe(lambda mac, held: went.append(mac) if held is None else None)
            for revision in (2, 3, 4):
                await put_all(bus, PLANS_BUCKET, plans(revision))
            async with asyncio.timeout(WAIT):
                await book.synced()
            await until_revision(book, macs[-1], 4)
            assert len(book) == len(macs)
            assert book.report() == {"plans": 400, "oldest": 4, "newest": 4, "synced": True}
        assert went == []


async def test_a_gap_in_what_a_watch_delivers_has_the_bucket_read_anew(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py drops messages without a word when more of them wait than it holds."""
    numbers, lost = replica._numbers, [2]

    def with_a_gap(reply: str) -> tuple[int, int, int]:
        stored, delivered, pending = numbers(reply)
        return stored, delivered + (1 if lost and delivered == lost.pop() else 0), pending

    monkeypatch.setattr(replica, "_numbers", with_a_gap)
    async with bus_on(nats.url) as bus, plan_book(bus, tmp_path) as book:
        for revision in (1, 2, 3):
            await put(bus, plan(revision=revision))
        await until_revision(book, MAC, 3)
        assert not lost


@pytest.mark.parametrize("since", [(2, 12), (99, 0)], ids=["in batches", "one by one, as with older servers"])
async def test_many_keys_are_put_and_taken_out_at_once(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch, since: tuple[int, int]
) -> None:
    monkeypatch.setattr(stores, "BATCHES_SINCE", since)
    many: dict[str, bytes | None] = {f"key-{number}": str(number).encode() * 100 for number in range(1100)}
    large: dict[str, bytes | None] = {f"large-{number}": bytes(60_000) for number in range(40)}
    gone: dict[str, bytes | None] = {f"key-{number}": None for number in range(0, 1100, 2)}
    async with bus_on(nats.url) as bus:
        stream = f"KV_{PLANS_BUCKET}"
        assert bool((await bus.jetstream.stream_info(stream)).config.allow_atomic) == (since == (2, 12))
        held: Replica = Replica(bus, PLANS_BUCKET, None, lambda key, value: None, logger("test"))
        task = asyncio.create_task(held.run())
        await put_all(bus, PLANS_BUCKET, many | large)
        await put_all(bus, PLANS_BUCKET, gone)
        wanted = {key: value for key, value in (many | large | gone).items() if value is not None}
        async with asyncio.timeout(WAIT):
            while held.entries != wanted:
                await asyncio.sleep(0.02)
        await ended(task)


async def test_a_batch_that_the_server_refuses_is_put_one_by_one(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BATCH_KEYS", 1500)  # the server takes 1,000
    items: dict[str, bytes | None] = {f"key-{number}": b"x" for number in range(1200)}
    async with bus_on(nats.url) as bus:
        await put_all(bus, PLANS_BUCKET, items)
        assert (await bus.jetstream.stream_info(f"KV_{PLANS_BUCKET}")).state.messages == len(items)


@pytest.mark.parametrize("since", [(2, 12), (99, 0)], ids=["in a batch", "not at all, as older servers"])
async def test_keys_are_compared_and_set_all_or_none(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch, since: tuple[int, int]
) -> None:
    monkeypatch.setattr(stores, "BATCHES_SINCE", since)

    def writes(*revisions: int) -> list[Compared]:
        return [
            Compared(f"lease.{key}", f"{key}@{revision}".encode(), revision) for key, revision in enumerate(revisions)
        ]

    async with bus_on(nats.url) as bus:
        last = await compare_and_set_all(bus, LEASES_BUCKET, writes(0, 0, 0, 0), timeout=WAIT)
        bucket = await bus.key_value(LEASES_BUCKET)
        assert bucket is not None
        if since == (99, 0):
            assert last is None
            assert (await bus.jetstream.stream_info(f"KV_{LEASES_BUCKET}")).state.messages == 0
            return
        assert last is not None
        first = last - 3
        stored = [await bucket.get(f"lease.{key}") for key in range(4)]
        assert [entry.revision for entry in stored] == list(range(first, last + 1))
        # One that is at another revision: nothing of it is stored.
        assert await compare_and_set_all(bus, LEASES_BUCKET, writes(first, first, 0, 0), timeout=WAIT) is None
        assert [(await bucket.get(f"lease.{key}")).revision for key in range(4)] == list(range(first, last + 1))
        again = await compare_and_set_all(bus, LEASES_BUCKET, writes(first, first + 1), timeout=WAIT)
        assert again is not None
        assert (await bucket.get("lease.1")).revision == again
        assert (await bucket.get("lease.1")).value == f"1@{first + 1}".encode()


async def test_a_batch_that_nobody_answers_says_so(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "BATCH_TIMEOUT", 0.5)
    async with bus_on(nats.url) as bus:
        await bus.jetstream.delete_key_value(PLANS_BUCKET)
        with pytest.raises(BusUnavailable):
            await put_all(bus, PLANS_BUCKET, {f"key-{number}": b"x" for number in range(20)})


async def test_an_unreadable_plan_leaves_the_former_one_in_place(nats: NatsServer, tmp_path: Path) -> None:
    async with bus_on(nats.url) as bus, plan_book(bus, tmp_path) as book:
        await put(bus, plan(revision=1))
        await until_revision(book, MAC, 1)
        bucket = await bus.key_value(PLANS_BUCKET)
        assert bucket is not None
        await bucket.put(mac_token(MAC), b'{"mac": "52:54:00:12:34:56"}')
        marker = "52:54:00:00:00:02"
        await put(bus, plan(marker))
        await until_revision(book, marker, 1)
        held = book.get(MAC)
        assert held is not None
        assert held.revision == 1


async def test_a_plan_under_another_clients_key_is_not_taken(nats: NatsServer, tmp_path: Path) -> None:
    async with bus_on(nats.url) as bus, plan_book(bus, tmp_path) as book:
        bucket = await bus.key_value(PLANS_BUCKET)
        assert bucket is not None
        await bucket.put("52-54-00-00-00-09", plan().model_dump_json().encode())
        await put(bus, plan("52:54:00:00:00:02"))
        await until_revision(book, "52:54:00:00:00:02", 1)
        assert book.get("52:54:00:00:00:09") is None
        assert book.get(MAC) is None


def swallow_cancellation(monkeypatch: pytest.MonkeyPatch, bus: Bus, request: str) -> asyncio.Event:
    """Cancel whoever makes this request while its answer is there, as nats-py's `wait_for` hears it before Python 3.12:
    not at all. The event is set once that was done."""
    js, done = bus.jetstream, asyncio.Event()
    real = getattr(js, request)

    async def asked(*args: Any, **kwargs: Any) -> Any:
        answer = await real(*args, **kwargs)
        if not done.is_set():
            done.set()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return answer

    monkeypatch.setattr(js, request, asked)
    return done


async def watch_plans(bus: Bus) -> None:
    await Replica(bus, PLANS_BUCKET, None, lambda key, value: None, logger("test")).run()


async def consume_events(bus: Bus) -> None:
    async def handle(event: CloudEvent) -> None:
        return None

    await consume(bus, "test", handle, logger("test"))


async def follow_events(bus: Bus) -> None:
    async for _ in follow(bus):
        pass


@pytest.mark.parametrize(
    ("run", "request_"),
    [
        (watch_plans, "key_value"),
        (watch_plans, "add_consumer"),
        (consume_events, "subscribe"),
        (consume_events, "consumer_info"),
        (follow_events, "stream_info"),
        (follow_events, "subscribe"),
    ],
)
async def test_one_word_to_end_is_heard_while_an_answer_arrives(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch, run: Callable[[Bus], Awaitable[None]], request_: str
) -> None:
    """Seen as a test, and a Ctrl-C, that waited for ever: 11 of 400 ends right after a first plan."""
    monkeypatch.setattr(consumer, "WATCHDOG_SECONDS", 0.1)
    async with bus_on(nats.url) as bus:
        swallowed = swallow_cancellation(monkeypatch, bus, request_)
        task = asyncio.ensure_future(run(bus))
        async with asyncio.timeout(WAIT):
            await swallowed.wait()
            await asyncio.wait([task])
        assert task.cancelled()


async def test_a_handler_that_fails_gets_its_event_again(nats: NatsServer) -> None:
    tries: list[str] = []

    async def handle(event: CloudEvent) -> None:
        tries.append(event.id)
        if len(tries) == 1:
            raise RuntimeError("the database is away")

    async with bus_on(nats.url) as bus:
        task = asyncio.create_task(consume(bus, "test", handle, logger("test")))
        bus.emit(seen(1))
        async with asyncio.timeout(WAIT):
            while len(tries) < 2:
                await asyncio.sleep(0.02)
        assert tries[0] == tries[1]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_buckets_are_made_once_and_kept(nats: NatsServer) -> None:
    async with bus_on(nats.url) as bus:
        await put(bus, plan())
        async with bus_on(nats.url, service="again") as again:
            bucket = await again.key_value(PLANS_BUCKET)
            assert bucket is not None
            assert await bucket.keys() == [mac_token(MAC)]
            assert await again.key_value(NODES_BUCKET) is not None


async def test_a_connection_that_the_server_ended_for_good_is_made_anew(nats: NatsServer, tmp_path: Path) -> None:
    """nats-py closes its client for ever at an error that the server sends, such as a password that changed."""
    got: list[str] = []

    async def handle(event: CloudEvent) -> None:
        got.append(event.id)

    async with bus_on(nats.url) as bus, plan_book(bus, tmp_path) as book:
        task = asyncio.create_task(consume(bus, "test", handle, logger("test")))
        await put(bus, plan())
        await until_revision(book, MAC, 1)
        nats.lock_out()
        async with asyncio.timeout(WAIT):
            while bus.connected:
                await asyncio.sleep(0.02)
        bus.emit(seen(1))
        nats.reload()
        async with asyncio.timeout(WAIT):
            await bus.epoch_after(1)
            await put(bus, plan(revision=2))
            await until_revision(book, MAC, 2)
            while not got:
                await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_client_that_fails_while_it_closes_is_replaced_too(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py flushes before it calls back, and raises there when the server has gone first (seen now and then)."""
    async with bus_on(nats.url) as bus:
        client = bus.client

        async def gone(force_flush: bool = False) -> None:
            raise ConnectionResetError("the server has gone")

        monkeypatch.setattr(client, "_flush_pending", gone)
        with pytest.raises(ConnectionResetError):
            await client._close(client.CLOSED)
        for task in (client._reading_task, client._ping_interval_task, client._flusher_task):
            assert task is not None
            task.cancel()
        assert client._transport is not None
        client._transport.close()
        async with asyncio.timeout(WAIT):
            await bus.epoch_after(1)
        assert bus.client is not client
        assert bus.connected


@pytest.mark.parametrize("vendor_class", ["x" * 2_000_000, "\ud800"], ids=["too large", "no Unicode"])
async def test_an_event_that_can_never_be_sent_does_not_hold_up_the_next(nats: NatsServer, vendor_class: str) -> None:
    async with bus_on(nats.url) as bus:
        bus.emit(ClientSeen(mac=MAC, boot_id=BootId.mint(), vendor_class=vendor_class))
        bus.emit(seen(1))
        async with asyncio.timeout(WAIT):
            while bus.waiting:
                await asyncio.sleep(0.02)
        assert [event.data["mac"] for event in await all_seen(bus)] == [seen(1).mac]


async def test_a_bucket_that_is_lost_under_a_connection_that_stays_is_read_anew(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "WATCHDOG_SECONDS", 0.2)
    async with bus_on(nats.url) as bus, plan_book(bus, tmp_path) as book:
        await put(bus, plan())
        await until_revision(book, MAC, 1)
        await bus.jetstream.delete_key_value(PLANS_BUCKET)
        await provision(bus)
        other = "52:54:00:00:00:02"
        await put(bus, plan(other, revision=2))
        await until_revision(book, other, 2)
        async with asyncio.timeout(WAIT):
            while book.get(MAC) is not None:  # gone once the reading is complete
                await asyncio.sleep(0.02)


async def test_a_watch_that_delivers_is_left_alone(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "WATCHDOG_SECONDS", 0.05)
    async with bus_on(nats.url) as bus, plan_book(bus, tmp_path) as book:
        await book.synced()
        for revision in range(1, 21):
            await put(bus, plan(revision=revision))
            await until_revision(book, MAC, revision)
            await asyncio.sleep(0.02)
        info = await bus.jetstream.stream_info(f"KV_{PLANS_BUCKET}")
        assert info.state.consumer_count == 1


async def test_a_value_that_is_no_text_does_not_end_the_snapshots(nats: NatsServer, tmp_path: Path) -> None:
    file = tmp_path / "entries.json"

    def held() -> dict[str, str]:
        return dict(json.loads(file.read_text())["entries"]) if file.exists() else {}

    async with bus_on(nats.url) as bus:
        first = Replica(bus, PLANS_BUCKET, file, lambda key, value: None, logger("test"))
        task = asyncio.create_task(first.run())
        await bus.put(PLANS_BUCKET, "strange", b"\xff\x00\xfe")
        async with asyncio.timeout(WAIT):
            while "strange" not in held():
                await asyncio.sleep(0.05)
            await bus.put(PLANS_BUCKET, "next", b"text")
            while "next" not in held():
                await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = Replica(bus, PLANS_BUCKET, file, lambda key, value: None, logger("test"))
        assert again.load_snapshot() == 2
        assert again.entries == {"strange": b"\xff\x00\xfe", "next": b"text"}


def test_an_event_is_given_up_only_after_minutes_in_which_its_cause_may_pass() -> None:
    waits = [consumer.redeliver_after(deliveries) for deliveries in range(1, consumer.MAX_DELIVER)]
    assert waits[:3] == [2, 4, 8]
    assert max(waits) == consumer.REDELIVER_LONGEST
    assert sum(waits) > 10 * 60


async def test_of_two_that_set_a_key_one_is_told_that_the_other_came_before(nats: NatsServer) -> None:
    async with bus_on(nats.url) as one, bus_on(nats.url, make=False) as other:
        first = await one.compare_and_set(LEASES_BUCKET, "lease.a", b"1", 0)
        with pytest.raises(CompareFailed, match="not at revision 0"):
            await other.compare_and_set(LEASES_BUCKET, "lease.a", b"2", 0)
        second = await other.compare_and_set(LEASES_BUCKET, "lease.a", b"2", first)
        assert second > first
        with pytest.raises(CompareFailed):
            await one.compare_and_set(LEASES_BUCKET, "lease.a", b"3", first)
        nats.kill()
        with pytest.raises(BusUnavailable):
            await one.compare_and_set(LEASES_BUCKET, "lease.a", b"3", second)


async def test_a_replica_knows_the_revision_that_a_compare_and_set_must_name(nats: NatsServer) -> None:
    async with bus_on(nats.url) as bus:
        got: dict[str, bytes | None] = {}
        follower = Replica(bus, LEASES_BUCKET, None, got.__setitem__, logger("test"))
        task = asyncio.create_task(follower.run())
        try:
            revision = await bus.compare_and_set(LEASES_BUCKET, "lease.a", b"1", 0)
            async with asyncio.timeout(WAIT):
                while follower.revisions.get("lease.a") != revision:
                    await asyncio.sleep(0.01)
            assert got == {"lease.a": b"1"}
            await bus.compare_and_set(LEASES_BUCKET, "lease.a", b"2", follower.revisions["lease.a"])
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_the_registrys_backlog_is_told_however_many_consumers_others_have(nats: NatsServer) -> None:
    async with bus_on(nats.url) as bus:
        for name in (*(f"a{n}" for n in range(CONSUMERS_LIMIT + 1)), "registry"):
            await bus.jetstream.add_consumer(EVENTS_STREAM, ConsumerConfig(durable_name=name))
        await bus.publish(CloudEvent.of(seen(1), source="/dhcp/lab"))
        async with asyncio.timeout(10):  # a consumer hears of the event a moment after the stream has it
            while (told := await look(bus)).consumers["registry"].undelivered != 1:
                await asyncio.sleep(0.05)
    assert len(told.consumers) == CONSUMERS_LIMIT
