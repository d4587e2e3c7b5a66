"""A PC's way through DHCP with the whole chassis around it: plans come from NATS, events go there."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from bootlink_dhcp import SERVICE, DhcpSettings
from bootlink_dhcp.probing import EVERYTHING
from bootlink_events import (
    PLANS_BUCKET,
    BootAddressed,
    BootId,
    BootLoaderChanged,
    BootStarted,
    ClientSeen,
    CloudEvent,
    DhcpAddressTaken,
    DhcpForeignServer,
    DhcpLoaderMissing,
    LoaderRule,
    mac_token,
)
from bootlink_runtime import Chassis, Service, ServiceSettings, follow, running
from bootlink_wire import icmpv6
from bootlink_wire.icmpv6 import RouterAdvertisement, RouterSolicitation
from guest.toolbox import run
from lab.chassis import bus_on, plan
from lab.dhcp_client import discover, request
from lab.loaders import put_loaders
from lab.nats import NatsServer
from lab.netns import Cable, entered
from lab.raw_pc import RawPc

PC = "52:54:00:12:34:56"
WAIT = 20.0


@contextlib.asynccontextmanager
async def serving(nats: NatsServer, folder: Path, cable: Cable, **settings: Any) -> AsyncIterator[Chassis]:
    loaders = put_loaders(folder / "loaders")
    made = DhcpSettings(
        nats_url=nats.url, data=folder / "data", interface=cable.server_card, loaders=str(loaders), **settings
    )
    async with running(SERVICE, made) as chassis:
        yield chassis


def boot_id_of(file: bytes) -> BootId:
    return BootId.parse(file.decode().removeprefix("tftp://10.77.0.1/").split("/")[1])


@pytest.mark.usefixtures("in_namespace")
async def test_two_passes_are_one_boot_and_the_next_power_on_has_a_greater_id(
    nats: NatsServer, cable: Cable, tmp_path: Path
) -> None:
    async with bus_on(nats.url) as bus, serving(nats, tmp_path, cable) as chassis:
        with RawPc(cable, PC) as pc:
            loader, script = await pc.boot_pass("ipxe"), await pc.boot_pass("ipxe")
            first = boot_id_of(loader.file)
            assert loader.file.decode() == f"boot/{first}/undionly.kpxe"
            assert script.file.decode() == f"tftp://10.77.0.1/boot/{first}/52-54-00-12-34-56.ipxe"
            assert loader.yiaddr == script.yiaddr
            again = boot_id_of((await pc.boot_pass("ovmf")).file)
            assert again > first
        events = await _events(bus, count=7)
        assert chassis.health.counters["request"] == 3
    assert [type(event.decode()) for event in events] == [
        BootStarted, ClientSeen, BootAddressed, BootAddressed, BootStarted, ClientSeen, BootAddressed,
    ]  # fmt: skip
    assert [event.data["boot_id"] for event in events] == [str(first)] * 4 + [str(again)] * 3


async def _events(bus: Any, *, count: int) -> list[CloudEvent]:
    found: list[CloudEvent] = []
    async with asyncio.timeout(WAIT):
        while len(found) < count:
            found = [event async for event in follow(bus, wait=False)]
            await asyncio.sleep(0.05)
    return found


@pytest.mark.usefixtures("in_namespace")
async def test_a_plan_that_arrives_gives_its_client_the_reserved_address_at_once(
    nats: NatsServer, cable: Cable, tmp_path: Path
) -> None:
    reserved = IPv4Address("10.77.0.20")
    async with bus_on(nats.url) as bus, serving(nats, tmp_path, cable) as chassis:
        await bus.put(PLANS_BUCKET, mac_token(PC), plan(PC, address=reserved).model_dump_json().encode())
        async with asyncio.timeout(WAIT):
            while chassis.plan_book().get(PC) is None:
                await asyncio.sleep(0.02)
        nats.kill()  # what it knows, it goes on serving
        with RawPc(cable, PC) as pc:
            assert (await pc.boot_pass("ovmf")).yiaddr == reserved
        with RawPc(cable, "52:54:00:00:00:99") as stranger:
            assert (await stranger.boot_pass("ovmf")).yiaddr == IPv4Address("10.77.0.128")


@pytest.mark.usefixtures("in_namespace")
async def test_no_ack_leaves_before_its_lease_is_on_disk(
    nats: NatsServer, cable: Cable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(nats, tmp_path, cable) as chassis:
        with RawPc(cable, PC) as pc:
            asked = discover("os", PC, 1)
            offer = await pc.ask(asked)
            assert offer is not None

            def full(*_: Any) -> None:
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as disk:
                disk.setattr("bootlink_dhcp.journal._write_and_sync", full)
                assert await pc.ask(request(offer, asked), seconds=0.5) is None
                assert not chassis.health.ready
            ack = await pc.ask(request(offer, asked), seconds=5)
            assert ack is not None
            assert f'"{ack.yiaddr}"' in (tmp_path / "data" / "dhcp" / "leases.jsonl").read_text()
            assert chassis.health.ready


@pytest.mark.usefixtures("in_namespace")
@pytest.mark.parametrize("mode", ["auto", "on", "off"])
async def test_a_router_solicitation_is_answered_by_a_router_that_routes_nothing(
    nats: NatsServer, cable: Cable, tmp_path: Path, mode: str
) -> None:
    async with serving(nats, tmp_path, cable, router_advertisements=mode):
        with entered(cable.client):
            sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
            card = socket.if_nametoindex(cable.client_card)
        with sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            found = await _solicit(sock, card, seconds=6.0 if mode != "off" else 2.5)
    if mode == "off":
        assert found is None
    else:
        assert found is not None
        assert (found.lifetime, found.managed, found.other) == (0, False, False)
        assert found.source_mac is not None


async def _solicit(sock: socket.socket, card: int, *, seconds: float) -> RouterAdvertisement | None:
    """Ask until somebody answers; a new card may not send before its link-local address is proven unique."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while loop.time() < deadline:
        with contextlib.suppress(OSError):
            sock.sendto(icmpv6.encode(RouterSolicitation()), ("ff02::2", 0, 0, card))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                while True:
                    message = icmpv6.decode(await loop.sock_recv(sock, 2000))
                    if isinstance(message, RouterAdvertisement):
                        return message
    return None


