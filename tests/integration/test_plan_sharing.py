"""What many plans have in common lies once in the bucket: as its readers see it, and as the registry puts it."""

from __future__ import annotations

from pathlib import Path

from bootlink_events import PLANS_BUCKET, ClientPart, SharedPart, mac_token, shared_key, target_iqn
from bootlink_runtime import Bus, Health, PlanBook, logger
from lab.chassis import bus_on, reader
from lab.nats import NatsServer
from lab.registry import raw_disk, registry_on, until

CLIENTS = 60
KEY = shared_key("room")


def mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


async def put_client(bus: Bus, number: int, *, revision: int = 1, shares: str = KEY) -> None:
    part = ClientPart(
        mac=mac(number), client=f"pc-{number}", revision=revision, target=target_iqn(mac(number)), shares=shares
    )
    await bus.put(PLANS_BUCKET, mac_token(mac(number)), part.model_dump_json().encode())


async def put_shared(bus: Bus, revision: int, *, key: str = KEY) -> None:
    part = SharedPart(portals=(f"10.0.0.1:{revision}",), revision=revision)
    await bus.put(PLANS_BUCKET, key, part.model_dump_json().encode())


def shown(book: PlanBook, number: int) -> tuple[str, ...] | None:
    plan = book.get(mac(number))
    return plan.portals if plan is not None else None


async def test_a_change_of_what_is_shared_reaches_each_client_and_whoever_asked_to_be_told(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with bus_on(nats.url) as bus, reader(nats.url, tmp_path) as (_, book):
        told: dict[str, list[int]] = {}
        book.subscribe(lambda client, plan: told.setdefault(client, []).append(plan.revision if plan else 0))
        for number in range(2):
            await put_client(bus, number)  # before what they share
        await put_shared(bus, 2)
        await until(lambda: len(book) == 2, "the plans to be whole")
        assert shown(book, 0) == shown(book, 1) == ("10.0.0.1:2",)
        await put_shared(bus, 9)
        await until(lambda: told == {mac(0): [2, 9], mac(1): [2, 9]}, "both to be told of twice")
        assert book.report()["oldest"] == book.report()["newest"] == 9
        assert sorted(plan.client for plan in book) == ["pc-0", "pc-1"]
        await bus.put(PLANS_BUCKET, mac_token(mac(0)), None)
        await until(lambda: told[mac(0)] == [2, 9, 0], "the removal")
        assert book.get(mac(0)) is None
        assert shown(book, 1) == ("10.0.0.1:9",)


async def test_a_client_keeps_its_former_plan_until_what_it_shares_is_there(nats: NatsServer, tmp_path: Path) -> None:
    other = shared_key(None)
    async with bus_on(nats.url) as bus, reader(nats.url, tmp_path) as (_, book):
        await put_shared(bus, 1)
        await put_client(bus, 1)
        await put_client(bus, 2)
        await until(lambda: len(book) == 2, "the first plans")
        await put_client(bus, 1, revision=2, shares=other)
        await bus.put(PLANS_BUCKET, other, b"rubbish")
        await bus.put(PLANS_BUCKET, KEY, None)  # which the second client still shares
        await put_client(bus, 3, revision=3, shares=other)
        await bus.put(PLANS_BUCKET, mac_token(mac(2)), b"rubbish")
        await put_shared(bus, 7, key=shared_key("mark"))
        await until(lambda: shared_key("mark") in book._shared, "all of that to be read")
        assert shown(book, 1) == shown(book, 2) == ("10.0.0.1:1",)
        assert shown(book, 3) is None
        await put_shared(bus, 5, key=other)
        await until(lambda: shown(book, 1) == shown(book, 3) == ("10.0.0.1:5",), "the plans to be whole")


async def test_a_service_that_starts_without_nats_knows_what_is_shared(nats: NatsServer, tmp_path: Path) -> None:
    async with bus_on(nats.url) as bus, reader(nats.url, tmp_path) as (_, book):
        await put_client(bus, 1)
        await put_shared(bus, 4)
        await until(lambda: shown(book, 1) is not None, "the plan")
        await until(lambda: (tmp_path / "plans.json").exists(), "the snapshot")
        await until(lambda: KEY in (tmp_path / "plans.json").read_text(), "the shared part in the snapshot")
    nats.stop()
    log, health = logger("test"), Health("test", "lab")
    again = PlanBook(
        Bus(nats.url, service="test", node="lab", log=log, health=health), folder=tmp_path, log=log, health=health
    )
    assert shown(again, 1) == ("10.0.0.1:4",)


async def test_a_new_default_link_is_one_entry_for_each_group(nats: NatsServer, database: str, tmp_path: Path) -> None:
    async with (
        registry_on(nats.url, database, tmp_path / "data") as registry,
        reader(nats.url, tmp_path) as (bus, book),
    ):
        for name in ("first", "second"):
            await registry.add_image(name, raw_disk(tmp_path / f"{name}.img"))
        await registry.link("default", "", "first")
        for number in range(CLIENTS):
            await registry.add_client(mac(number), f"pc-{number}", group=("a", "b")[number % 2])
        await registry.link("client", "pc-0", "first", policy="keep")
        await registry.link("client", "pc-1", "first")  # as all, for now

        def all_boot(image: str) -> bool:
            plans = [book.get(mac(number)) for number in range(2, CLIENTS)]
            return all(plan is not None and [disk.image for disk in plan.disks] == [image] for plan in plans)

        await until(lambda: all_boot("first"), "all plans")
        await until(lambda: own(book) == ("first", "keep"), "the plan of the client that has a link of its own")
        before = await last_number(bus)
        newest = book.report()["newest"]
        await registry.link("default", "", "second")
        await until(lambda: all_boot("second"), "all plans anew")
        assert await last_number(bus) - before == 3
        assert min(plan.revision for plan in book if plan.client != "pc-0") > newest
        left, *shared = await stored_after(bus, before)
        assert (left, sorted(shared)) == (mac_token(mac(1)), [shared_key("a"), shared_key("b")])
        assert own(book) == ("first", "keep")
        shown = (await registry.get("/v1/clients/pc-2"))["plan"]
        held = book.get(mac(2))
        assert held is not None
        assert (shown["revision"], shown["delivered"]) == (held.revision, True)


def own(book: PlanBook) -> tuple[str, str] | None:
    plan = book.get(mac(0))
    return (plan.disks[0].image, plan.disks[0].policy) if plan is not None and plan.disks else None


async def last_number(bus: Bus) -> int:
    return int((await bus.jetstream.stream_info(f"KV_{PLANS_BUCKET}")).state.last_seq)


async def stored_after(bus: Bus, number: int) -> list[str]:
    """The keys that were set since, in their order."""
    last = await last_number(bus)
    found = [await bus.jetstream.get_msg(f"KV_{PLANS_BUCKET}", seq) for seq in range(number + 1, last + 1)]
    return [str(one.subject).rpartition(".")[2] for one in found]
