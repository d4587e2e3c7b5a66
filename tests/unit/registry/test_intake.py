"""What the registry takes in of the event stream, before any database is asked."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import cast

from bootlink_events import BootId, BootScriptServed, CloudEvent
from bootlink_registry.database import Database
from bootlink_registry.enrolment import Rule
from bootlink_registry.intake import AHEAD_SECONDS, Intake
from bootlink_registry.metrics import Figures
from bootlink_runtime import Health, Telemetry, logger

NOW = datetime.now(UTC)


def served(boot_id: BootId) -> CloudEvent:
    """What the tftp service tells when anybody has fetched boot/<boot id>/<MAC>.ipxe."""
    event = BootScriptServed(
        mac="52:54:00:12:34:56",
        client="pc-001",
        boot_id=boot_id,
        started=NOW,
        ended=NOW,
        kind="sanboot",
        peer="10.77.0.66",
    )
    return CloudEvent.of(event, source="//test/tftp")


def test_a_boot_out_of_the_far_future_does_not_reach_the_journal() -> None:
    health = Health("registry", "test")
    intake = Intake(
        cast("Database", None),  # whoever asks it fails
        Figures(),
        enrolment_rule=cast("Rule", None),
        source="//test/registry",
        silence=60.0,
        telemetry=Telemetry("registry", "test"),
        health=health,
        log=logger("registry"),
    )
    ahead = int((time.time() + AHEAD_SECONDS + 60) * 1000)
    for moment in (ahead, (1 << 48) - 1):
        asyncio.run(intake.handle(served(BootId.mint(now_ms=moment))))
    assert health.counters["stages_ahead_of_time"] == 2
