"""What each may do over NATS, as a real nats-server holds it: every service, the command, and who only reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import BadRequestError

from bootlink.engines import nats_keys
from bootlink.engines.nats_keys import FIRST_INTEGRATION
from bootlink_events import EVENTS_STREAM, BootId, BootStarted, CloudEvent
from bootlink_events.access import BUCKETS, DURABLE_CONSUMERS, ROLES, SERVICES, permissions
from bootlink_events.commands import COMMAND_PREFIX, COMMANDS
from bootlink_events.plans import LEASES_BUCKET, PLANS_BUCKET
from bootlink_events.subjects import EVENTS
from bootlink_runtime import Bus, BusUnavailable, connect_once, consume, follow, survey
from bootlink_runtime.access import NatsAccess, access, new_key
from lab.chassis import bus_on
from lab.nats import NatsServer

WAIT = 10
MAC = "52-54-00-12-34-56"


def access_of(nats: NatsServer, role: str) -> NatsAccess:
    keys = nats.engine.keys
    file = keys.file(role) if role in ROLES else keys.integration_file(role)
    return access(url=nats.url, credentials=file.read_text())


class Spoken:
    """A connection with one key, and what the server refused it."""

    def __init__(self, client: Client, refused: list[str]) -> None:
        self.client = client
        self.refused = refused

    async def may_publish(self, subjects: Iterable[str]) -> set[str]:
        """Which of these it may. The server names each that it refuses, in lower case."""
        wanted = {subject.lower(): subject for subject in subjects}
        self.refused.clear()
        for subject in wanted.values():
            await self.client.publish(subject, b"no message of ours")
        await self.settled()
        return {subject for low, subject in wanted.items() if not any(f'publish to "{low}"' in r for r in self.refused)}

    async def may_subscribe(self, subject: str) -> bool:
        self.refused.clear()
        subscription = await self.client.subscribe(subject)
        await self.settled()
        if allowed := not any("subscription" in r for r in self.refused):
            await subscription.unsubscribe()
        return allowed

    async def settled(self) -> None:
        """Wait until the server has refused what nobody may, and so has done all before it.

        `flush` of nats-py does not tell that: its PING overtakes what waits to be sent (seen in 2.16)."""
        await self.client.publish("nobodys", b"")
        async with asyncio.timeout(WAIT):
            while not any('publish to "nobodys"' in r for r in self.refused):
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def speaking(nats: NatsServer, role: str) -> AsyncIterator[Spoken]:
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        refused.append(str(error))

    shown = access_of(nats, role)
    client = shown.client()
    await client.connect(nats.url, error_cb=on_error, **shown.options())
    try:
        yield Spoken(client, refused)
    finally:
        await client.close()


def started(number: int = 0) -> BootStarted:
    now = datetime.now(UTC)
    mac = f"52:54:00:00:00:{number:02x}"
    return BootStarted(mac=mac, client="pc", boot_id=BootId.mint(), started=now, ended=now, firmware="PXE", arch="bios")


async def test_tftp_cannot_publish_a_plan(nats: NatsServer) -> None:
    async with bus_on(nats.url) as bus:
        key = f"$KV.{PLANS_BUCKET}.{MAC}"
        async with speaking(nats, "tftp") as tftp:
            assert await tftp.may_publish([key]) == set()
            with pytest.raises(NatsError):
                await tftp.client.jetstream(timeout=0.5).publish(key, b"{}")
        async with speaking(nats, "registry") as registry:
            assert await registry.may_publish([key]) == {key}
        assert (await bus.jetstream.stream_info(f"KV_{PLANS_BUCKET}")).state.messages == 1


@pytest.mark.parametrize("role", ROLES)
async def test_each_may_say_what_the_tables_say_and_nothing_else(nats: NatsServer, role: str) -> None:
    events = {f"{kind.type}.{MAC}": role in kind.publishers for kind in EVENTS}
    commands = {f"{COMMAND_PREFIX}.{command.service}.lab.{command.verb}": role == "registry" for command in COMMANDS}
    buckets = {f"$KV.{bucket.name}.lease.1": role in bucket.writers for bucket in BUCKETS}
    streams = [EVENTS_STREAM, *(bucket.stream for bucket in BUCKETS)]
    ends = {f"$JS.API.STREAM.{verb}.{stream}": False for verb in ("DELETE", "PURGE") for stream in streams}
    taken = {f"$JS.API.CONSUMER.DELETE.{EVENTS_STREAM}.registry": role == "registry"}
    inboxes = {f"_INBOX.{access_of(nats, other).public_key}.x": False for other in ROLES}
    wanted = events | commands | buckets | ends | taken | inboxes
    async with bus_on(nats.url), speaking(nats, role) as spoken:
        assert await spoken.may_publish(wanted) == {subject for subject, may in wanted.items() if may}


@pytest.mark.parametrize("role", ROLES)
async def test_each_may_hear_its_own_and_nothing_of_others(nats: NatsServer, role: str) -> None:
    async with speaking(nats, role) as spoken:
        for other in ROLES:
            inbox = f"_INBOX.{access_of(nats, other).public_key}.x"
            assert await spoken.may_subscribe(inbox) == (other == role), inbox
        for service in SERVICES:
            carried_out = role == service and any(command.service == service for command in COMMANDS)
            assert await spoken.may_subscribe(f"{COMMAND_PREFIX}.{service}.lab.*") == carried_out, service
            assert await spoken.may_subscribe(f"bootlink.rpc.*.{service}.lab") == (role == service), service
        for everything in (">", "$JS.>", "$KV.>", "_INBOX.>"):
            assert not await spoken.may_subscribe(everything), everything


async def test_who_only_reads_sees_what_happens_and_what_did(nats: NatsServer) -> None:
    async with bus_on(nats.url) as bus, speaking(nats, FIRST_INTEGRATION) as reader:
        await bus.publish(CloudEvent.of(started(1), source="/dhcp/lab"))
        live = await reader.client.subscribe("bootlink.v1.>")
        await reader.settled()
        await bus.publish(CloudEvent.of(started(2), source="/dhcp/lab"))
        assert CloudEvent.parse((await live.next_msg(WAIT)).data).data["mac"] == "52:54:00:00:00:02"

        stream = reader.client.jetstream(timeout=WAIT)
        pushed = await stream.subscribe("bootlink.v1.boot.>", stream=EVENTS_STREAM, durable="billing")
        pulled = await stream.pull_subscribe("bootlink.v1.boot.>", stream=EVENTS_STREAM, durable="billing-too")
        ordered = await stream.subscribe(
            "bootlink.v1.boot.>",
            stream=EVENTS_STREAM,
            ordered_consumer=True,
            config=ConsumerConfig(name="replay", deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=2),
        )
        for _ in range(2):
            message = await pushed.next_msg(WAIT)
            await message.ack_sync(WAIT)
        for message in await pulled.fetch(2, timeout=WAIT):
            await message.ack_sync(WAIT)
        assert (await ordered.next_msg(WAIT)).metadata.sequence.stream == 2
        for durable in ("billing", "billing-too"):
            info = await stream.consumer_info(EVENTS_STREAM, durable)
            assert (info.num_pending, info.num_ack_pending) == (0, 0), durable

        theirs = Bus(
            nats.url,
            access=access_of(nats, FIRST_INTEGRATION),
            service="reader",
            node="lab",
            log=bus._log,
            health=bus._health,
        )
        theirs.start()
        try:
            async with asyncio.timeout(WAIT):
                assert [e.data["mac"][-2:] async for e in follow(theirs, wait=False)] == ["01", "02"]
        finally:
            await theirs.close()


async def test_who_may_not_ask_the_services_is_told_so_and_not_that_none_runs(nats: NatsServer) -> None:
    async with speaking(nats, FIRST_INTEGRATION) as reader:
        with pytest.raises(BusUnavailable, match="may not ask") as told:
            await survey(reader.client)
    assert "command.nk" in told.value.remedy


async def test_who_only_reads_can_change_nothing(nats: NatsServer) -> None:
    """Not by a message, not by the answer to a request, and not by taking the registry's consumer away."""
    async with bus_on(nats.url) as bus, speaking(nats, FIRST_INTEGRATION) as reader:
        registrys = ConsumerConfig(
            durable_name="registry", deliver_subject="_deliver.registry", ack_policy=AckPolicy.EXPLICIT
        )
        await bus.jetstream.add_consumer(EVENTS_STREAM, registrys)
        key = f"$KV.{PLANS_BUCKET}.{MAC}"
        everybodys = {subject for role in SERVICES for subject in permissions(role, "_INBOX.x").publish}
        said = {s.replace("*", "x").replace(">", "x") for s in everybodys}
        asked = {s for s in said if s.startswith(("$JS.API", "$JS.ACK", "$JS.FC")) and f".{EVENTS_STREAM}" in s}
        changing = {s for s in asked if any(f".{verb}." in s for verb in ("STREAM.CREATE", "STREAM.UPDATE"))}
        assert await reader.may_publish((said - asked) | changing | {key}) == set()

        await bus.client.flush(WAIT)
        for request in (f"$JS.API.STREAM.INFO.{EVENTS_STREAM}", "$JS.API.INFO"):
            await reader.client.publish(request, b"", reply=key)
            await reader.client.publish(request, b"", reply="bootlink.v1.boot.started.x")
        theft = {"name": "registry", "deliver_subject": f"{access_of(nats, FIRST_INTEGRATION).inbox}.x"}
        for name in ("", ".registry", ".registry.bootlink.v1.>", ".mine"):
            body = json.dumps({"stream_name": EVENTS_STREAM, "config": theft | {"ack_policy": "explicit"}}).encode()
            await reader.client.publish(f"$JS.API.CONSUMER.CREATE.{EVENTS_STREAM}{name}", body)
        await reader.client.publish(f"$JS.API.CONSUMER.DELETE.{EVENTS_STREAM}.registry", b"")
        await reader.settled()
        # Whatever came of that came before this, which the same server does after it.
        assert (await reader.client.jetstream(timeout=WAIT).stream_info(EVENTS_STREAM)).state.messages == 0
        assert (await bus.jetstream.stream_info(f"KV_{PLANS_BUCKET}")).state.messages == 0
        kept = await bus.jetstream.consumer_info(EVENTS_STREAM, "registry")
        assert kept.config.deliver_subject == "_deliver.registry"


