"""The plan book: every client's boot plan, in memory.

dhcp, tftp and blockstore ask it on the boot path; an answer is a dictionary look-up, or two where a client shares most
of its plan with others: the book holds the parts as they lie in the bucket (see `bootlink_events.sharing`), so that a
change of what ten thousand clients share is one change. Who asked to be told of changes is told of each client's, some
at a time, since the same thread serves PCs.

A part without its counterpart waits for it, and the former plan stays until it is there. It rests on a replica of the
plans' bucket, so it survives outages of NATS and of the registry, and a restart of its service while both are away.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from bootlink_events import (
    PLANS_BUCKET,
    BootPlan,
    ClientPart,
    SharedPart,
    is_shared,
    join,
    mac_token,
    normalise_mac,
    read_entry,
)
from bootlink_runtime.bus import Bus
from bootlink_runtime.health import Health
from bootlink_runtime.logs import Logger
from bootlink_runtime.metering import Meter, Metric
from bootlink_runtime.replica import Replica

TURN: Final = 100  # clients whose plans are told in a row, some 2 ms

HELD: Final = Metric("bootlink.plans", "gauge", "{plan}", "boot plans that the service holds")
SYNCED: Final = Metric("bootlink.plans.synced", "gauge", "1", "1 once the registry's bucket was read whole")
UNREADABLE: Final = Metric("bootlink.plans.unreadable", "counter", "{plan}", "plans that could not be read")
METRICS: Final = (HELD, SYNCED, UNREADABLE)
COUNTED: Final = frozenset({"plans_unreadable"})

OnPlan = Callable[[str, BootPlan | None], None]


class PlanBook:
    """All boot plans that this service knows."""

    def __init__(self, bus: Bus, *, folder: Path, log: Logger, health: Health) -> None:
        self._held: dict[str, BootPlan | ClientPart] = {}  # by MAC address; what a part shares is in `_shared`
        self._shared: dict[str, SharedPart] = {}  # by its key
        self._sharing: dict[str, set[str]] = {}  # by that key: MAC addresses of those that are held
        self._waiting: dict[str, ClientPart] = {}  # parts whose shared part has not come yet, by MAC address
        self._awaited: dict[str, set[str]] = {}  # by the shared part's key: who may be waiting for it
        self._untold: dict[str, None] = {}  # whose shared part changed
        self._to_tell = asyncio.Event()
        self._revisions: tuple[int, int] | None = None  # the oldest and the newest, until something changes
        self._subscribers: list[OnPlan] = []
        self._log = log
        self._health = health
        self._replica = Replica(bus, PLANS_BUCKET, folder / "plans.json", self._changed, log)
        held = self._replica.load_snapshot()
        log.debug("plans from snapshot", count=held)
        health.check("plans", self._check, required=False)
        health.page("plans", self.report)

    def _check(self) -> tuple[bool, str]:
        if self.whole:
            return True, f"{len(self)} plans"
        return False, f"{len(self)} plans from the snapshot; the registry's bucket was not read yet"

    def report(self) -> dict[str, Any]:
        """How many plans there are, and how new: each has a revision, and a change of many gives each a newer one."""
        if self._revisions is None:
            shared = {key: part.revision for key, part in self._shared.items()}
            revisions = [
                max(held.revision, shared[held.shares]) if isinstance(held, ClientPart) else held.revision
                for held in self._held.values()
            ]
            self._revisions = min(revisions, default=0), max(revisions, default=0)
        oldest, newest = self._revisions
        return {"plans": len(self), "oldest": oldest, "newest": newest, "synced": self.whole}

    def get(self, mac: str) -> BootPlan | None:
        """The plan of the client with this normalised MAC address; None if the registry does not know it."""
        held = self._held.get(mac)
        return join(held, self._shared[held.shares]) if isinstance(held, ClientPart) else held

    def __iter__(self) -> Iterator[BootPlan]:
        return (plan for mac in list(self._held) if (plan := self.get(mac)) is not None)

    def __len__(self) -> int:
        return len(self._held)

    def subscribe(self, on_plan: OnPlan) -> None:
        """Call `on_plan(mac, plan)` at each change from now on; the plan is None for a client that was removed."""
        self._subscribers.append(on_plan)

    @property
    def whole(self) -> bool:
        """The bucket was read whole."""
        return self._replica.synced.is_set()

    async def synced(self) -> None:
        """Wait until the bucket was read whole."""
        await self._replica.synced.wait()

    async def run(self) -> None:
        """Follow the bucket for ever."""
        await asyncio.gather(self._replica.run(), self._tell_all())

    def _changed(self, key: str, value: bytes | None) -> None:
        try:
            if is_shared(key):
                self._shared_changed(key, SharedPart.model_validate_json(value) if value is not None else None)
                return
            plan = read_entry(value) if value is not None else None
            mac = plan.mac if plan is not None else normalise_mac(key)
            if mac_token(mac) != key:
                raise ValueError(f"holds the plan of {mac}")
        except (ValidationError, ValueError) as error:
            # The former plan stays: an unreadable one must not take a client's disk away.
            self._health.count("plans_unreadable")
            self._log.error("plan unreadable", key=key, error=str(error), remedy="is the registry newer than this?")
            return
        self._waiting.pop(mac, None)
        if isinstance(plan, ClientPart) and plan.shares not in self._shared:
            self._waiting[mac] = plan
            self._awaited.setdefault(plan.shares, set()).add(mac)
        else:
            self._hold(mac, plan)
            self._tell(mac)

    def _hold(self, mac: str, plan: BootPlan | ClientPart | None) -> None:
        former = self._held.pop(mac, None)
        if isinstance(former, ClientPart):
            self._sharing[former.shares].discard(mac)
        if plan is not None:
            self._held[mac] = plan
        if isinstance(plan, ClientPart):
            self._sharing.setdefault(plan.shares, set()).add(mac)
        self._revisions = None

    def _shared_changed(self, key: str, part: SharedPart | None) -> None:
        if part is None:
            if not self._sharing.get(key):  # otherwise they keep what they had, as with an unreadable one
                self._shared.pop(key, None)
                self._sharing.pop(key, None)
            return
        self._shared[key] = part
        self._revisions = None
        for mac in self._awaited.pop(key, ()):
            waiting = self._waiting.get(mac)
            if waiting is not None and waiting.shares == key:
                self._hold(mac, self._waiting.pop(mac))
        if self._subscribers:
            self._untold |= dict.fromkeys(self._sharing.get(key, ()))
            self._to_tell.set()

    def _tell(self, mac: str) -> None:
        self._untold.pop(mac, None)
        if self._subscribers:
            plan = self.get(mac)
            for subscriber in self._subscribers:
                subscriber(mac, plan)

    async def _tell_all(self) -> None:
        """Tell of the clients whose shared part changed."""
        while True:
            await self._to_tell.wait()
            self._to_tell.clear()
            while self._untold:
                for mac in list(itertools.islice(self._untold, TURN)):
                    self._tell(mac)
                await asyncio.sleep(0)


def measure(meter: Meter, book: PlanBook, health: Health) -> None:
    """Have metrics told of a book."""
    meter.observe(HELD, lambda: [(len(book), {})])
    meter.observe(SYNCED, lambda: [(int(book.whole), {})])
    meter.observe(UNREADABLE, lambda: [(health.counters["plans_unreadable"], {})])