@pytest.mark.usefixtures("in_namespace")
async def test_a_server_that_does_not_belong_here_is_told_and_fails_a_check(
    nats: NatsServer, cable: Cable, tmp_path: Path
) -> None:
    rogue, another = IPv4Address("10.77.0.66"), IPv4Address("10.77.0.67")
    async with bus_on(nats.url) as bus, serving(nats, tmp_path, cable, probe_seconds=0) as chassis:
        with RawPc(cable, "52:54:00:66:66:66") as server, RawPc(cable, PC) as pc:
            asked = discover("ovmf", PC, 1)
            offer = await pc.ask(asked)
            assert offer is not None
            for _ in range(3):
                server.answer(dataclasses.replace(offer, xid=2, options={**offer.options, 54: rogue.packed}), rogue)
            # And one whose answers reach its client alone: that shows in whom the client chooses.
            chosen = dataclasses.replace(offer, options={**offer.options, 54: another.packed})
            assert await pc.ask(request(chosen, asked), seconds=0.5) is None
        told = [event for event in await _events(bus, count=4) if event.type.endswith("foreign_server")]
    first, second = (DhcpForeignServer.model_validate(event.data) for event in told)
    assert (first.server, first.server_mac, first.client_mac) == (rogue, "52:54:00:66:66:66", PC)
    assert (first.addresses, first.boot_files, first.expected) == (True, True, False)
    assert first.boot_file == offer.file.decode()
    assert (second.server, second.server_mac, second.addresses, second.boot_files) == (another, None, True, False)
    check = chassis.health.report()["checks"]["other servers"]
    assert not check["ok"]
    assert not check["required"]
    assert f"{rogue} (52:54:00:66:66:66) gives out addresses and tells PCs what to boot" in check["detail"]
    assert "BOOTLINK_DHCP_MODE=proxy" in check["detail"]