async def test_who_only_reads_makes_so_many_consumers_and_ours_are_no_fewer_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_keys, "CONSUMERS_LIMIT", 5)
    with NatsServer(tmp_path) as nats:
        async with bus_on(nats.url) as bus, speaking(nats, FIRST_INTEGRATION) as reader:
            ours = ConsumerConfig(durable_name="registry", deliver_subject="_deliver.registry")
            await bus.jetstream.add_consumer(EVENTS_STREAM, ours)
            stream = reader.client.jetstream(timeout=WAIT)

            for n in range(4):
                await stream.add_consumer(EVENTS_STREAM, ConsumerConfig(name=f"mine-{n}", inactive_threshold=60))
            with pytest.raises(BadRequestError, match="maximum consumers limit"):
                await stream.add_consumer(EVENTS_STREAM, ConsumerConfig(name="one-more", inactive_threshold=60))
            with pytest.raises(BusUnavailable, match="maximum consumers limit") as told:
                await anext(follow(bus))  # which waits for what may come, but not for this
            assert told.value.remedy == "end other programs that read events"
            await bus.jetstream.add_consumer(EVENTS_STREAM, ours)  # as the registry does at each connection
            for bucket in BUCKETS:  # whose consumers are counted by themselves
                await bus.jetstream.add_consumer(bucket.stream, ConsumerConfig(name="services"))


