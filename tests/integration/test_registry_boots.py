"""Events from the other services become clients, boots and traces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bootlink_events import (
    BootAddressed,
    BootDiskAttached,
    BootDiskDetached,
    BootDiskUsed,
    BootFailed,
    BootHello,
    BootId,
    BootPlan,
    BootStarted,
    ClientSeen,
    CloudEvent,
    EventData,
)
from bootlink_registry import journal
from bootlink_runtime import Bus, Health, PlanBook, Telemetry, follow, logger
from lab.chassis import MAC, bus_on
from lab.nats import NatsServer
from lab.postgres import PostgresServer
from lab.registry import Registry, raw_disk, registry_on, until

T0 = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def told(boot: BootId, start: float, end: float, mac: str = MAC) -> dict[str, Any]:
    return {"mac": mac, "boot_id": boot, "started": at(start), "ended": at(end)}


def whole_boot(boot: BootId, *, begin: float = 0) -> list[EventData]:
    """A boot from its DISCOVER to the operating system's logout."""
    disk = {"initiator": "os", "lun": 0, "session": f"s-{boot}"}
    return [
        BootStarted(**told(boot, begin, begin), arch="bios", firmware="PXE", vendor_class="PXEClient\0\0"),
        BootAddressed(**told(boot, begin, begin + 2), pass_="firmware", address=IPv4Address("10.7.0.9"), boot_file="f"),
        BootDiskAttached(
            **told(boot, begin + 9, begin + 10), **disk, image="demo", version=1, policy="discard", peer="10.7.0.9"
        ),
        BootDiskDetached(
            **told(boot, begin + 9, begin + 60),
            **disk,
            reason="logout",
            reads=5,
            bytes_read=4096,
            writes=1,
            bytes_written=512,
        ),
    ]


async def publish(bus: Bus, *events: EventData) -> list[CloudEvent]:
    wrapped = [CloudEvent.of(data, source="/dhcp/lab") for data in events]
    for event in wrapped:
        await bus.publish(event)
    return wrapped


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def registry(
    nats: NatsServer, database: str, tmp_path: Path, spans: InMemorySpanExporter
) -> AsyncIterator[Registry]:
    telemetry = Telemetry("registry", "lab", processor=SimpleSpanProcessor(spans))
    async with registry_on(nats.url, database, tmp_path / "data", telemetry=telemetry) as running:
        yield running


async def boot_in_state(registry: Registry, boot: BootId, state: str) -> Any:
    async def reached() -> bool:
        answer = await registry.http.get(f"/v1/boots/{boot}")
        return answer.status_code == 200 and answer.json()["state"] == state

    await until(reached, f"boot {boot} to be {state}")
    return await registry.get(f"/v1/boots/{boot}")


# -- enrolment ------------------------------------------------------------------------------------------------------


async def plan_of(bus: Bus, mac: str, folder: Path) -> BootPlan:
    book = PlanBook(bus, folder=folder, log=logger("test"), health=Health("test", "lab"))
    following = asyncio.create_task(book.run())
    await until(lambda: book.get(mac) is not None, f"the plan of {mac}")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    plan = book.get(mac)
    assert plan is not None
    return plan


async def test_an_unknown_pc_is_enrolled_and_has_its_plan_at_once(
    registry: Registry, nats: NatsServer, tmp_path: Path
) -> None:
    await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
    await registry.link("default", "", "demo")
    async with bus_on(nats.url) as bus:
        await publish(bus, ClientSeen(mac=MAC, boot_id=BootId.mint(), arch="bios"))
        plan = await plan_of(bus, MAC, tmp_path)
        assert plan.client == "pc-001"
        assert plan.disks[0].image == "demo"
        await publish(bus, ClientSeen(mac=MAC, boot_id=BootId.mint(), arch="bios"))
        other = "52:54:00:00:00:02"
        await publish(bus, ClientSeen(mac=other, boot_id=BootId.mint()))
        assert (await plan_of(bus, other, tmp_path)).client == "pc-002"
    clients = (await registry.get("/v1/clients"))["items"]
    assert [(client["name"], client["enrolled"]) for client in clients] == [("pc-001", True), ("pc-002", True)]


async def test_a_client_that_enrolled_itself_can_be_taken_over_by_name(
    registry: Registry, nats: NatsServer, tmp_path: Path
) -> None:
    async with bus_on(nats.url) as bus:
        await publish(bus, ClientSeen(mac=MAC, boot_id=BootId.mint()))
        await plan_of(bus, MAC, tmp_path)
    answer = await registry.http.post("/v1/clients", json={"mac": MAC, "name": "front-desk", "group": "office"})
    assert answer.status_code == 200
    assert answer.json() | {"created": ""} == {
        "mac": MAC,
        "name": "front-desk",
        "group": "office",
        "address": None,
        "disabled": False,
        "note": "",
        "enrolled": False,
        "created": "",
    }
    assert (await registry.http.post("/v1/clients", json={"mac": MAC, "name": "again"})).status_code == 409


