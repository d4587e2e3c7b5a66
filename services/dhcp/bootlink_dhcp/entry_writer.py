"""Writes entries of addresses into the bucket of leases, each by compare-and-set, many of them at once.

How it works. Entries that are written together are one batch, which NATS stores or refuses as a whole: that is one sync
to disk, and a third of the work. A batch that is refused, because another server came before at one of its addresses or
because this NATS takes no batches, is written address by address.

Our own writes come back to us by the bucket's replica, often before they are answered: `ours` knows them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Final

from bootlink_dhcp.sharing import Entry, Sharing
from bootlink_dhcp.subnet import dotted
from bootlink_events import LEASES_BUCKET
from bootlink_runtime import Bus, BusUnavailable, Compared, CompareFailed, Health, Logger, Replica, compare_and_set_all

BATCH_LEAST: Final = 4  # addresses; fewer are as quick one by one
WRITES_AT_ONCE: Final = 32  # one by one; each waits for its sync to disk
WRITE_SECONDS: Final = 2.0  # until a batch counts as unknown and is repeated, as a single write does
LEASE_KEY: Final = "lease."


class EntryWriter:
    """The one way from this server into the bucket."""

    def __init__(self, bus: Bus, sharing: Sharing, replica: Replica, *, health: Health, log: Logger) -> None:
        self._bus, self._sharing, self._replica = bus, sharing, replica
        self._health, self._log = health, log
        self._under_way: dict[IPv4Address, asyncio.Future[None]] = {}  # done when that write has ended
        self._sent: dict[str, bytes] = {}  # what is under way, by its key

    def ours(self, key: str, value: bytes) -> bool:
        """This is what we are just writing."""
        return self._sent.get(key) == value

    def busy(self, address: IPv4Address) -> bool:
        """A write to this address is under way."""
        return address in self._under_way

    async def idle(self, address: IPv4Address) -> None:
        """Wait until no write to this address is under way."""
        while (under_way := self._under_way.get(address)) is not None:
            await asyncio.wait({under_way})

    async def store(self, entries: Mapping[IPv4Address, Entry]) -> set[IPv4Address]:
        """Make these the entries of their addresses, none of which is `busy`. Returns for which that is stored."""
        if not entries:
            return set()
        ended = asyncio.get_running_loop().create_future()
        writes = {address: self._write(address, entry) for address, entry in entries.items()}
        sent = {write.key: write.value for write in writes.values()}
        self._under_way |= dict.fromkeys(writes, ended)
        self._sent |= sent
        try:
            if len(writes) >= BATCH_LEAST:
                stored = await self._batch(entries, list(writes.values()))
                if stored is not None:
                    return stored
            return await self._singly(entries, writes)
        finally:
            for address in writes:
                del self._under_way[address]
            for key in sent:
                del self._sent[key]
            ended.set_result(None)

    def failed(self, what: str, error: BusUnavailable) -> None:
        """NATS did not take a write: we are cut off until it takes one."""
        self._sharing.cut = True
        self._log.debug(what, error=str(error))

    def _write(self, address: IPv4Address, entry: Entry) -> Compared:
        former = self._sharing.entries.get(address)
        key = LEASE_KEY + dotted(address).replace(".", "-")
        # An entry that the snapshot had is known by its value; its revision came with the reading of the bucket.
        known = max(former.revision if former is not None else 0, self._replica.revisions.get(key, 0))
        return Compared(key, entry.encode(), known)

    async def _batch(self, entries: Mapping[IPv4Address, Entry], writes: list[Compared]) -> set[IPv4Address] | None:
        """For which it is stored: all, or none where NATS is away. None if the batch was refused."""
        try:
            last = await compare_and_set_all(self._bus, LEASES_BUCKET, writes, timeout=WRITE_SECONDS)
        except BusUnavailable as error:
            self.failed("leases wait", error)
            return set()
        if last is None:
            return None
        self._sharing.confirmed(time.time())
        for revision, (address, entry) in enumerate(entries.items(), last - len(entries) + 1):
            self._sharing.stored(address, entry, revision)
        return set(entries)

    async def _singly(
        self, entries: Mapping[IPv4Address, Entry], writes: Mapping[IPv4Address, Compared]
    ) -> set[IPv4Address]:
        stored: set[IPv4Address] = set()
        waiting = list(entries.items())
        for start in range(0, len(waiting), WRITES_AT_ONCE):
            some = waiting[start : start + WRITES_AT_ONCE]
            done = await asyncio.gather(*(self._single(address, entry, writes[address]) for address, entry in some))
            stored.update(address for (address, _), is_done in zip(some, done, strict=True) if is_done)
            if self._sharing.cut:
                break  # NATS is away for the others, too
        return stored

    async def _single(self, address: IPv4Address, entry: Entry, write: Compared) -> bool:
        try:
            revision = await self._bus.compare_and_set(LEASES_BUCKET, write.key, write.value, write.revision)
        except CompareFailed:
            self._health.count("lease_races")  # the replica is about to tell what was written
            self._sharing.confirmed(time.time())
            return False
        except BusUnavailable as error:
            self.failed("lease waits", error)
            return False
        self._sharing.confirmed(time.time())
        self._sharing.stored(address, entry, revision)
        return True