@pytest.mark.parametrize("role", ["dhcp", FIRST_INTEGRATION])
async def test_nobody_has_another_consumer_deliver_events_to_the_registry(nats: NatsServer, role: str) -> None:
    """NATS lets whoever makes a consumer choose any subject to deliver to: forged events, or old ones anew."""
    handled: list[str] = []

    async def handle(event: CloudEvent) -> None:
        handled.append(event.data["mac"][-2:])

    stream = EVENTS_STREAM if role == FIRST_INTEGRATION else f"KV_{LEASES_BUCKET}"
    async with bus_on(nats.url) as bus, speaking(nats, role) as attacker:
        await bus.publish(CloudEvent.of(started(1), source="/dhcp/lab"))
        if role == "dhcp":
            forged = CloudEvent.of(started(66), source="/dhcp/lab").payload()
            await attacker.client.jetstream(timeout=WAIT).publish(f"$KV.{LEASES_BUCKET}.x", forged)
        consuming = asyncio.create_task(consume(bus, DURABLE_CONSUMERS[0], handle, bus._log))
        try:
            async with asyncio.timeout(WAIT):
                while handled != ["01"]:
                    await asyncio.sleep(0.01)
                name = "" if role == "dhcp" else "theirs"
                asked = {"deliver_subject": f"_deliver.{DURABLE_CONSUMERS[0]}", "ack_policy": "none"}
                body = {"stream_name": stream, "config": asked | ({"name": name} if name else {})}
                subject = ".".join(filter(None, ("$JS.API.CONSUMER.CREATE", stream, name)))
                made = json.loads((await attacker.client.request(subject, json.dumps(body).encode(), WAIT)).data)
                while (await bus.jetstream.consumer_info(stream, made["name"])).delivered.stream_seq < 1:
                    await asyncio.sleep(0.01)
                await bus.publish(CloudEvent.of(started(2), source="/dhcp/lab"))
                while "02" not in handled:
                    await asyncio.sleep(0.01)
                # What was delivered is with the registry before the answer to what it asks now.
                await bus.client.flush(WAIT)
        finally:
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)
    assert handled == ["01", "02"]


async def test_who_has_no_key_or_another_one_is_let_in_nowhere(nats: NatsServer) -> None:
    bare = nats.engine.bare_url
    for shown in (NatsAccess(), access(url=bare, credentials=new_key())):
        with pytest.raises(BusUnavailable, match="Authorization Violation") as told:
            await connect_once(bare, "stranger", shown)
        assert "BOOTLINK_NATS_CREDENTIALS_FILE" in told.value.remedy