@pytest.mark.usefixtures("in_namespace")
async def test_a_loader_that_never_comes_up_gives_way_and_that_is_told(
    nats: NatsServer, cable: Cable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootlink_dhcp.tracker.DUPLICATE", 0.0)
    put_loaders(tmp_path / "loaders", ["ipxe.efi"])
    async with bus_on(nats.url) as bus, serving(nats, tmp_path, cable, loader_patience=2):
        with RawPc(cable, PC) as pc:
            files = [(await pc.boot_pass("ovmf")).file for _ in range(3)]
        told = [event for event in await _events(bus, count=10) if event.type.endswith("loader_changed")]
    assert [file.decode().rpartition("/")[2] for file in files] == ["snponly.efi", "snponly.efi", "ipxe.efi"]
    (changed,) = (BootLoaderChanged.model_validate(event.data) for event in told)
    assert (changed.former, changed.loader, changed.boots) == ("snponly.efi", "ipxe.efi", 2)
    assert changed.boot_id == boot_id_of(files[2])


@pytest.mark.usefixtures("in_namespace")
async def test_loaders_that_rules_ask_for_in_vain_are_told_and_in_the_status_and_the_next_is_sent(
    nats: NatsServer, cable: Cable, tmp_path: Path
) -> None:
    """Those of the settings at the start, a group's when its plan comes."""
    own = [LoaderRule(arch="uefi-x64", loaders=("own.efi",))]
    asking = plan(PC).model_copy(update={"group": "teachers", "loaders": (LoaderRule(loaders=("nothere.efi",)),)})
    async with bus_on(nats.url) as bus, serving(nats, tmp_path, cable, loader_rules=own) as chassis:
        assert not chassis.health.report()["checks"]["loaders"]["ok"]
        await bus.put(PLANS_BUCKET, mac_token(PC), asking.model_dump_json().encode())
        async with asyncio.timeout(WAIT):
            while chassis.plan_book().get(PC) is None:
                await asyncio.sleep(0.02)
        with RawPc(cable, PC) as pc:
            assert (await pc.boot_pass("ovmf")).file.endswith(b"/snponly.efi")
            assert chassis.health.report()["checks"]["HTTP boot"]["ok"]
            assert not (await pc.boot_pass("http")).file, "it is off"
        http = chassis.health.report()["checks"]["HTTP boot"]
        check = chassis.health.report()["checks"]["loaders"]
        told = [event for event in await _events(bus, count=4) if event.type.endswith("loader_missing")]
    first, second = (DhcpLoaderMissing.model_validate(event.data) for event in told)
    assert (first.loader, first.group, first.arch) == ("own.efi", None, "uefi-x64")
    assert (second.loader, second.group, second.arch) == ("nothere.efi", "teachers", "")
    assert first.reason == second.reason == "is in none of the loader folders"
    assert (check["ok"], check["required"]) == (False, False)
    assert (http["ok"], http["required"]) == (False, False)
    assert http["detail"].startswith(f"{PC} is set to HTTP boot, and that is off: set BOOTLINK_TFTP_HTTP_PORT=80")
    assert "group teachers asks for nothere.efi, which is in none of the loader folders" in check["detail"]
    assert "BOOTLINK_DHCP_LOADER_RULES asks for own.efi, which is in none of the loader folders" in check["detail"]


@pytest.mark.usefixtures("in_namespace")
async def test_a_host_that_answers_arp_for_whatever_is_asked_is_told_and_in_the_status(
    nats: NatsServer, cable: Cable, tmp_path: Path
) -> None:
    """Linux with the whole subnet as its own addresses."""
    run("ip", "-netns", cable.client, "route", "add", "local", "10.77.0.0/24", "dev", "lo")
    mac = json.loads(run("ip", "-json", "-netns", cable.client, "link", "show", cable.client_card))[0]["address"]
    async with bus_on(nats.url) as bus, serving(nats, tmp_path, cable, probe_seconds=0) as chassis:
        told = [DhcpAddressTaken.model_validate(event.data) for event in await _events(bus, count=EVERYTHING)]
        check = chassis.health.report()["checks"]["address probes"]
    assert {one.mac for one in told} == {mac}
    assert [one.everything for one in told] == [False] * (EVERYTHING - 1) + [True]
    assert len({one.address for one in told}) == EVERYTHING, "and no more are told: it answers for hundreds"
    assert (check["ok"], check["required"]) == (False, False)
    assert check["detail"].startswith(f"{mac} answers ARP for whatever is asked, so new PCs get no address: ")


@pytest.mark.usefixtures("in_namespace")
async def test_another_dhcp_service_of_the_same_bootlink_belongs_here(
    nats: NatsServer, cable: Cable, tmp_path: Path
) -> None:
    sibling = IPv4Address("10.77.0.66")

    async def serve_elsewhere(chassis: Chassis, _: ServiceSettings) -> None:
        chassis.listening("dhcp", str(sibling), 67)
        chassis.ready()
        await chassis.stopping.wait()

    elsewhere = ServiceSettings(nats_url=nats.url, data=tmp_path / "elsewhere", node="elsewhere")
    async with (
        bus_on(nats.url) as bus,
        running(Service("dhcp", ServiceSettings, serve_elsewhere), elsewhere),
        serving(nats, tmp_path, cable, probe_seconds=0) as chassis,
    ):
        with RawPc(cable, "52:54:00:66:66:66") as server, RawPc(cable, PC) as pc:
            offer = await pc.ask(discover("ovmf", PC, 1))
            assert offer is not None
            server.answer(dataclasses.replace(offer, xid=2, options={**offer.options, 54: sibling.packed}), sibling)
            (told,) = [event for event in await _events(bus, count=3) if event.type.endswith("foreign_server")]
    assert DhcpForeignServer.model_validate(told.data).expected
    assert chassis.health.report()["checks"]["other servers"]["ok"]
