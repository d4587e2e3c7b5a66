"""docs/integrations.md is true: its programs run as they stand there, against a real nats-server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shlex
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from nats.js.api import ConsumerConfig, DeliverPolicy

from bootlink_events import EVENTS_STREAM, BootFailed, BootId, CloudEvent
from bootlink_registry.webhooks.signing import new_secret, signed
from bootlink_runtime import Bus
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.registry import until
from lab.up import clean_environment

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text()
WAIT = 30.0


def program(language: str, having: str) -> str:
    (found,) = (text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if having in text)
    return str(found)


def failed(n: int) -> BootFailed:
    now = datetime.now(UTC)
    stage = {"started": now, "ended": now, "stage": "disk", "cause": f"cause {n}", "remedy": "none"}
    return BootFailed.model_validate(stage | {"mac": "52:54:00:12:34:56", "client": "pc-07", "boot_id": BootId.mint()})


@contextlib.asynccontextmanager
async def running(text: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", text),
        env=clean_environment() | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.communicate()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(WAIT):
        return (await process.stdout.readline()).decode()


async def emit(bus: Bus, *numbers: int) -> None:
    for n in numbers:
        bus.emit(failed(n))
    await until(lambda: bus.waiting == 0, "the events to be stored")


async def test_the_python_subscriber_has_twenty_lines_and_misses_nothing_while_it_or_nats_is_away(
    nats: NatsServer,
) -> None:
    text = program("python", "import nats")
    assert len([line for line in text.splitlines() if line.strip()]) <= 20
    async with bus_on(nats.url) as bus:
        await emit(bus, 1)
        async with running(text, **nats.as_integration()) as process:
            assert "cause 1" in await line(process)
            nats.kill()
            bus.emit(failed(2))
            nats.start()
            told = await line(process)
            assert told.startswith("bootlink.v1.boot.failed pc-07")
            assert "cause 2" in told
        await emit(bus, 3)
        async with running(text, **nats.as_integration()) as process:
            assert "cause 3" in await line(process)


async def test_the_subject_of_the_nats_command_finds_the_stream_and_replays_from_a_time(nats: NatsServer) -> None:
    """What the command does with these options, done by nats-py: it is in no package registry that tests may use."""
    words = shlex.split(program("sh", "nats --server").strip())
    assert words[:3] == ["nats", "--server", "$NATS_URL"]
    assert words[3:7] == ["--nkey", "$NATS_KEY", "--inbox-prefix", "$NATS_INBOX"]
    assert words[7:10] == ["subscribe", "--since", "1h"]
    subject = words[-1]
    async with bus_on(nats.url) as bus:
        await emit(bus, 1)
        assert await bus.jetstream.find_stream_name_by_subject(subject) == EVENTS_STREAM
        since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=since)  # type: ignore[arg-type]
        subscription = await bus.jetstream.subscribe(subject, config=config)
        assert json.loads((await subscription.next_msg(WAIT)).data)["data"]["cause"] == "cause 1"
        await subscription.unsubscribe()


async def test_the_receiver_takes_what_is_signed_and_nothing_else() -> None:
    secret = new_secret()
    event = CloudEvent.of(failed(1), source="/lab/a")
    with_port = (
        program("python", "http.server")
        .replace("http.server.HTTPServer(", "server = http.server.HTTPServer(")
        .replace(".serve_forever()", "; print(server.server_port, flush=True); server.serve_forever()")
    )
    async with running(with_port, WEBHOOK_SECRET=secret, PORT="0") as process:
        url = f"http://127.0.0.1:{(await line(process)).strip()}/"
        async with httpx.AsyncClient(timeout=WAIT) as http:
            for key, status in ((new_secret(), 401), (secret, 204)):
                headers = signed(event.id, datetime.now(UTC), event.payload(), (key,))
                answer = await http.post(url, content=event.payload(), headers=headers)
                assert answer.status_code == status
        assert (await line(process)).startswith(f"{event.id} bootlink.v1.boot.failed")
