"""A server's leases in a real bucket that NATS loses, and that is made anew."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from nats.js.errors import KeyNotFoundError

from bootlink_dhcp.leases import LeaseTable
from bootlink_dhcp.ledger import LeaseLedger
from bootlink_dhcp.sharing import Entry, Held, Sharing, decode_entry
from bootlink_dhcp.subnet import Pool, Subnet
from bootlink_events import LEASES_BUCKET
from bootlink_runtime import Bus, Health, ended, logger, provision
from lab.chassis import bus_on
from lab.nats import NatsServer

WAIT = 20.0
POOL = [IPv4Address("10.77.0.101") + number for number in range(16)]
SUBNET = Subnet(IPv4Network("10.77.0.0/24"), IPv4Address("10.77.0.1"), Pool(POOL[0], POOL[-1]), 3600)
MAC = "52:54:00:00:00:01"


class Server:
    """A dhcp server without packets."""

    def __init__(self, name: str, bus: Bus, folder: Path) -> None:
        folder.mkdir()
        self.sharing = Sharing(name)
        self.table = LeaseTable(SUBNET, lambda _: None, self._record, self.sharing)
        self.ledger = LeaseLedger(
            bus, self.sharing, [self.table], folder, log=logger(name), health=Health("dhcp", name)
        )

    def _record(self, address: IPv4Address, value: Mapping[str, Any] | None) -> None:
        self.ledger.changed(address, value)

    def bind(self, address: IPv4Address) -> None:
        self.table.bind(MAC, address, time.time())


@contextlib.asynccontextmanager
async def running(name: str, bus: Bus, folder: Path) -> AsyncIterator[Server]:
    server = Server(name, bus, folder / name)
    task = asyncio.create_task(server.ledger.run())
    try:
        yield server
    finally:
        await ended(task)


def key_of(address: IPv4Address) -> str:
    return f"lease.{str(address).replace('.', '-')}"


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not true():
            await asyncio.sleep(0.02)


async def told_of(bus: Bus, address: IPv4Address) -> Entry:
    """What the bucket has of this address, once it has something."""
    bucket = await bus.key_value(LEASES_BUCKET)
    assert bucket is not None
    async with asyncio.timeout(WAIT):
        while True:
            with contextlib.suppress(KeyNotFoundError):
                found = await bucket.get(key_of(address))
                return decode_entry(found.value or b"", found.revision or 0)
            await asyncio.sleep(0.05)


async def test_what_a_server_has_leased_is_in_the_bucket_again_after_nats_lost_it(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with bus_on(nats.url) as bus, running("one", bus, tmp_path) as server:
        for round_ in range(3):  # so that revisions are past what the new bucket begins with
            server.bind(POOL[round_])
            assert (await told_of(bus, POOL[round_])).client == MAC
        nats.lose_store()
        nats.start()
        async with asyncio.timeout(WAIT):
            await bus.epoch_after(1)
        await provision(bus)
        assert (await told_of(bus, POOL[2])).client == MAC
        server.bind(POOL[4])
        assert (await told_of(bus, POOL[4])).server == "one"


async def test_what_another_server_wrote_into_the_new_bucket_is_taken_in(nats: NatsServer, tmp_path: Path) -> None:
    """Its revision is lower than that of what we knew."""
    async with bus_on(nats.url) as bus, running("one", bus, tmp_path) as server:
        for seconds in range(30):
            server.table.bind(MAC, POOL[0], time.time() + seconds)
            await asyncio.sleep(0)
            before = server.sharing.entries.get(POOL[0])
            await until(lambda before=before: server.sharing.entries.get(POOL[0]) != before)  # type: ignore[misc]
        nats.lose_store()
        nats.start()
        async with bus_on(nats.url) as other:  # makes the bucket, and writes ahead of us
            written = Entry("two", Held.BOUND, "52:54:00:00:00:02", time.time() + 3600)
            revision = await other.compare_and_set(LEASES_BUCKET, key_of(POOL[0]), written.encode(), 0)
        assert revision < 30
        await until(lambda: server.sharing.entries[POOL[0]].server == "two")
        lease = server.table.at(POOL[0])
        assert lease is not None
        assert lease.client == "52:54:00:00:00:02"
