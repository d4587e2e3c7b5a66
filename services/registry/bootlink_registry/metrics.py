"""The metrics of this service: boots and how far they came, events taken in, jobs, deliveries, the API.

What lies in PostgreSQL and in NATS is looked at every SAMPLE_SECONDS and told as it was then; while one of the two is
away, its figures are left out, as a number that nobody has is better missing than old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, get_args

from bootlink_events import (
    BootAddressed,
    BootDiskAttached,
    BootDiskUsed,
    BootFailed,
    BootHello,
    BootLoaderSent,
    BootScriptServed,
    BootStarted,
    Stage,
)
from bootlink_registry.api.measured import METHODS, STATUSES, Requests
from bootlink_registry.database import Database, DatabaseAway
from bootlink_registry.jobs.kinds import KINDS
from bootlink_registry.jobs.queue import State as JobState
from bootlink_registry.webhooks.schedule import Verdict
from bootlink_runtime import LONG_SECONDS, Bus, BusUnavailable, Chassis, Distribution, Metric, tally
from bootlink_runtime.backlog import CONSUMERS_LIMIT, Backlog, look
from bootlink_runtime.metering import Labels

SAMPLE_SECONDS: Final = 5.0
JOB_STATES: Final = get_args(JobState)
BOOT_ENDS: Final = ("running", "ended", "failed", "superseded")
FAILED_AT: Final = ("dhcp", "loader", "script", "disk")
# How far a boot has come, by the event that says so. An operating system's login is what people wait for.
_REACHED: Final[dict[type[Stage], str]] = {
    BootStarted: "started",
    BootAddressed: "addressed",
    BootLoaderSent: "loader",
    BootScriptServed: "script",
    BootDiskUsed: "read",
    BootHello: "hello",
}
REACHED: Final = (*_REACHED.values(), "firmware login", "system login")

INTAKE: Final = tally(
    "bootlink.boot.stages",
    "{stage}",
    "stages of boots that were told by the other services, by what became of them",
    "outcome",
    {"stages_recorded": "recorded", "stages_repeated": "repeated", "stages_ahead_of_time": "in the future"},
)
SEEN: Final = tally(
    "bootlink.clients.seen",
    "{client}",
    "unknown PCs that asked, by what became of them",
    "outcome",
    {
        "clients_enrolled": "enrolled",
        "clients_known": "known",
        "clients_unknown": "left unknown",
        "clients_full": "too many",
    },
)
PLANS: Final = tally(
    "bootlink.delivery.plans",
    "{plan}",
    "boot plans that were put or taken out for the other services",
    "change",
    {"plans_put": "put", "plans_removed": "removed"},
)
SILENT: Final = tally(
    "bootlink.boots.silent", "{boot}", "boots that fell silent on the way", "state", {"boots_fell_silent": "booting"}
)
ATTEMPTS: Final = tally(
    "bootlink.webhook.attempts",
    "{attempt}",
    "attempts to hand events to webhooks, by what came of them",
    "outcome",
    {f"webhook_attempts_{verdict.value}": verdict.value for verdict in Verdict},
)
WEBHOOKS: Final = tally(
    "bootlink.webhook.events",
    "{event}",
    "events for webhooks: queued, and given up",
    "outcome",
    {"webhook_events_queued": "queued", "webhook_events_dead": "dead"},
)
COUNTED: Final = frozenset({"boots_traced"})  # the sum of DONE
TALLIES: Final = (INTAKE, SEEN, PLANS, SILENT, ATTEMPTS, WEBHOOKS)
DONE: Final = Metric(
    *("bootlink.boots.done", "counter", "{boot}", "boots that arrived (running) or are over, by their state then"),
    *(("state",), len(BOOT_ENDS)),
)
FAILURES: Final = Metric(
    "bootlink.boot.failures", "counter", "{failure}", "failures that services told", ("stage",), len(FAILED_AT)
)
DELAY: Final = Metric(
    *("bootlink.boot.delay", "histogram", "s", "from power-on until a boot has come so far"),
    *(("stage",), len(REACHED)),
)
INTAKE_DELAY: Final = Metric(
    "bootlink.intake.delay", "histogram", "s", "from an event's emission until the registry has taken it in"
)
DATABASE: Final = Metric("bootlink.database.up", "gauge", "1", "1 while PostgreSQL answers")
HELD: Final = Metric(
    *("bootlink.registry.objects", "gauge", "{object}", "what the registry knows of", ("kind",), 5),
)
OUTBOX: Final = Metric("bootlink.outbox.waiting", "gauge", "{event}", "events of changes that are not published yet")
OUTBOX_AGE: Final = Metric("bootlink.outbox.lag", "gauge", "s", "how long the oldest of them has waited; 0 without one")
RECOMPILES: Final = Metric("bootlink.recompiles.waiting", "gauge", "{change}", "changes whose plans are not made yet")
DELIVERIES: Final = Metric(
    *(
        "bootlink.webhook.deliveries",
        "gauge",
        "{event}",
        "events that wait for webhooks, or were given up and are kept",
    ),
    *(("state",), 2),
)
JOBS: Final = Metric(
    *("bootlink.jobs", "gauge", "{job}", "jobs that are kept, by kind and state"),
    *(("kind", "state"), len(KINDS) * len(JOB_STATES)),
)
PROGRESS: Final = Metric(
    *("bootlink.job.progress", "gauge", "1", "share that is done of the running jobs of a kind, the least; 1 without"),
    *(("kind",), len(KINDS)),
)
STANDSTILL: Final = Metric(
    *("bootlink.job.standstill", "gauge", "s", "how long a running job of a kind has not moved, the most; 0 without"),
    *(("kind",), len(KINDS)),
)
STREAM: Final = Metric("bootlink.nats.events", "gauge", "{event}", "events that the stream holds")
STREAM_SIZE: Final = Metric("bootlink.nats.events.size", "gauge", "By", "and the bytes of them")
PENDING: Final = Metric(
    *("bootlink.nats.consumer.pending", "gauge", "{event}", "events that a durable consumer has not finished with"),
    *(("consumer", "state"), 3 * CONSUMERS_LIMIT),
)
REQUESTS: Final = Metric(
    *("bootlink.api.request.duration", "histogram", "s", "how long requests to the API took"),
    *(("method", "status"), len(METHODS) * len(STATUSES)),
)
METRICS: Final = (
    *(one.metric for one in TALLIES),
    *(DONE, FAILURES, DELAY, INTAKE_DELAY, DATABASE, HELD, OUTBOX, OUTBOX_AGE, RECOMPILES, DELIVERIES),
    *(JOBS, PROGRESS, STANDSTILL, STREAM, STREAM_SIZE, PENDING, REQUESTS),
)

_OBJECTS: Final = ("images", "versions", "clients", "links", "boots")
_COUNTS: Final = f"""
    SELECT {", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in _OBJECTS)},
        (SELECT count(*) FROM outbox) AS outbox, (SELECT count(*) FROM recompiles) AS recompiles,
        (SELECT count(*) FROM deliveries WHERE state = 'waiting') AS waiting,
        (SELECT count(*) FROM deliveries WHERE state = 'dead') AS dead,
        (SELECT coalesce(extract(epoch FROM now() - min(created)), 0)::float8 FROM outbox) AS outbox_age
"""  # noqa: S608 - names of our tables
_JOBS: Final = """
    SELECT kind, state, count(*) AS jobs,
        min(done::float8 / nullif(total, 0)) FILTER (WHERE state = 'running') AS progress,
        max(extract(epoch FROM now() - changed)::float8) FILTER (WHERE state = 'running') AS standstill
    FROM jobs GROUP BY kind, state
"""


class Figures:
    """What is counted here, and what was seen at the last look."""

    def __init__(self) -> None:
        self.intake = Distribution(LONG_SECONDS)
        self.reached = {stage: Distribution(LONG_SECONDS) for stage in REACHED}
        self.failures = dict.fromkeys(FAILED_AT, 0)
        self.done = dict.fromkeys(BOOT_ENDS, 0)
        self.counts: dict[str, Any] | None = None
        self.jobs: list[dict[str, Any]] | None = None
        self.backlog: Backlog | None = None

    def taken_in(self, seconds: float) -> None:
        """An event, so long after its emission."""
        self.intake.record(max(0.0, seconds))

    def recorded(self, stage: Stage) -> None:
        """A stage that was told for the first time."""
        if isinstance(stage, BootFailed):
            self.failures[stage.stage] += 1
            return
        reached = _REACHED.get(type(stage))
        if isinstance(stage, BootDiskAttached):
            reached = "firmware login" if stage.initiator == "firmware" else "system login"
        if reached is not None:
            self.reached[reached].record(max(0.0, stage.ended.timestamp() - stage.boot_id.timestamp_ms / 1000))

    def over(self, state: str) -> None:
        """A boot has arrived, or is over."""
        if state in self.done:
            self.done[state] += 1

    async def watch(self, database: Database, bus: Bus) -> None:
        """Look, for ever."""
        while True:
            try:
                async with database.transaction() as connection:
                    counts = dict(await connection.fetchrow(_COUNTS))
                    jobs = [dict(row) for row in await connection.fetch(_JOBS)]
                self.counts, self.jobs = counts, jobs
            except DatabaseAway:
                self.counts, self.jobs = None, None
            try:
                self.backlog = await look(bus)
            except BusUnavailable:
                self.backlog = None
            await asyncio.sleep(SAMPLE_SECONDS)


def measure(chassis: Chassis, figures: Figures, database: Database, requests: Requests) -> None:
    """Have them told."""
    meter = chassis.meter

    def count(name: str) -> Iterable[tuple[float, Labels]]:
        return [] if figures.counts is None else [(figures.counts[name], {})]

    def held() -> Iterable[tuple[int, Labels]]:
        counts = figures.counts
        return [] if counts is None else [(counts[kind], {"kind": kind}) for kind in _OBJECTS]

    def deliveries() -> Iterable[tuple[int, Labels]]:
        counts = figures.counts
        return [] if counts is None else [(counts[state], {"state": state}) for state in ("waiting", "dead")]

    def jobs() -> Iterable[tuple[int, Labels]]:
        if figures.jobs is None:
            return []
        found = {(one["kind"], one["state"]): one["jobs"] for one in figures.jobs}
        return [(found.get((kind, state), 0), {"kind": kind, "state": state}) for kind in KINDS for state in JOB_STATES]

    def running(what: str, otherwise: float) -> Iterable[tuple[float, Labels]]:
        if figures.jobs is None:
            return []
        found = {one["kind"]: one[what] for one in figures.jobs if one["state"] == "running"}
        # A job that cannot tell how much there is has done none of it, as far as is known.
        return [(found.get(kind, otherwise) or 0.0, {"kind": kind}) for kind in KINDS]

    def stream(what: str) -> Iterable[tuple[int, Labels]]:
        return [] if figures.backlog is None else [(getattr(figures.backlog, what), {})]

    def pending() -> Iterable[tuple[int, Labels]]:
        return [
            (getattr(one, state), {"consumer": name, "state": state})
            for name, one in (figures.backlog.consumers.items() if figures.backlog else ())
            for state in ("undelivered", "unacknowledged", "redelivered")
        ]

    meter.tally(TALLIES, chassis.health.counters)
    meter.observe(DONE, lambda: [(n, {"state": state}) for state, n in figures.done.items()])
    meter.observe(FAILURES, lambda: [(n, {"stage": stage}) for stage, n in figures.failures.items()])
    meter.distribute(DELAY, lambda: [(spread, {"stage": stage}) for stage, spread in figures.reached.items()])
    meter.distribute(INTAKE_DELAY, lambda: [(figures.intake, {})])
    meter.observe(DATABASE, lambda: [(int(database.is_up), {})])
    meter.observe(HELD, held)
    meter.observe(OUTBOX, lambda: count("outbox"))
    meter.observe(OUTBOX_AGE, lambda: count("outbox_age"))
    meter.observe(RECOMPILES, lambda: count("recompiles"))
    meter.observe(DELIVERIES, deliveries)
    meter.observe(JOBS, jobs)
    meter.observe(PROGRESS, lambda: running("progress", 1.0))
    meter.observe(STANDSTILL, lambda: running("standstill", 0.0))
    meter.observe(STREAM, lambda: stream("events"))
    meter.observe(STREAM_SIZE, lambda: stream("size"))
    meter.observe(PENDING, pending)
    meter.distribute(
        REQUESTS,
        lambda: [(spread, {"method": method, "status": status}) for (method, status), spread in requests.all()],
    )
