"""Delivery: what the database says reaches the other services, in this order: change, plan, event.

One loop, in rounds. A round

1. reads the oldest events of the outbox;
2. in one transaction that sees one state, compiles the plans that recorded changes touch, and gives each that differs
   from the last one a new revision;
3. puts those plans into the bucket that are not there as they should be, and forgets the recorded changes;
4. publishes the events and forgets them.

So an event is published after the plans of its change, and whatever is interrupted is done again: a plan that is
compiled again is the same plan, and an event that is published again has the same id.

The bucket is only a picture of the database. A replica of it shows what is really there; a key that is not what was
put last, or belongs to nobody, is put right. A *full* round, which does that for every client, is due at the start, at
each new connection to NATS (its store may have been lost), when the block stores change, and every FULL_SECONDS.

Several registries may run: whoever holds a session lock in the database delivers, the others stand by.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

import asyncpg

from bootlink_events import PLANS_BUCKET, BootPlan, CloudEvent, is_shared, mac_token, read_plan
from bootlink_registry import outbox, plans, rows
from bootlink_registry.database import Connection, Database, DatabaseAway
from bootlink_registry.homes import Homes
from bootlink_registry.locks import Whole
from bootlink_registry.names import as_mac
from bootlink_registry.nodes import NodeWatch
from bootlink_registry.spindles import Spindles
from bootlink_runtime import Bus, BusUnavailable, Health, Logger, Replica, put_all

STANDBY_SECONDS: Final = 1.0  # between tries for the lock
POLL_SECONDS: Final = 1.0  # between rounds that nobody asked for; a notification can be lost
RETRY_SECONDS: Final = 0.5  # after NATS did not take something
FULL_SECONDS: Final = 300.0
HELD_UP_SECONDS: Final = 10.0  # a restart of NATS takes less; from then on the administrator is told
SAY_AGAIN_SECONDS: Final = 300.0  # between log lines while it stays held up


class Delivery:
    """Compiles plans and publishes events, for ever."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        nodes: NodeWatch,
        homes: Homes,
        spindles: Spindles,
        *,
        on_stored: Callable[[CloudEvent], None],
        health: Health,
        log: Logger,
    ) -> None:
        """`on_stored` is told of each event once NATS has it; twice, where that was not noted before a crash."""
        self._on_stored = on_stored
        self.active = False  # this registry holds the lock
        self._database = database
        self._bus = bus
        self._nodes = nodes
        self._homes = homes
        self._spindles = spindles
        self._health = health
        self._log = log
        self._bucket = Replica(bus, PLANS_BUCKET, None, self._bucket_changed, log)
        self._put_last: dict[str, bytes] = {}
        self._suspects: set[str] = set()  # keys of the bucket that are not what was put last
        self._full = True
        self._wake = asyncio.Event()
        self._held_up = ""  # why NATS did not take something, since `_held_up_since`
        self._held_up_since = 0.0
        health.check("delivery", self._check, required=False)

    def _check(self) -> tuple[bool, str]:
        return (False, f"changes wait: {self._held_up}") if self._held_up else (True, "nothing waits")

    def full_round(self) -> None:
        """Compile and check every plan in the next round."""
        self._full = True
        self._wake.set()

    @property
    def serving(self) -> rows.Serving:
        """Who serves now, for the compiler."""
        nodes = {info.node: info.portals for info in self._nodes.nodes.all}
        return rows.Serving(self._nodes.portals, nodes, self._spindles.unfit, self._nodes.nodes.full)

    def delivered(self, plan: BootPlan) -> bool:
        """Whether this very plan is in the bucket."""
        return read_plan(self._bucket.entries, mac_token(plan.mac)) == plan

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What has to run for ever, by name: the picture of the bucket, the clock of full rounds, and the loop."""
        return {"plans": self._bucket.run(), "full rounds": self._request_full_rounds(), "delivery": self._deliver()}

    def _bucket_changed(self, key: str, value: bytes | None) -> None:
        if self._put_last.get(key) != value:
            self._suspects.add(key)
            self._wake.set()

    async def _request_full_rounds(self) -> None:
        epoch = await self._bus.epoch_after(0)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FULL_SECONDS):
                    epoch = await self._bus.epoch_after(epoch)
            self.full_round()

    async def _deliver(self) -> None:
        # Before the bucket was read whole there is no telling what differs, and before the nodes were, every plan
        # would say that there is no block store.
        await self._bucket.synced.wait()
        await self._nodes.synced()
        while True:
            try:
                async with self._database.session() as connection:
                    await self._deliver_on(connection)
            except DatabaseAway:
                await self._database.recovered()
            finally:
                self.active = False

    async def _deliver_on(self, connection: Any) -> None:
        """Deliver for as long as this connection lasts. The lock goes with it."""
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", Whole.DELIVERY):  # noqa: ASYNC110
            await asyncio.sleep(STANDBY_SECONDS)
        self.active = True
        await connection.add_listener(outbox.CHANNEL, lambda *_: self._wake.set())
        self.full_round()
        while True:
            self._wake.clear()
            if not self._bus.connected:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            try:
                again = await self._round(connection)
            except BusUnavailable as error:
                self._waits(str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except asyncpg.SerializationError:  # an administrator moved a client's home in this very moment
                continue
            self._held_up = ""
            if not again:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()

    def _waits(self, problem: str) -> None:
        self._log.debug("delivery waits", error=problem)
        now = asyncio.get_running_loop().time()
        if not self._held_up:
            self._held_up_since = now
        self._held_up = problem
        if now - self._held_up_since > HELD_UP_SECONDS and self._bus.connected:
            self._held_up_since = now + SAY_AGAIN_SECONDS
            self._log.warning("changes wait", problem=problem, remedy="the log of nats-server may say why")

    async def _round(self, connection: Connection) -> bool:
        """One round. True if more is waiting already. BusUnavailable if NATS did not take all of it."""
        await self._homes.settled()  # or a client could be sent to a node, and what it keeps lies on another
        events = await outbox.oldest_events(connection)
        full, self._full = self._full, False
        suspects, self._suspects = self._suspects, set()
        try:
            async with connection.transaction(isolation="repeatable_read"):
                work = await outbox.oldest_recompiles(connection)
                everybody = full or work.everybody or any(map(is_shared, suspects))
                shown, ownerless = await self._compile(connection, work, suspects, everybody=everybody)
            self._homes.taken_in()
            await self._put(shown, ownerless)
        except BaseException:
            self._full |= full
            self._suspects |= suspects
            raise
        await outbox.forget_recompiles(connection, work)
        stored: list[str] = []
        try:
            for event in events:
                await self._bus.publish(event)
                stored.append(event.id)
                self._on_stored(event)
        finally:
            if stored:
                await outbox.forget_events(connection, stored)
        return len(events) == outbox.EVENT_BATCH or len(work.ids) == outbox.RECOMPILE_BATCH

    async def _compile(
        self, connection: Connection, work: outbox.Recompiles, suspects: set[str], *, everybody: bool
    ) -> tuple[dict[str, bytes], set[str]]:
        """The entries to show, by key, with their revisions; and the keys that belong to nobody."""
        macs = work.macs | {mac for key in suspects if (mac := as_mac(key)) is not None}
        if not (everybody or macs or work.groups or suspects):
            return {}, set()
        macs |= await self._homes.settle(connection, everybody=everybody, macs=macs, groups=work.groups)
        shown = await plans.compile_all(connection, self.serving, everybody=everybody, macs=macs, groups=work.groups)
        asked = set(self._bucket.entries) if everybody else suspects | {mac_token(mac) for mac in macs}
        ownerless = asked - shown.keys()
        await plans.forget(connection, ownerless)
        return shown, ownerless

    async def _put(self, shown: Mapping[str, bytes], ownerless: Iterable[str]) -> None:
        """Make the bucket show these entries, in their order, and then nothing under the keys of nobody; but first the
        entries of clients that leave what is shared, where that changes."""
        wanted: dict[str, bytes | None] = {**shown, **dict.fromkeys(ownerless)}
        different = {key: value for key, value in wanted.items() if self._bucket.entries.get(key) != value}
        steps = plans.in_steps(different, shown, self._bucket.entries, self._put_last)
        self._put_last |= shown
        for key in ownerless:
            self._put_last.pop(key, None)
        for step in steps:
            if step:
                await put_all(self._bus, PLANS_BUCKET, step)
        removed = sum(value is None for value in different.values())
        self._health.count("plans_put", len(different) - removed)
        self._health.count("plans_removed", removed)
