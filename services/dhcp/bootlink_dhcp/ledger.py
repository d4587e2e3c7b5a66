"""The I/O around `Sharing`: leases to and from the bucket that all dhcp servers read and write.

How it works. A replica of the bucket tells what others wrote; it goes into the lease tables, unless we have a newer
word of our own. What the tables record here gathers for a moment and is written by compare-and-set, all of it at once
(`EntryWriter`). The latest word for an address takes the place of one that still waits, so an outage of any length
leaves at most one for each address. A write that another server came before is looked at again once the replica has its
entry.

Each `HEARTBEAT` seconds the server says that it is there; and it claims free addresses, or takes old ones back, until
it holds its share.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from itertools import islice
from pathlib import Path
from typing import Any, Final

from bootlink_dhcp.entry_writer import LEASE_KEY, EntryWriter
from bootlink_dhcp.leases import Lease, LeaseTable, State
from bootlink_dhcp.sharing import HEARTBEAT, Entry, Held, Sharing, decode_entry
from bootlink_events import LEASES_BUCKET
from bootlink_runtime import Bus, BusUnavailable, Health, Logger, Replica

GATHER: Final = 0.1
"""Seconds that what is recorded waits for more. No answer waits for it: those that need another server's word are
written at once (`confirm`), and what is promised is on our own disk."""
BATCH: Final = 256  # addresses in one batch: some 20 ms of work, after which packets have their turn
CLAIMS_AT_ONCE: Final = 256  # addresses claimed in a row, after which leases that wait have their turn
CLAIM_SECONDS: Final = 1.0  # between looks at our share, each of which goes through the pool where it is too small
PAUSE: Final = 0.2  # seconds until a write that failed is tried again
CONFIRM_SECONDS: Final = 2.0  # that an answer waits; then the client asks again
_SERVER: Final = "server."

Value = Mapping[str, Any]


class LeaseLedger:
    """One server's leases in the bucket."""

    def __init__(
        self,
        bus: Bus,
        sharing: Sharing,
        tables: Sequence[LeaseTable],
        folder: Path,
        *,
        gone: Collection[str] = (),
        log: Logger,
        health: Health,
    ) -> None:
        """`gone`: servers that an administrator knows to be no more."""
        self._gone = gone
        self._bus, self._sharing, self._tables = bus, sharing, tables
        self._log, self._health = log, health
        self._dirty: dict[IPv4Address, Value | None] = {}
        self._absorbing = False
        self._loading = True  # what the snapshot says is not news
        self._newcomers = False
        self._work = asyncio.Event()
        self._beat = 0.0
        self._next_claim = 0.0
        self._replica = Replica(
            bus, LEASES_BUCKET, folder / "shared-leases.json", self._changed, log, on_anew=sharing.anew
        )
        self._writer = EntryWriter(bus, sharing, self._replica, health=health, log=log)
        self._replica.load_snapshot()
        self._loading = False
        health.check("lease bucket", self._check, required=False)

    # -- for the server ----------------------------------------------------------------------------------------

    def changed(self, address: IPv4Address, value: Value | None) -> None:
        """A lease table recorded this."""
        if not self._absorbing:
            self._dirty[address] = value
            self._work.set()

    async def first_look(self, connect_seconds: float, read_seconds: float) -> None:
        """Wait until we know who else is there, or that NATS is away: a new server would else take all for its own."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(connect_seconds):
                await self._bus.tried()
        if self._bus.connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(read_seconds):
                    await self._replica.synced.wait()

    def silent(self, until: float) -> bool:
        """We have been cut off for so long that no lease may be promised until then."""
        return not self._sharing.may_promise(until)

    def must_confirm(self, address: IPv4Address) -> bool:
        return self._sharing.must_confirm(address)

    async def confirm(self, address: IPv4Address, client: str, until: float) -> bool:
        """Make the address ours before it is promised. False if it cannot be: then there is no answer."""
        now = time.time()
        if self._sharing.unconfirmed(address, client, until, now):
            return True
        if self._sharing.cut or not self._sharing.again(address, client, now):
            return False
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await self._writer.idle(address)
                await self._write([address])
        except TimeoutError:
            return False
        if self._sharing.unconfirmed(address, client, until, now):  # NATS went away just then
            return True
        entry = self._sharing.entries.get(address)
        return entry is not None and (entry.server, entry.client) == (self._sharing.me, client)

    def _check(self) -> tuple[bool, str]:
        others = ", ".join(sorted(self._sharing.peers)) or "none"
        if not self._sharing.joined:
            strange = sorted(node for node, peer in self._sharing.peers.items() if not peer.knows_us)
            return False, (
                f"waits for {', '.join(strange)} to take note of this server; if that is gone for good, name it in "
                "BOOTLINK_DHCP_GONE_SERVERS"
            )
        if self._sharing.cut and not self._sharing.alone:
            return False, f"cannot be written; known leases go on, other servers: {others}"
        waits = f"; {len(self._dirty)} leases wait to be written" if self._dirty else ""
        return True, f"other servers: {others}{waits}"

    # -- what others write -------------------------------------------------------------------------------------

    def _changed(self, key: str, value: bytes | None) -> None:
        try:
            if key.startswith(_SERVER):
                self._server_changed(key.removeprefix(_SERVER), value)
            elif key.startswith(LEASE_KEY):
                if value is not None and self._writer.ours(key, value):
                    return  # our own write, whose answer is about to come
                address = IPv4Address(key.removeprefix(LEASE_KEY).replace("-", "."))
                revision = self._replica.revisions.get(key, 0)
                held = self._sharing.entries.get(address)
                if value is not None and held is not None and revision <= held.revision:
                    return  # our own write, which we knew of
                self._entry_changed(address, decode_entry(value, revision) if value is not None else None)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._health.count("leases_unreadable")
            self._log.error("lease unreadable", key=key, error=str(error), remedy="is another server newer than this?")

    def _server_changed(self, node: str, value: bytes | None) -> None:
        if node == self._sharing.me:
            if value is not None:  # of the snapshot: when we were last heard, before a restart
                self._sharing.contact = max(self._sharing.contact, float(json.loads(value)["at"]))
            return
        if value is None:
            self._sharing.forget(node)
            return
        # The first reading shows what was written at any time: only a change after it is a sign of life.
        fresh = self._replica.synced.is_set() and not self._loading
        if self._sharing.told(node, json.loads(value), time.time(), fresh=fresh):
            self._newcomers = True
            self._log.info("another dhcp server", server=node)
        self._work.set()

    def _entry_changed(self, address: IPv4Address, entry: Entry | None) -> None:
        table = self._table(address)
        if entry is None:
            former = self._sharing.gone(address)
            if former is not None and former.server == self._sharing.me and table is not None:
                self._say_again(table, address)  # the bucket was made anew
            return
        self._sharing.stored(address, entry, entry.revision)
        if table is None or (self._loading and table.at(address) is not None):
            return  # the journal is newer than the snapshot
        if address in self._dirty:
            mine = self._dirty[address]
            if mine is not None and self._sharing.may_write(address, mine["client"]):
                return  # ours is newer
            del self._dirty[address]
            self._health.count("leases_given_up")
            self._log.warning("lease given up: another server has the address", address=str(address), entry=str(entry))
        self._absorb(table, address, _lease(address, entry))

    def _absorb(self, table: LeaseTable, address: IPv4Address, lease: Lease | None) -> None:
        """The bucket says what this address is: no news of ours."""
        self._absorbing = True
        try:
            table.absorb(address, lease)
        finally:
            self._absorbing = False

    def _say_again(self, table: LeaseTable, address: IPv4Address) -> None:
        lease = table.at(address)
        if lease is not None and lease.state is not State.OFFERED:
            self._dirty[address] = {"client": lease.client, "state": lease.state.value, "expires": lease.expires}
            self._work.set()

    def _table(self, address: IPv4Address) -> LeaseTable | None:
        return next((table for table in self._tables if address in table.subnet.network), None)

    # -- what we write -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the bucket and us at one, for ever."""
        for table in self._tables:
            for address in table.leased():
                entry = self._sharing.entries.get(address)
                if entry is None or entry.server == self._sharing.me:
                    self._say_again(table, address)
        follower = asyncio.create_task(self._replica.run(), name="lease replica")
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE if self._dirty else HEARTBEAT / 5):
                        await self._work.wait()
                    await asyncio.sleep(GATHER)
                self._work.clear()
                if not (self._bus.connected and self._replica.synced.is_set()):
                    self._sharing.cut = True
                    continue
                await self._round()
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def _round(self) -> None:
        """Write what waits; then say that we are there; then see to our share."""
        newcomers, self._newcomers = self._newcomers, False
        for _ in range(2 if newcomers else 1):  # what was given out while we were alone comes before our word
            await self._write_all()
        if newcomers or time.time() - self._beat >= HEARTBEAT or self._sharing.cut:
            await self._sign()
        silent = {node for node in self._gone if node in self._sharing.peers and not self._sharing.peers[node].heard}
        for node in sorted({*self._sharing.overdue(time.time()), *silent}):
            await self._retire(node)
        if self._sharing.joined and not self._sharing.cut and time.monotonic() >= self._next_claim:
            self._next_claim = time.monotonic() + CLAIM_SECONDS
            await self._claim()

    async def _write_all(self) -> None:
        waiting = list(self._dirty)
        for start in range(0, len(waiting), BATCH):
            if not self._bus.connected:
                return
            await self._write(waiting[start : start + BATCH])

    async def _write(self, addresses: Iterable[IPv4Address]) -> None:
        """Write what the tables said last of these. What could not be written waits on."""
        values: dict[IPv4Address, Value | None] = {}
        entries: dict[IPv4Address, Entry] = {}
        for address in addresses:
            if address not in self._dirty or self._writer.busy(address):
                continue
            value = self._dirty[address]
            former = self._sharing.entries.get(address)
            entry = self._entry(address, former, value)
            if entry is None or (former is not None and _same(former, entry)):
                self._done(address, value)
                continue
            values[address], entries[address] = value, entry
        for address in await self._writer.store(entries):
            self._done(address, values[address])

    def _done(self, address: IPv4Address, value: Value | None) -> None:
        if address in self._dirty and self._dirty[address] is value:
            del self._dirty[address]

    def _entry(self, address: IPv4Address, former: Entry | None, value: Value | None) -> Entry | None:
        """What to write for this; None if there is nothing of ours to say."""
        if value is not None:
            if not self._sharing.may_write(address, value["client"]):
                return None
            return Entry(self._sharing.me, Held(value["state"]), value["client"], value["expires"])
        if former is None or (former.server != self._sharing.me and not self._sharing.alone):
            return None
        return Entry(self._sharing.me, Held.FREE if self._sharing.alone else Held.HELD)

    async def _sign(self) -> None:
        now = time.time()
        try:
            await self._bus.put(LEASES_BUCKET, _SERVER + self._sharing.me, self._sharing.sign(now))
        except BusUnavailable as error:
            self._writer.failed("no sign of life", error)
            return
        self._beat = now
        self._sharing.confirmed(now)

    async def _retire(self, node: str) -> None:
        """Another server is gone for good: what it held is free."""
        with contextlib.suppress(BusUnavailable):
            await self._bus.put(LEASES_BUCKET, _SERVER + node, None)
            self._sharing.forget(node)
            self._log.warning("a dhcp server is gone, and its addresses are taken over", server=node)

    # -- our share ---------------------------------------------------------------------------------------------

    async def _claim(self) -> None:
        for table in self._tables:
            wanted = self._sharing.share(len(table.subnet.pool))
            if not wanted:
                continue
            held = sum(address in table.subnet.pool for address in self._sharing.spares)
            found = list(islice(self._claims(table), min(max(0, wanted - held), CLAIMS_AT_ONCE)))
            for address in await self._writer.store(dict.fromkeys(found, Entry(self._sharing.me, Held.HELD))):
                self._absorb(table, address, None)
            if len(found) == CLAIMS_AT_ONCE:
                self._next_claim = 0.0  # and more, after what waits
                self._work.set()

    def _claims(self, table: LeaseTable) -> Iterable[IPv4Address]:
        """Addresses that could be ours: those that nobody has, then leases that have run out."""
        for address in table.subnet.pool:
            if self._untouched(address) and self._sharing.claimable(address) and table.spare(address):
                yield address
        now = time.time()
        for address in table.subnet.pool:
            if self._untouched(address) and self._sharing.reclaimable(address, now) and table.lapsed(address, now):
                yield address

    def _untouched(self, address: IPv4Address) -> bool:
        return address not in self._dirty and not self._writer.busy(address)


def _lease(address: IPv4Address, entry: Entry) -> Lease | None:
    if entry.state in (Held.FREE, Held.HELD):
        return None
    return Lease(address, entry.client, State(entry.state), entry.expires)


def _same(one: Entry, other: Entry) -> bool:
    """But for their revisions."""
    return (one.server, one.state, one.client, one.expires) == (other.server, other.state, other.client, other.expires)
