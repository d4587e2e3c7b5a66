"""What comes in: the stages of boots and unknown PCs, from the event stream into the database.

The stream's consumer is durable, so nothing is missed while the registry is away. While the database is away the
consumer rests: a message is given up after some deliveries, and a delivery that cannot succeed must not count.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from bootlink_events import BootId, ClientSeen, CloudEvent, Stage
from bootlink_registry import enrolment, journal
from bootlink_registry.database import Database, DatabaseAway
from bootlink_registry.enrolment import Rule
from bootlink_registry.metrics import Figures
from bootlink_registry.steps import ARRIVED
from bootlink_runtime import Bus, Health, Logger, Telemetry, consume

DURABLE: Final = "registry"
SWEEP_SECONDS: Final = 1.0  # between looks for boots that are over
AHEAD_SECONDS: Final = 24 * 3600.0
"""How far ahead of our clock a boot may have begun. Of a client's boots the latest are kept, and a boot ends where a
later one begins; so ids out of the far future, which anybody on the boot LAN can make up, would stand for its latest
boots for ever, and no real one would be kept any more. A day is more than clocks differ by, whatever their zone."""
PRUNE_SWEEPS: Final = 600  # sweeps between two prunings


class Intake:
    """Takes events in."""

    def __init__(
        self,
        database: Database,
        figures: Figures,
        *,
        enrolment_rule: Rule,
        source: str,
        silence: float,
        telemetry: Telemetry,
        health: Health,
        log: Logger,
    ) -> None:
        self._database = database
        self._figures = figures
        self._source = source
        self._silence = silence
        self._enrolment_rule = enrolment_rule
        self._telemetry = telemetry
        self._health = health
        self._log = log

    async def run(self, bus: Bus) -> None:
        """Consume events for ever, except while the database is away."""
        await self._database.while_up(lambda: consume(bus, DURABLE, self.handle, self._log))

    async def handle(self, event: CloudEvent) -> None:
        """Take one event in; a second time changes nothing. DatabaseAway if it could not be."""
        match event.decode():
            case Stage(boot_id=boot_id, mac=mac) if boot_id.timestamp_ms > (time.time() + AHEAD_SECONDS) * 1000:
                self._health.count("stages_ahead_of_time")
                self._log.warning(
                    "a boot that has not begun yet is left out",
                    mac=mac,
                    boot_id=str(boot_id),
                    source=event.source,
                    remedy="compare the clocks of the registry and of that service; if they agree, a PC has made it up",
                )
            case Stage() as stage:
                async with self._database.transaction() as connection:
                    recorded = await journal.record(connection, event, stage)
                self._health.count("stages_recorded" if recorded else "stages_repeated")
                if recorded:
                    self._figures.recorded(stage)
            case ClientSeen() as seen:
                await self._client_seen(seen)
            case _:
                pass
        self._figures.taken_in(time.time() - event.time.timestamp())

    async def _client_seen(self, seen: ClientSeen) -> None:
        async with self._database.transaction() as connection:
            outcome = await enrolment.enrol(connection, seen, self._enrolment_rule, source=self._source)
        self._health.count(f"clients_{outcome}")
        if outcome == "enrolled":
            self._log.info("client enrolled", mac=seen.mac, boot_id=str(seen.boot_id))
        elif outcome == "full":
            self._log.warning(
                "client not enrolled", mac=seen.mac, problem="too many PCs enrolled themselves", remedy="add it by hand"
            )

    async def sweep(self) -> None:
        """Write the root spans of boots that arrived or are over, name what is missing in those that fell silent, and
        hold the journal to its size, for ever."""
        sweeps = 0
        while True:
            try:
                async with self._database.transaction() as connection:
                    done = await journal.take_done(connection)
                    silent = await journal.silent(connection, silence=self._silence)
                    if sweeps % PRUNE_SWEEPS == 0:
                        await journal.prune(connection)
                for boot in done:  # at once: they count as written, also if the database is away from here on
                    self._write_root(boot)
                for mac, boot_id in silent:
                    await self._examine(mac, boot_id)
            except DatabaseAway:
                await self._database.recovered()
                continue
            sweeps += 1
            await asyncio.sleep(SWEEP_SECONDS)

    async def _examine(self, mac: str, boot_id: UUID) -> None:
        async with self._database.transaction() as connection:
            failure = await journal.examine(connection, mac, boot_id, source=self._source, silence=self._silence)
        if failure is not None:
            self._health.count("boots_fell_silent")
            self._log.warning(
                "boot fell silent",
                client=failure.client,
                mac=mac,
                boot_id=str(boot_id),
                cause=failure.cause,
                remedy=failure.remedy,
            )

    def _write_root(self, boot: journal.BootRow) -> None:
        """The span under which dhcp, tftp and blockstore placed theirs."""
        known = {
            "bootlink.client.mac": boot.mac,
            "bootlink.client.name": boot.client,
            "bootlink.boot.state": boot.state,
            "bootlink.boot.end_reason": boot.summary.get("end_reason"),
            "bootlink.firmware": boot.summary.get("firmware"),
            "bootlink.architecture": boot.summary.get("arch"),
            "bootlink.image.name": boot.summary.get("image"),
            "bootlink.image.version": boot.summary.get("version"),
            "bootlink.policy": boot.summary.get("policy"),
            "client.address": boot.summary.get("address"),
        }
        failure = boot.summary.get("failure")
        if failure:
            known["error.type"] = failure["stage"]
        reached = boot.summary.get("milestones", {})
        arrived = [boot.started + timedelta(seconds=reached[name]) for name in ARRIVED if name in reached]
        silent = datetime.fromisoformat(boot.summary["heard_until"]) if "heard_until" in boot.summary else boot.started
        ended = max(arrived, default=boot.ended or silent)
        self._telemetry.root_span(
            BootId(int=boot.boot_id.int),
            "boot",
            boot.started,
            ended,
            {name: value for name, value in known.items() if value is not None},
            error=f"{failure['stage']}: {failure['cause']}" if failure else None,
        )
        self._health.count("boots_traced")
        self._figures.over(boot.state)
