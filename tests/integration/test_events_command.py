"""`bootlink events` against a real nats-server: what it replays, what it takes, and that a restart costs no event."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from bootlink_events import ImagePublished, ImageRemoved
from bootlink_runtime import Bus
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.registry import until
from lab.up import BOOTLINK, clean_environment

WAIT = 20.0


def published(n: int, channel: str = "production") -> ImagePublished:
    return ImagePublished(image=f"image-{n}", version=n, channel=channel, at=datetime.now(UTC))


async def stored(bus: Bus) -> None:
    await until(lambda: bus.waiting == 0, "all events to be stored")


class Command:
    """A running `bootlink events --json`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> Any:
        """The next event that it writes."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT):
            return json.loads(await self._process.stdout.readline())

    async def rest(self) -> list[Any]:
        """What it writes until it ends by itself, which must be well."""
        async with asyncio.timeout(WAIT):
            out, errors = await self._process.communicate()
        assert (self._process.returncode, errors) == (0, b""), errors
        return [json.loads(line) for line in out.splitlines()]


@contextlib.asynccontextmanager
async def events(nats: NatsServer, *options: str) -> AsyncIterator[Command]:
    process = await asyncio.create_subprocess_exec(
        *BOOTLINK,
        "events",
        "--json",
        *options,
        env=clean_environment() | {"BOOTLINK_NATS_URL": nats.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_stored_events_are_replayed_from_a_time_or_a_sequence_and_filtered(nats: NatsServer) -> None:
    async with bus_on(nats.url) as bus:
        for n in range(1, 5):
            bus.emit(published(n))
            bus.emit(ImageRemoved(image=f"image-{n}", version=n, at=datetime.now(UTC)))
        await stored(bus)
        asked = (
            ("--filter", "type=image.published data.version!=2", "--filter", "data.image=image-2"),
            ("--filter", "severity>=info type=image.published", "--since", "1h"),
            ("--after", "6"),
        )
        async with contextlib.AsyncExitStack() as stack:
            running = [await stack.enter_async_context(events(nats, *options)) for options in asked]
            found = [await command.rest() for command in running]
    assert [[int(event["sequence"]) for event in told] for told in found] == [
        [1, 3, 4, 5, 7],
        [1, 3, 5, 7],
        [7, 8],
    ]
    assert found[2][0]["data"]["image"] == "image-4"


async def test_a_follower_that_is_told_where_to_begin_misses_nothing_while_the_server_is_killed(
    nats: NatsServer,
) -> None:
    async with bus_on(nats.url) as bus:
        for n in range(3):
            bus.emit(published(n))
        await stored(bus)
        async with events(
            nats, "--follow", "--after", "1", "--filter", "type=image data.channel=production"
        ) as command:
            told = [await command.line(), await command.line()]
            nats.kill()
            for n in range(3, 6):
                bus.emit(published(n))
                bus.emit(published(n, channel="test"))
            nats.start()
            told += [await command.line() for _ in range(3)]
        sequences = [int(event["sequence"]) for event in told]
        assert [event["data"]["version"] for event in told] == [1, 2, 3, 4, 5]
        assert sequences[:2] == [2, 3]
        assert sequences == sorted(set(sequences))
        async with events(nats, "--after", str(sequences[3])) as command:  # a second one goes on where the first ended
            rest = await command.rest()
        assert [event["data"]["channel"] for event in rest] == ["test", "production", "test"]
