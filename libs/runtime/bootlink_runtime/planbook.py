"""The plan book: every client's boot plan, in memory.

dhcp, tftp and blockstore ask it on the boot path; an answer is a dictionary look-up. It rests on a replica of the
plans' bucket, so it survives outages of NATS and of the registry, and a restart of its service while both are away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bootlink_events import PLANS_BUCKET, BootPlan, mac_token, normalise_mac
from bootlink_runtime.bus import Bus
from bootlink_runtime.health import Health
from bootlink_runtime.logs import Logger
from bootlink_runtime.replica import Replica

OnPlan = Callable[[str, BootPlan | None], None]


class PlanBook:
    """All boot plans that this service knows."""

    def __init__(self, bus: Bus, *, folder: Path, log: Logger, health: Health) -> None:
        self._plans: dict[str, BootPlan] = {}
        self._subscribers: list[OnPlan] = []
        self._log = log
        self._health = health
        self._replica = Replica(bus, PLANS_BUCKET, folder / "plans.json", self._changed, log)
        held = self._replica.load_snapshot()
        log.debug("plans from snapshot", count=held)
        health.check("plans", self._check, required=False)
        health.page("plans", self.report)

    def _check(self) -> tuple[bool, str]:
        if self._replica.synced.is_set():
            return True, f"{len(self._plans)} plans"
        return False, f"{len(self._plans)} plans from the snapshot; the registry's bucket was not read yet"

    def report(self) -> dict[str, Any]:
        """How many plans there are, and how new: each has a revision, and a change of many gives each a newer one."""
        revisions = [plan.revision for plan in self._plans.values()]
        return {
            "plans": len(revisions),
            "oldest": min(revisions, default=0),
            "newest": max(revisions, default=0),
            "synced": self._replica.synced.is_set(),
        }

    def get(self, mac: str) -> BootPlan | None:
        """The plan of the client with this normalised MAC address; None if the registry does not know it."""
        return self._plans.get(mac)

    def __iter__(self) -> Iterator[BootPlan]:
        return iter(self._plans.values())

    def __len__(self) -> int:
        return len(self._plans)

    def subscribe(self, on_plan: OnPlan) -> None:
        """Call `on_plan(mac, plan)` at each change from now on; the plan is None for a client that was removed."""
        self._subscribers.append(on_plan)

    async def synced(self) -> None:
        """Wait until the bucket was read whole."""
        await self._replica.synced.wait()

    async def run(self) -> None:
        """Follow the bucket for ever."""
        await self._replica.run()

    def _changed(self, key: str, value: bytes | None) -> None:
        try:
            plan = BootPlan.model_validate_json(value) if value is not None else None
            mac = plan.mac if plan is not None else normalise_mac(key)
            if mac_token(mac) != key:
                raise ValueError(f"holds the plan of {mac}")
        except (ValidationError, ValueError) as error:
            # The former plan stays: an unreadable one must not take a client's disk away.
            self._health.count("plans_unreadable")
            self._log.error("plan unreadable", key=key, error=str(error), remedy="is the registry newer than this?")
            return
        if plan is None:
            self._plans.pop(mac, None)
        else:
            self._plans[mac] = plan
        for subscriber in self._subscribers:
            subscriber(mac, plan)
