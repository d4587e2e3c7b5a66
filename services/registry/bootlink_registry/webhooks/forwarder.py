"""The webhooks at work: events in from the stream, deliveries out by HTTP, for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bootlink_events import CloudEvent, takes_any
from bootlink_registry.database import Connection, Database, DatabaseAway
from bootlink_registry.webhooks import deliveries, rows
from bootlink_registry.webhooks.deliveries import WAITING_LIMIT, Counts, Delivery
from bootlink_registry.webhooks.names import Names
from bootlink_registry.webhooks.rows import Webhook
from bootlink_registry.webhooks.schedule import Attempt, Pace, Schedule, Verdict
from bootlink_registry.webhooks.sender import CONNECTIONS, Sender
from bootlink_registry.webhooks.targets import Network
from bootlink_runtime import Bus, Health, Logger, consume, ended

DURABLE: Final = "webhooks"
REFRESH_SECONDS: Final = 5.0  # between looks for what another registry has changed
PRUNE_REFRESHES: Final = 60
POLL_SECONDS: Final = 5.0  # longest wait for work that nobody told of; another registry may have queued it
SHORTEST_SECONDS: Final = 0.01  # between two looks for what is due
FAILING_SECONDS: Final = 60.0  # that a webhook takes nothing before the status says so


@dataclass(slots=True)
class _Worker:
    webhook: Webhook
    task: asyncio.Task[None]
    wake: asyncio.Event  # there may be something to send
    pace: Pace


class Forwarder:
    """Sends events to webhooks."""

    def __init__(
        self,
        database: Database,
        *,
        source: str,
        schedule: Schedule,
        networks: Sequence[Network],
        health: Health,
        log: Logger,
    ) -> None:
        self._database = database
        self._source = source
        self._schedule = schedule
        self._networks = networks
        self._names = Names()
        self._health = health
        self._log = log
        self._webhooks: tuple[Webhook, ...] = ()
        self._counts: dict[str, Counts] = {}
        self._workers: dict[str, _Worker] = {}
        self._changed = asyncio.Event()
        self._loaded = asyncio.Event()
        health.check("webhooks", self._check, required=False)

    def _check(self) -> tuple[bool, str]:
        now = datetime.now(UTC)
        wrong = [
            f"{hook.name} {'takes nothing' if hook.enabled else 'was switched off'}: {hook.problem}"
            for hook in self._webhooks
            if (hook.enabled and _fails(hook, now)) or (not hook.enabled and hook.problem)
        ]
        return (not wrong, "; ".join(wrong) or f"{len(self._webhooks)} webhooks")

    def hurry(self, name: str) -> None:
        """Try this webhook at once, whatever it answered last."""
        if name in self._workers:
            self._workers[name].pace.hurry()
            self._workers[name].wake.set()

    # -- events in ----------------------------------------------------------------------------------------------

    async def take_in(self, bus: Bus) -> None:
        """Consume events for ever, except while the database is away."""
        await self._loaded.wait()
        await self._database.while_up(lambda: consume(bus, DURABLE, self.handle, self._log, since=self._oldest))

    def _oldest(self) -> datetime:
        """From when on somebody wants events, if the server knows nothing of us yet."""
        return min((hook.created for hook in self._webhooks), default=datetime.now(UTC))

    async def handle(self, event: CloudEvent) -> None:
        """Queue one event for whoever wants it; a second time changes nothing. DatabaseAway if it could not be."""
        wanting = [
            hook.name
            for hook in self._webhooks
            if hook.enabled and hook.created <= event.time and takes_any(hook.filters, event)
        ]
        if not wanting:
            return
        async with self._database.transaction() as connection:
            for name in list(wanting):
                if self._counts.get(name, Counts()).waiting >= WAITING_LIMIT:
                    wanting.remove(name)
                    problem = f"{WAITING_LIMIT} events wait for it; what came since is not among them"
                    await rows.switch_off(connection, name, problem, source=self._source)
                    self._log.warning("webhook switched off", webhook=name, problem=problem)
                    self._changed.set()
            queued = await deliveries.enqueue(connection, wanting, event)
        self._health.count("webhook_events_queued", queued)
        for name in wanting:
            before = self._counts.get(name, Counts())
            self._counts[name] = Counts(before.waiting + 1, before.dead)
            if name in self._workers:
                self._workers[name].wake.set()

    # -- webhooks -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Have a worker for each webhook that is switched on, for ever."""
        refreshes = 0
        try:
            while True:
                self._changed.clear()
                try:
                    await self._load(prune=refreshes % PRUNE_REFRESHES == 0)
                    await self._staff()
                except DatabaseAway:
                    await self._database.recovered()
                    continue
                refreshes += 1
                self._loaded.set()
                await _until(self._changed, REFRESH_SECONDS)
        finally:
            await ended(*(worker.task for worker in self._workers.values()))

    async def load(self) -> None:
        """Know the webhooks as they are now. Raises DatabaseAway."""
        await self._load(prune=False)
        self._changed.set()

    async def _load(self, *, prune: bool) -> None:
        async with self._database.transaction() as connection:
            if prune:
                await deliveries.prune(connection)
            self._webhooks = tuple(await rows.listed(connection))
            self._counts = await deliveries.counts(connection)

    async def _staff(self) -> None:
        wanted = {hook.name: hook for hook in self._webhooks if hook.enabled}
        for name, worker in list(self._workers.items()):
            if worker.task.done():
                worker.task.result()  # an error is the registry's, too; without one its receiver is gone
            if worker.task.done() or name not in wanted or _settings(worker.webhook) != _settings(wanted[name]):
                await ended(worker.task)
                del self._workers[name]
        for name, hook in wanted.items():
            if name not in self._workers:
                wake = asyncio.Event()
                pace = Pace(self._schedule, most=CONNECTIONS, failing=hook.failing_since is not None)
                task = asyncio.create_task(self._work(hook, wake, pace), name=f"webhook {name}")
                self._workers[name] = _Worker(hook, task, wake, pace)
            self._workers[name].wake.set()

    # -- deliveries out -----------------------------------------------------------------------------------------

    async def _work(self, hook: Webhook, wake: asyncio.Event, pace: Pace) -> None:
        """Send what is due, for ever, or until its receiver is gone for good."""
        sender = Sender(hook, self._networks, self._names)
        clock = asyncio.get_running_loop().time
        under_way: set[asyncio.Task[Attempt]] = set()
        try:
            while True:
                wake.clear()
                try:
                    idle = pace.rest(clock()) or POLL_SECONDS
                    if room := pace.room(clock(), len(under_way)):
                        taken, idle = await self._take(hook, room, whatever_due=pace.failing)
                        under_way |= {asyncio.create_task(self._one(hook, sender, delivery)) for delivery in taken}
                    done = await _first(under_way, wake, idle)
                    under_way -= done
                    for attempt in [task.result() for task in done]:
                        if attempt.verdict is Verdict.GONE:
                            self._changed.set()
                            return
                        if attempt.verdict is Verdict.AWAY:
                            pace.away(clock(), attempt.retry_after)
                        elif attempt.verdict is Verdict.DELIVERED and pace.delivered():
                            await self._recover(hook)
                except DatabaseAway:
                    await self._database.recovered()
        finally:
            await ended(*under_way)
            await sender.close()

    async def _take(self, hook: Webhook, room: int, *, whatever_due: bool) -> tuple[list[Delivery], float]:
        """What to send now, and seconds until there may be more to send that nobody tells of."""
        async with self._database.transaction() as connection:
            taken = await deliveries.take(connection, hook.name, room, whatever_due=whatever_due)
            if taken:
                return taken, POLL_SECONDS
            due = await deliveries.next_due(connection, hook.name)
        return [], POLL_SECONDS if due is None else min(POLL_SECONDS, max(due, SHORTEST_SECONDS))

    async def _one(self, hook: Webhook, sender: Sender, delivery: Delivery) -> Attempt:
        attempt = await sender.attempt(delivery)
        async with self._database.transaction() as connection:
            await self._write_down(connection, hook, delivery, attempt)
        self._health.count(f"webhook_attempts_{attempt.verdict.value}")
        return attempt

    async def _write_down(self, connection: Connection, hook: Webhook, delivery: Delivery, attempt: Attempt) -> None:
        if attempt.verdict is Verdict.DELIVERED:
            await deliveries.delivered(connection, delivery.id, hook.name)
            return
        if attempt.verdict is Verdict.GONE:
            await deliveries.failed(connection, delivery.id, hook.name, attempt.problem, again=0.0, away=True)
            problem = f"its receiver says that it is gone for good: {attempt.problem}"
            await rows.switch_off(connection, hook.name, problem, source=self._source)
            self._log.warning("webhook switched off", webhook=hook.name, problem=problem)
            return
        away = attempt.verdict is Verdict.AWAY
        over = self._schedule.given_up(delivery.refusals + (not away), delivery.waited)
        again = None if over else self._schedule.delay(delivery.attempts, retry_after=attempt.retry_after)
        await deliveries.failed(connection, delivery.id, hook.name, attempt.problem, again=again, away=away)
        if over:
            self._health.count("webhook_events_dead")
            self._log.warning(
                "webhook event given up",
                webhook=hook.name,
                id=delivery.event_id,
                problem=attempt.problem,
                remedy=f"mend the receiver, then: bootlink webhook resend {hook.name}",
            )

    async def _recover(self, hook: Webhook) -> None:
        async with self._database.transaction() as connection:
            await deliveries.recovered(connection, hook.name)


async def _first(
    under_way: set[asyncio.Task[Attempt]], wake: asyncio.Event, seconds: float
) -> set[asyncio.Task[Attempt]]:
    """Wait until one of these is over, or for the event, or so long; what is over."""
    waking = asyncio.create_task(wake.wait())
    try:
        done, _ = await asyncio.wait({*under_way, waking}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waking.cancel()
    return {task for task in under_way if task in done}


async def _until(event: asyncio.Event, seconds: float) -> None:
    """Wait for it, but no longer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _fails(hook: Webhook, now: datetime) -> bool:
    return hook.failing_since is not None and (now - hook.failing_since).total_seconds() >= FAILING_SECONDS


def _settings(hook: Webhook) -> tuple[object, ...]:
    """What a worker works with; for another of it there is another worker."""
    return (hook.url, hook.secret, hook.former_secret, hook.former_until, hook.created)
