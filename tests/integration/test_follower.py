"""Following events on a real nats-server: what is lost on the way is asked for again, and a silent server is asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from bootlink_events import EVENTS_STREAM, BootId, ClientSeen
from bootlink_runtime import Bus, consumer, ended, follow, provision
from lab.chassis import bus_on
from lab.nats import NatsServer

WAIT = 20.0  # seconds; nothing here takes more than five


def seen(number: int) -> ClientSeen:
    return ClientSeen(mac=f"52:54:00:00:00:{number:02x}", boot_id=BootId.mint())


class Watch:
    """Whose events a follower has told of, in its order."""

    def __init__(self) -> None:
        self.got: list[int] = []

    async def run(self, bus: Bus) -> None:
        async for event in follow(bus):
            self.got.append(int(event.data["mac"][-2:], 16))

    async def until(self, *numbers: int) -> None:
        async with asyncio.timeout(WAIT):
            while len(self.got) < len(numbers):
                await asyncio.sleep(0.02)
        assert self.got == list(numbers)


@contextlib.asynccontextmanager
async def watching(bus: Bus) -> AsyncIterator[Watch]:
    watch = Watch()
    task = asyncio.create_task(watch.run(bus))
    try:
        yield watch
    finally:
        await ended(task)


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Sequences of messages that arrive and are not handed on, each once."""
    once: set[int] = set()
    given = Subscription.next_msg

    async def next_msg(self: Subscription, timeout: float | None = 1.0) -> Msg:
        while (message := await given(self, timeout)).metadata.sequence.stream in once:
            once.remove(message.metadata.sequence.stream)
        return message

    monkeypatch.setattr(Subscription, "next_msg", next_msg)
    return once


async def test_it_goes_on_after_the_server_was_killed(nats: NatsServer) -> None:
    async with bus_on(nats.url) as bus, watching(bus) as watch:
        bus.emit(seen(1))
        await watch.until(1)
        nats.kill()
        nats.start()
        bus.emit(seen(2))
        await watch.until(1, 2)


async def test_it_sees_new_events_after_the_store_was_lost(nats: NatsServer) -> None:
    async with bus_on(nats.url) as bus, watching(bus) as watch:
        for number in (1, 2, 3):
            bus.emit(seen(number))
        await watch.until(1, 2, 3)
        nats.lose_store()
        nats.start()
        async with asyncio.timeout(WAIT):
            await bus.epoch_after(1)
        await provision(bus)
        bus.emit(seen(4))
        await watch.until(1, 2, 3, 4)


async def test_an_event_that_was_lost_on_its_way_comes_before_those_behind_it(nats: NatsServer, lost: set[int]) -> None:
    lost |= {2, 3}
    async with bus_on(nats.url) as bus, watching(bus) as watch:
        for number in range(1, 6):
            bus.emit(seen(number))
        await watch.until(1, 2, 3, 4, 5)
    assert lost == set()


async def test_a_last_event_that_was_lost_on_its_way_comes_once_it_stays_silent(
    nats: NatsServer, lost: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "WATCHDOG_SECONDS", 0.2)
    lost.add(2)
    async with bus_on(nats.url) as bus, watching(bus) as watch:
        for number in (1, 2):
            bus.emit(seen(number))
        await watch.until(1, 2)
    assert lost == set()


async def test_a_consumer_that_the_server_has_lost_is_made_anew(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "WATCHDOG_SECONDS", 0.2)
    async with bus_on(nats.url) as bus, watching(bus) as watch:
        bus.emit(seen(1))
        await watch.until(1)
        (held,) = await bus.jetstream.consumers_info(EVENTS_STREAM)
        await bus.jetstream.delete_consumer(EVENTS_STREAM, held.name)
        bus.emit(seen(2))
        await watch.until(1, 2)


async def test_one_that_has_nothing_to_tell_keeps_its_consumer(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "WATCHDOG_SECONDS", 0.2)
    asked = 0
    given = JetStreamContext.PushSubscription.consumer_info

    async def counted(self: Any) -> Any:
        nonlocal asked
        asked += 1
        return await given(self)

    monkeypatch.setattr(JetStreamContext.PushSubscription, "consumer_info", counted)
    async with bus_on(nats.url) as bus, watching(bus) as watch:
        bus.emit(seen(1))
        await watch.until(1)
        (before,) = await bus.jetstream.consumers_info(EVENTS_STREAM)
        start = asked
        async with asyncio.timeout(WAIT):
            while asked < start + 3:
                await asyncio.sleep(0.05)
        (after,) = await bus.jetstream.consumers_info(EVENTS_STREAM)
        assert before.name == after.name
