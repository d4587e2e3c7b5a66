"""The block stores that clients can be sent to.

Each block store puts itself into a bucket every few seconds. A node counts as gone when nothing was heard of it for
NODE_TTL_SECONDS *while this registry was connected*: the bucket's own expiry says nothing to a watch, and after an
outage of NATS the bucket may come back empty although every node still runs. Taking all portals out of all plans
over a restart of NATS would keep PCs from booting for nothing. A snapshot on disk bridges a restart of the registry.

A node also tells how much its write-backs may still take. Below the reserve it is *full*: no boot is begun there until
it is clearly above, because a system whose disk fails in the middle of its work is worse than a PC that says why it
does not start. What runs there, runs on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from bootlink_events import NODES_BUCKET, NodeInfo, Storage
from bootlink_registry.compiler import MAKE_ROOM
from bootlink_runtime import Bus, Logger, Replica
from bootlink_runtime.stores import NODE_TTL_SECONDS

TICK_SECONDS: Final = 2.0
FULL_REARM: Final = 10  # percent above the reserve at which a node is no longer full: PCs write and are restarted
NODES_LIMIT: Final = 256  # block stores held; the bucket is written by whoever may speak to NATS


class Nodes:
    """Which nodes were heard of, and when. A pure record: time is passed in, in seconds of any steady clock.

    `reserve`: bytes that a node must have left for boots to begin there; 0: it may be filled up.
    """

    def __init__(self, reserve: int = 0) -> None:
        self.reserve = reserve
        self._heard: dict[str, tuple[NodeInfo, float]] = {}
        self._full: set[str] = set()  # names

    def heard(self, info: NodeInfo, now: float) -> bool:
        """A node announced itself. True if that changes the portals, where it keeps what, or whether it is full."""
        before = self.portals, self._storage(info.node), info.node in self._full
        if info.node in self._heard or len(self._heard) < NODES_LIMIT:
            self._heard[info.node] = (info, now)
            self._weigh(info)
        return (self.portals, self._storage(info.node), info.node in self._full) != before

    def _weigh(self, info: NodeInfo) -> None:
        if info.free is not None and info.free < self.reserve:
            self._full.add(info.node)
        elif info.free is None or info.free * 100 >= self.reserve * (100 + FULL_REARM):
            self._full.discard(info.node)

    def _storage(self, node: str) -> Storage | None:
        known = self._heard.get(node)
        return known[0].storage if known is not None else None

    def excuse(self, now: float) -> None:
        """Nobody could be heard until now: give all nodes their time anew."""
        self._heard = {name: (info, now) for name, (info, _) in self._heard.items()}

    def expire(self, now: float) -> list[str]:
        """Drop the nodes that were not heard of for too long; returns their names."""
        gone = [name for name, (_, at) in self._heard.items() if now - at > NODE_TTL_SECONDS]
        for name in gone:
            del self._heard[name]
            self._full.discard(name)
        return gone

    @property
    def all(self) -> list[NodeInfo]:
        return [self._heard[name][0] for name in sorted(self._heard)]

    @property
    def portals(self) -> tuple[str, ...]:
        """All nodes' portals, by node name, each once."""
        return tuple(dict.fromkeys(portal for info in self.all for portal in info.portals))

    @property
    def full(self) -> dict[str, str]:
        """Portals of nodes that are full, and what is to be said of them."""
        return {
            portal: f"{info.node} has {(info.free or 0) >> 20} MiB left"
            for info in self.all
            if info.node in self._full
            for portal in info.portals
        }

    def room(self) -> tuple[bool, str]:
        """For the health check: whether boots may begin on every node, and where not, why and what to do."""
        low = [f"block store {said}" for said in dict.fromkeys(self.full.values())]
        if low:
            return False, f"{'; '.join(low)}, so no PC is started there: {MAKE_ROOM}"
        return True, "enough"


class NodeWatch:
    """Follows the bucket of nodes; calls `on_change` when the portals change, or where a node keeps what."""

    def __init__(
        self, bus: Bus, snapshot: Path, on_change: Callable[[], None], log: Logger, *, reserve: int = 0
    ) -> None:
        self.nodes = Nodes(reserve)
        self.changed = asyncio.Event()  # set at the next change; then there is another one
        self._bus = bus
        self._on_change = on_change
        self._log = log
        self._replica = Replica(bus, NODES_BUCKET, snapshot, self._put, log)

    @property
    def portals(self) -> tuple[str, ...]:
        return self.nodes.portals

    async def synced(self) -> None:
        """Wait until the bucket was read whole once."""
        await self._replica.synced.wait()

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What has to run for ever, by name; to be asked for once, when everything is put together."""
        self._replica.load_snapshot()  # not at construction: `on_change` may reach for what is made after this
        return {"nodes": self._replica.run(), "node expiry": self._expire()}

    def _put(self, key: str, value: bytes | None) -> None:
        if value is None:
            return  # see above: only silence ends a node
        try:
            info = NodeInfo.model_validate_json(value)
        except ValidationError as error:
            self._log.warning("node unreadable", key=key, error=str(error))
            return
        if self.nodes.heard(info, time.monotonic()):
            self._log.info("block store announced", node=info.node, portals=list(info.portals), free=info.free)
            self._change()

    def _change(self) -> None:
        self._on_change()
        self.changed.set()
        self.changed = asyncio.Event()

    async def _expire(self) -> None:
        epoch = 0
        while True:
            now = time.monotonic()
            if not self._bus.connected or self._bus.epoch != epoch:
                epoch = self._bus.epoch
                self.nodes.excuse(now)
            for name in self.nodes.expire(now):
                self._log.warning("block store gone", node=name, remedy="`bootlink status` shows whether it runs")
                self._change()
            await asyncio.sleep(TICK_SECONDS)
