"""Commands: one node is asked and answers; what it refuses, and what comes too late, is told to the asker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bootlink_events.commands import COMMANDS, Answer, ClientDisconnected, ClientWoken, DisconnectClient, WakeClient
from bootlink_runtime import BusUnavailable, Chassis, CommandError, Service, ServiceSettings, rpc, running, survey
from lab.chassis import MAC, bus_on
from lab.nats import NatsServer

WAIT = 20.0


@asynccontextmanager
async def dhcp(folder: Path, url: str, handlers: rpc.Handlers, *, node: str = "lab.one") -> AsyncIterator[Chassis]:
    """A service called dhcp that carries out these commands; the block begins when it can be found."""

    async def run(chassis: Chassis, _: ServiceSettings) -> None:
        chassis.serve_commands(handlers)
        chassis.ready()
        await chassis.stopping.wait()

    settings = ServiceSettings(data=folder / node, nats_url=url, node=node)
    async with running(Service("dhcp", ServiceSettings, run), settings) as chassis:
        async with asyncio.timeout(WAIT):
            while not any(report["node"] == node for report in await _survey(chassis)):
                await asyncio.sleep(0.05)
        yield chassis


async def _survey(chassis: Chassis) -> list[dict[str, object]]:
    await chassis.bus.epoch_after(0)
    return await survey(chassis.bus.client)


async def woken(command: WakeClient) -> ClientWoken:
    return ClientWoken(interfaces=("eth1", command.mac))


async def asleep(_: WakeClient) -> ClientWoken:
    raise CommandError("eth1 is down", "plug it in")


async def test_a_node_is_asked_and_answers(nats: NatsServer, tmp_path: Path) -> None:
    async with dhcp(tmp_path, nats.url, {WakeClient: woken}), bus_on(nats.url, make=False) as bus:
        assert await rpc.call(bus, "dhcp", "lab.one", WakeClient(mac=MAC)) == ClientWoken(interfaces=("eth1", MAC))


async def test_what_is_refused_says_why_and_what_to_do(nats: NatsServer, tmp_path: Path) -> None:
    async with dhcp(tmp_path, nats.url, {WakeClient: asleep}), bus_on(nats.url, make=False) as bus:
        with pytest.raises(CommandError) as caught:
            await rpc.call(bus, "dhcp", "lab.one", WakeClient(mac=MAC))
    assert (caught.value.cause, caught.value.detail, caught.value.remedy) == ("refused", "eth1 is down", "plug it in")


async def test_all_nodes_are_asked(nats: NatsServer, tmp_path: Path) -> None:
    async with (
        dhcp(tmp_path, nats.url, {WakeClient: woken}),
        dhcp(tmp_path, nats.url, {WakeClient: asleep}, node="lab.two"),
        bus_on(nats.url, make=False) as bus,
    ):
        answers = await rpc.call_all(bus, "dhcp", WakeClient(mac=MAC))
        assert await rpc.call_all(bus, "blockstore", DisconnectClient(mac=MAC)) == {}
    assert answers["lab.one"] == ClientWoken(interfaces=("eth1", MAC))
    assert isinstance(answers["lab.two"], CommandError)
    assert set(answers) == {"lab.one", "lab.two"}


async def test_a_command_that_comes_after_its_deadline_is_not_carried_out(nats: NatsServer, tmp_path: Path) -> None:
    """A client of NATS keeps what it could not send, and delivers it when the server is back."""
    carried_out: list[Answer] = []

    async def wake(command: WakeClient) -> ClientWoken:
        carried_out.append(await woken(command))
        return ClientWoken(interfaces=())

    late = datetime.now(UTC) - timedelta(seconds=1)
    call = {"id": "1", "source": "/test/lab", "deadline": late.isoformat(), "command": {"mac": MAC}}
    async with dhcp(tmp_path, nats.url, {WakeClient: wake}), bus_on(nats.url, make=False) as bus:
        message = await bus.client.request("bootlink.command.dhcp.lab-one.wake_client", json.dumps(call).encode())
    assert json.loads(message.data)["fault"]["cause"] == "stale"
    assert not carried_out


async def test_garbage_and_a_fault_of_ours_are_answered_and_the_service_goes_on(
    nats: NatsServer, tmp_path: Path
) -> None:
    async def broken(_: DisconnectClient) -> ClientDisconnected:
        raise ZeroDivisionError

    soon = (datetime.now(UTC) + timedelta(seconds=WAIT)).isoformat()
    async with (
        dhcp(tmp_path, nats.url, {WakeClient: woken, DisconnectClient: broken}) as chassis,
        bus_on(nats.url, make=False) as bus,
    ):
        for payload in (
            b"",
            b"\xff\x00",
            b"[]",
            b"{}",
            json.dumps({"id": "1", "source": "x", "deadline": soon, "command": {"mac": "none"}}).encode(),
        ):
            message = await bus.client.request("bootlink.command.dhcp.lab-one.wake_client", payload)
            assert json.loads(message.data)["fault"]["cause"] == "unreadable"
        with pytest.raises(CommandError) as caught:
            await rpc.call(bus, "dhcp", "lab.one", DisconnectClient(mac=MAC))
        assert caught.value.cause == "broken"
        assert await rpc.call(bus, "dhcp", "lab.one", WakeClient(mac=MAC))
        assert chassis.failure is None


async def test_who_does_not_answer_is_told_from_who_is_not_there(nats: NatsServer, tmp_path: Path) -> None:
    async def never(_: WakeClient) -> ClientWoken:
        await asyncio.Event().wait()
        raise AssertionError

    async with dhcp(tmp_path, nats.url, {WakeClient: never}), bus_on(nats.url, make=False) as bus:
        with pytest.raises(CommandError, match="did not answer") as slow:
            await rpc.call(bus, "dhcp", "lab.one", WakeClient(mac=MAC), seconds=0.3)
        with pytest.raises(CommandError, match="is not there") as absent:
            await rpc.call(bus, "dhcp", "elsewhere", WakeClient(mac=MAC))
    assert slow.value.cause == absent.value.cause == "unanswered"


async def test_without_nats_nothing_is_asked(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        async with bus_on(server.url, make=False) as bus:
            server.kill()
            async with asyncio.timeout(WAIT):
                while bus.connected:
                    await asyncio.sleep(0.02)
            with pytest.raises(BusUnavailable):
                await rpc.call(bus, "dhcp", "lab.one", WakeClient(mac=MAC))
            with pytest.raises(BusUnavailable):
                await rpc.call_all(bus, "dhcp", WakeClient(mac=MAC))


async def test_commands_are_carried_out_again_after_a_restart_of_nats(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        async with dhcp(tmp_path, server.url, {WakeClient: woken}), bus_on(server.url, make=False) as bus:
            server.kill()
            server.start()
            async with asyncio.timeout(WAIT):
                while True:
                    try:
                        await rpc.call(bus, "dhcp", "lab.one", WakeClient(mac=MAC), seconds=1)
                        break
                    except (CommandError, BusUnavailable):
                        await asyncio.sleep(0.05)


def test_every_command_has_a_verb_of_its_own() -> None:
    assert len({(command.service, command.verb) for command in COMMANDS}) == len(COMMANDS)