async def test_a_client_that_enrolled_itself_keeps_its_name_when_it_is_added_without_one(
    registry: Registry, nats: NatsServer
) -> None:
    async with bus_on(nats.url) as bus:
        await publish(bus, ClientSeen(mac=MAC, boot_id=BootId.mint()))

        async def enrolled() -> bool:
            return bool((await registry.get("/v1/clients"))["items"])

        await until(enrolled, "the client to enrol")
        answer = await registry.http.post("/v1/clients", json={"mac": MAC, "group": "teachers"})
        assert answer.status_code == 200
        client = answer.json()
        assert (client["name"], client["group"], client["enrolled"]) == ("pc-001", "teachers", False)


async def test_where_enrolment_is_refused_an_unknown_pc_is_remembered_and_no_more(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with registry_on(nats.url, database, tmp_path / "data", enrol="refuse") as registry, bus_on(nats.url) as bus:
        seen = ClientSeen(mac=MAC, boot_id=BootId.mint(), arch="uefi-x64", vendor_class="PXE\0Client")
        await publish(bus, seen, seen)

        async def remembered() -> bool:
            return len((await registry.get("/v1/sightings"))["items"]) == 1

        await until(remembered, "the sighting")
        (sighting,) = (await registry.get("/v1/sightings"))["items"]
        assert (sighting["mac"], sighting["arch"], sighting["vendor_class"]) == (MAC, "uefi-x64", "PXEClient")
        assert (await registry.get("/v1/clients"))["items"] == []
        await registry.add_client(MAC, "pc-07")
        assert (await registry.get("/v1/sightings"))["items"] == []


# -- boots ----------------------------------------------------------------------------------------------------------


async def test_a_boot_is_told_from_its_first_packet_to_its_logout(registry: Registry, nats: NatsServer) -> None:
    await registry.add_client(MAC, "pc-07")
    boot = BootId.mint()
    async with bus_on(nats.url) as bus:
        *first, last = whole_boot(boot)
        await publish(bus, *first)
        await boot_in_state(registry, boot, "running")
        await publish(bus, last)
        shown = await boot_in_state(registry, boot, "ended")
    assert (shown["client"], shown["image"], shown["version"], shown["policy"]) == ("pc-07", "demo", 1, "discard")
    assert (shown["arch"], shown["firmware"], shown["address"]) == ("bios", "PXE", "10.7.0.9")
    assert [stage["kind"] for stage in shown["stages"]] == [
        "boot.started",
        "boot.addressed",
        "boot.disk_attached",
        "boot.disk_detached",
    ]
    assert shown["stages"][0]["data"]["vendor_class"] == "PXEClient", "NUL characters cannot be stored"
    assert shown["stages"][3]["data"]["bytes_read"] == 4096
    assert shown["stages"][0]["source"] == "/dhcp/lab"
    assert datetime.fromisoformat(shown["os_attached"]) == at(10)
    assert (await registry.get("/v1/clients/pc-07"))["last_boot"]["id"] == str(boot)
    assert (await registry.get("/v1/boots", client="pc-07"))["items"][0]["stage_count"] == 4


async def test_events_out_of_order_and_twice_tell_the_same_boot_and_one_root_span(
    registry: Registry, nats: NatsServer, spans: InMemorySpanExporter
) -> None:
    boot = BootId.mint()
    async with bus_on(nats.url) as bus:
        wrapped = [CloudEvent.of(data, source="/dhcp/lab") for data in reversed(whole_boot(boot))]
        for event in wrapped:
            await bus.publish(event)
        await boot_in_state(registry, boot, "ended")
        await until(lambda: len(spans.get_finished_spans()) == 1, "the root span")
        for event in wrapped:  # as a consumer sees them again after a restart of the server: under the same ids
            await bus.jetstream.publish(event.nats_subject, event.payload())
        counters = registry.chassis.health.counters
        await until(lambda: counters["stages_repeated"] == len(wrapped), "the repeats")
    again = await registry.get(f"/v1/boots/{boot}")
    assert again == await boot_in_state(registry, boot, "ended")
    assert again["stage_count"] == 4
    assert datetime.fromisoformat(again["started"]) == T0  # all that came before its end was late
    await asyncio.sleep(2.5)  # more than two sweeps
    (root,) = spans.get_finished_spans()
    assert root.context is not None
    assert (root.context.trace_id, root.context.span_id) == (boot.trace_id, boot.root_span_id)
    assert root.parent is None
    assert root.start_time == int(T0.timestamp()) * 10**9
    assert root.end_time == int(at(60).timestamp()) * 10**9
    assert dict(root.attributes or {})["bootlink.image.name"] == "demo"


async def test_a_newer_boot_ends_the_former_one_whichever_is_told_first(registry: Registry, nats: NatsServer) -> None:
    former = BootId.mint()
    newer = BootId.mint(after=former)
    async with bus_on(nats.url) as bus:
        await publish(bus, *whole_boot(newer, begin=300)[:3], *whole_boot(former)[:3])
        shown = await boot_in_state(registry, former, "superseded")
        assert datetime.fromisoformat(shown["ended"]) == at(300)
        await boot_in_state(registry, newer, "running")
        newest = BootId.mint(after=newer)
        await publish(bus, whole_boot(newest, begin=600)[0])
        assert (await boot_in_state(registry, newer, "superseded"))["end_reason"] == "the client began a newer boot"
    listed = [boot["id"] for boot in (await registry.get("/v1/boots"))["items"]]
    assert listed == [str(newest), str(newer), str(former)]
    page = await registry.get("/v1/boots", limit=1)
    assert (await registry.get("/v1/boots", before=page["next"], limit=1))["items"][0]["id"] == str(newer)


async def test_a_failed_boot_says_where_why_and_what_to_do(
    registry: Registry, nats: NatsServer, spans: InMemorySpanExporter
) -> None:
    boot = BootId.mint()
    failure = {"stage": "script", "cause": "pc-07 has no image link", "remedy": "bootlink link set pc-07 IMAGE"}
    async with bus_on(nats.url) as bus:
        await publish(bus, whole_boot(boot)[0], BootFailed(**told(boot, 3, 3), **failure))
        shown = await boot_in_state(registry, boot, "failed")
    assert shown["failure"] == failure
    await until(lambda: len(spans.get_finished_spans()) == 1, "the root span")
    assert spans.get_finished_spans()[0].status.description == "script: pc-07 has no image link"


def arrives(boot: BootId, *, begin: float = 0, mac: str = MAC, slower: float = 0) -> list[EventData]:
    """A boot whose system reads for 20 s and then falls silent, and is up; it runs on."""
    started, addressed, attached, _ = whole_boot(boot, begin=begin)
    of = told(boot, begin + 9, begin + 33 + slower, mac=mac)
    used = BootDiskUsed(
        **of,
        initiator="os",
        lun=0,
        session=f"s-{boot}",
        reads=5,
        bytes_read=4096,
        writes=0,
        bytes_written=0,
        first_read=at(begin + 11),
        last_io=at(begin + 31 + slower),
    )
    late = {"ended": at(begin + 10 + slower)}
    return [
        event.model_copy(update={"mac": mac} | (late if event is attached else {}))
        for event in (started, addressed, attached)
    ] + [used]


async def test_a_boots_trace_is_done_when_its_system_is_up_however_long_it_runs(
    registry: Registry, nats: NatsServer, spans: InMemorySpanExporter
) -> None:
    boot, stranger = BootId.mint(), BootId.mint()
    async with bus_on(nats.url) as bus:
        hello = BootHello(**told(boot, 12, 32), system="Debian", peer="10.7.0.9")
        made_up = hello.model_copy(update={"boot_id": stranger})
        await publish(bus, *arrives(boot), made_up, hello)
        await until(lambda: len(spans.get_finished_spans()) == 1, "the root span")
    shown = await registry.get(f"/v1/boots/{boot}")
    (root,) = spans.get_finished_spans()
    assert (root.start_time, root.end_time) == tuple(int(moment.timestamp()) * 10**9 for moment in (at(0), at(32)))
    assert dict(root.attributes or {})["bootlink.boot.state"] == "running"
    assert (shown["state"], shown["ended"], shown["stage_count"]) == ("running", None, 5)
    assert [boot["id"] for boot in (await registry.get("/v1/boots"))["items"]] == [str(boot)], "a word begins no boot"


async def test_a_boot_is_shown_beside_the_one_before_it_and_beside_its_peers(
    registry: Registry, nats: NatsServer
) -> None:
    boots = [BootId.mint()]
    for _ in range(4):
        boots.append(BootId.mint(after=boots[-1]))
    first, *peers, own = boots
    async with bus_on(nats.url) as bus:
        for number, peer in enumerate(peers, start=1):
            await publish(bus, *arrives(peer, mac=f"52:54:00:00:00:{number:02}", slower=number))
        await publish(bus, *arrives(first, slower=5), *arrives(own, begin=600))
        for boot in (*peers, own):
            await boot_in_state(registry, boot, "running")
        await boot_in_state(registry, first, "superseded")
        await until(lambda: registry.chassis.health.counters["stages_recorded"] == 20, "all of it")
    shown = await registry.get(f"/v1/boots/{own}")
    assert (shown["last"], shown["peers"]) == (str(first), 3)
    assert shown["steps"] == [
        {"step": "address", "at": 2, "took": 2, "last": 2, "peers": 2},
        {"step": "system", "at": 10, "took": 8, "last": 13, "peers": 10},
        {"step": "idle", "at": 31, "took": 21, "last": 21, "peers": 21},
        {"step": "whole", "at": 10, "took": 10, "last": 15, "peers": 12},
    ]
    alone = await registry.get(f"/v1/boots/{first}")
    assert (alone["last"], alone["peers"]) == (None, 3)


async def test_only_so_many_boots_of_a_client_are_kept(
    registry: Registry, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "BOOTS_PER_CLIENT", 3)
    boots = [BootId.mint()]
    for _ in range(5):
        boots.append(BootId.mint(after=boots[-1]))
    async with bus_on(nats.url) as bus:
        await publish(bus, *(whole_boot(boot, begin=10 * n)[0] for n, boot in enumerate(boots)))
        await boot_in_state(registry, boots[-1], "booting")
    listed = [boot["id"] for boot in (await registry.get("/v1/boots"))["items"]]
    assert listed == [str(boot) for boot in reversed(boots[-3:])]


async def test_an_event_that_is_none_is_given_up_and_the_next_one_taken(registry: Registry, nats: NatsServer) -> None:
    boot = BootId.mint()
    async with bus_on(nats.url) as bus:
        await bus.jetstream.publish("bootlink.v1.boot.started.x", b"\xff\x00 no event")
        await bus.jetstream.publish("bootlink.v1.boot.started.x", b'{"specversion": "1.0", "id": "1"}')
        rubbish = CloudEvent.of(whole_boot(boot)[0], source="/dhcp/lab").model_copy(update={"data": {"mac": "?"}})
        await bus.jetstream.publish(rubbish.nats_subject, rubbish.payload())
        await publish(bus, whole_boot(boot)[0])
        await boot_in_state(registry, boot, "booting")


async def test_events_that_came_while_postgresql_was_away_are_taken_in_afterwards(
    nats: NatsServer, tmp_path: Path
) -> None:
    with PostgresServer() as server:
        async with registry_on(nats.url, server.url, tmp_path / "data") as registry, bus_on(nats.url) as bus:
            boots = [BootId.mint()]
            await publish(bus, whole_boot(boots[0])[0])
            await boot_in_state(registry, boots[0], "booting")
            server.kill()
            for number in range(20):
                boots.append(BootId.mint(after=boots[-1]))
                await publish(bus, whole_boot(boots[-1], begin=number)[0])
            await until(lambda: not registry.chassis.health.ready, "readiness to tell")
            await asyncio.to_thread(server.start)
            await until(lambda: registry.chassis.health.ready, "readiness to come back")

            async def all_there() -> bool:
                answer = await registry.http.get("/v1/boots")
                return answer.status_code == 200 and len(answer.json()["items"]) == len(boots)

            await until(all_there, "all boots", seconds=60)


async def test_a_boot_that_falls_silent_fails_with_a_cause_and_goes_on_when_it_does(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    boot = BootId.mint()
    started, addressed, attached, _ = whole_boot(boot)
    async with (
        registry_on(nats.url, database, tmp_path / "data", silent_seconds=0.5) as registry,
        bus_on(nats.url) as bus,
    ):
        await publish(bus, started, addressed)
        failed = await boot_in_state(registry, boot, "failed")
        assert failed["failure"]["stage"] == "loader"
        assert "TFTP open timeout" in failed["failure"]["cause"]
        assert "UDP port 69" in failed["failure"]["remedy"]
        await asyncio.sleep(2.5)  # its own event has come back, and there were more looks
        told_of = [event async for event in follow(bus, wait=False)]
        assert [event.source for event in told_of if event.type.endswith("boot.failed")] == ["/registry/lab"]
        assert len((await registry.get(f"/v1/boots/{boot}"))["stages"]) == 3
        later = {"started": datetime.now(UTC), "ended": datetime.now(UTC)}
        await publish(bus, attached.model_copy(update=later))
        await boot_in_state(registry, boot, "running")
