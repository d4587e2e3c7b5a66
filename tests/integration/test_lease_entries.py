"""Entries of leases in a real bucket: many in one batch, and each by itself where another server came before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from bootlink_dhcp.entry_writer import EntryWriter
from bootlink_dhcp.sharing import Entry, Held, Sharing, decode_entry
from bootlink_events import LEASES_BUCKET
from bootlink_runtime import Bus, Health, Replica, batch, logger
from lab.chassis import bus_on
from lab.nats import NatsServer

ROOM = [IPv4Address("10.77.0.20") + number for number in range(20)]


@dataclass
class Server:
    """A dhcp server, by what it writes."""

    name: str
    bus: Bus

    def __post_init__(self) -> None:
        log = logger("test")
        self.sharing = Sharing(self.name)
        self.health = Health("dhcp", self.name)
        replica = Replica(self.bus, LEASES_BUCKET, None, lambda key, value: None, log)
        self.writer = EntryWriter(self.bus, self.sharing, replica, health=self.health, log=log)

    def bound(self, expires: float) -> dict[IPv4Address, Entry]:
        return {one: Entry(self.name, Held.BOUND, f"52:54:00:00:00:{int(one) & 255:02x}", expires) for one in ROOM}

    async def told(self) -> dict[IPv4Address, Entry]:
        """What the bucket has."""
        bucket = await self.bus.key_value(LEASES_BUCKET)
        assert bucket is not None
        found = {}
        for address in ROOM:
            entry = await bucket.get(f"lease.{str(address).replace('.', '-')}")
            assert entry.value is not None
            assert entry.revision is not None
            found[address] = decode_entry(entry.value, entry.revision)
        return found


@pytest.fixture
async def server(nats: NatsServer) -> AsyncIterator[Server]:
    async with bus_on(nats.url) as bus:
        yield Server("one", bus)


async def test_a_room_is_one_batch_whose_revisions_are_known(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.bus, "compare_and_set", None)  # none by itself
    for expires in (1.0, 2.0):
        assert await server.writer.store(server.bound(expires)) == set(ROOM)
        assert server.sharing.entries == await server.told()
        assert {entry.expires for entry in server.sharing.entries.values()} == {expires}
    assert not server.sharing.cut


async def test_where_another_server_came_before_the_others_are_stored_all_the_same(server: Server) -> None:
    other = Server("two", server.bus)
    taken = ROOM[7]
    assert await other.writer.store({taken: Entry("two", Held.HELD)}) == {taken}
    assert await server.writer.store(server.bound(1.0)) == set(ROOM) - {taken}
    told = await server.told()
    assert [address for address, entry in told.items() if entry.server != "one"] == [taken]
    assert server.sharing.entries == {address: entry for address, entry in told.items() if address != taken}
    assert server.health.counters["lease_races"] == 1
    assert not server.sharing.cut


async def test_without_nats_nothing_is_stored_and_no_address_stays_busy(
    server: Server, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootlink_dhcp.entry_writer.WRITE_SECONDS", 0.3)
    assert await server.writer.store(server.bound(1.0)) == set(ROOM)
    nats.stop()
    assert await server.writer.store(server.bound(2.0)) == set()
    assert server.sharing.cut
    assert not any(server.writer.busy(address) for address in ROOM)
    assert {entry.expires for entry in server.sharing.entries.values()} == {1.0}


async def test_our_own_words_are_known_while_they_are_under_way(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = server.bound(1.0)
    seen: list[bool] = []
    send = batch.compare_and_set_all

    async def looked_at(*arguments: object, **more: object) -> int | None:
        key = f"lease.{str(ROOM[0]).replace('.', '-')}"
        seen.append(server.writer.ours(key, entries[ROOM[0]].encode()))
        seen.append(server.writer.ours(key, Entry("two", Held.HELD).encode()))
        seen.append(server.writer.busy(ROOM[0]))
        return await send(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("bootlink_dhcp.entry_writer.compare_and_set_all", looked_at)
    await server.writer.store(entries)
    assert seen == [True, False, True]
    assert not server.writer.ours(f"lease.{str(ROOM[0]).replace('.', '-')}", entries[ROOM[0]].encode())
