"""The metrics that every service has: its process, its event loop, its health, and its connection to NATS.

Those of the process are named by OpenTelemetry's semantic conventions. CPU per operation is the rate of
`process.cpu.time` over the rate of what the service does.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bootlink_runtime.metering import Labels, Meter, Metric, tally

if TYPE_CHECKING:
    from bootlink_runtime.bus import Bus
    from bootlink_runtime.health import Health
    from bootlink_runtime.pulse import Pulse

CHECKS_LIMIT: Final = 32  # of one service; their names come from its code
_PAGE: Final = resource.getpagesize()

CPU: Final = Metric("process.cpu.time", "counter", "s", "CPU time that the process has used", ("cpu.mode",), 2)
MEMORY: Final = Metric("process.memory.usage", "gauge", "By", "resident memory")
DESCRIPTORS: Final = Metric("process.unix.file_descriptor.count", "gauge", "{file_descriptor}", "open descriptors")
UPTIME: Final = Metric("process.uptime", "gauge", "s", "seconds since the service was started")
READY: Final = Metric("bootlink.service.ready", "gauge", "1", "1 while the service is ready, as /readyz tells")
CHECK: Final = Metric(
    "bootlink.service.check", "gauge", "1", "1 while a check of /readyz holds", ("check", "required"), CHECKS_LIMIT
)
LOOP: Final = Metric(
    "bootlink.event_loop.delay", "histogram", "s", "how late a beat of the event loop was that is due every 0.5 s"
)
CONNECTED: Final = Metric("bootlink.nats.connected", "gauge", "1", "1 while the service is connected to NATS")
CONNECTIONS: Final = Metric("bootlink.nats.connections", "counter", "{connection}", "connections made to NATS")
WAITING: Final = Metric("bootlink.events.waiting", "gauge", "{event}", "events that JetStream has not stored yet")
LAG: Final = Metric("bootlink.events.lag", "gauge", "s", "how long the oldest of them has waited; 0 without one")
DELAY: Final = Metric(
    "bootlink.events.delay", "histogram", "s", "from an event's emission until JetStream had stored it"
)
PUBLISHED: Final = Metric("bootlink.events.published", "counter", "{event}", "events that JetStream has stored")
LOST: Final = tally(
    "bootlink.events.lost",
    "{event}",
    "events that nobody will see",
    "reason",
    {"events_dropped": "backlog full", "events_unsendable": "unsendable", "events_withheld": "withheld"},
)
METRICS: Final = (
    *(CPU, MEMORY, DESCRIPTORS, UPTIME, READY, CHECK, LOOP),
    *(CONNECTED, CONNECTIONS, WAITING, LAG, DELAY, PUBLISHED, LOST.metric),
)
TALLIES: Final = (LOST,)
COUNTED: Final = frozenset({"events_published"})  # what else of `Health.count` is told here


def measure(meter: Meter, health: Health, pulse: Pulse, bus: Bus) -> None:
    """Have all of these told."""
    began = time.monotonic()

    def checks() -> Iterable[tuple[int, Labels]]:
        return [
            (int(holds), {"check": name, "required": str(required).lower()})
            for name, (holds, required) in health.checked().items()
        ]

    meter.observe(CPU, _cpu)
    meter.observe(MEMORY, lambda: [(int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE, {})])
    meter.observe(DESCRIPTORS, lambda: [(len(os.listdir("/proc/self/fd")), {})])  # noqa: PTH208 - names are enough
    meter.observe(UPTIME, lambda: [(time.monotonic() - began, {})])
    meter.observe(READY, lambda: [(int(health.ready), {})])
    meter.observe(CHECK, checks)
    meter.distribute(LOOP, lambda: [(pulse.delays, {})])
    meter.observe(CONNECTED, lambda: [(int(bus.connected), {})])
    meter.observe(CONNECTIONS, lambda: [(bus.epoch, {})])
    meter.observe(WAITING, lambda: [(bus.waiting, {})])
    meter.observe(LAG, lambda: [(bus.lag, {})])
    meter.distribute(DELAY, lambda: [(bus.delays, {})])
    meter.observe(PUBLISHED, lambda: [(health.counters["events_published"], {})])
    meter.tally(TALLIES, health.counters)


def _cpu() -> Iterable[tuple[float, Labels]]:
    used = os.times()
    return [(used.user, {"cpu.mode": "user"}), (used.system, {"cpu.mode": "system"})]
