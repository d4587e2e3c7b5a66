"""A chronicle of tftp whose events are collected, with neighbours and plans of the test's choice."""

from __future__ import annotations

from collections.abc import Mapping

from bootlink_events import BootPlan, EventData
from bootlink_runtime import Health, Telemetry, logger
from bootlink_tftp.chronicle import Chronicle


class ChronicleRig:
    """Nobody is known and nobody is near, unless that is said."""

    def __init__(
        self, *, neighbours: Mapping[str, str] | None = None, plans: Mapping[str, BootPlan] | None = None
    ) -> None:
        self.events: list[EventData] = []
        self.neighbours: dict[str, str] = dict(neighbours or {})
        self.plans: dict[str, BootPlan] = dict(plans or {})
        self.health = Health("tftp", "test")
        self.chronicle = Chronicle(
            emit=self.events.append,
            telemetry=Telemetry("tftp", "test"),
            health=self.health,
            log=logger("tftp"),
            plans=self.plans,
            mac_of=self.neighbours.get,
        )

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]
