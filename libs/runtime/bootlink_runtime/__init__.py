"""The chassis every Bootlink service runs on: settings, bus, plans, telemetry, health, lifecycle.

Names are loaded when they are first asked for: a command that only asks the API would otherwise wait for NATS,
telemetry and web servers to be loaded, which takes longer than its answer.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bootlink_runtime import rpc
    from bootlink_runtime.access import NatsAccess
    from bootlink_runtime.allowance import Allowance
    from bootlink_runtime.batch import Compared, compare_and_set_all, put_all
    from bootlink_runtime.bus import Bus, connect_once
    from bootlink_runtime.chassis import Chassis, Service, running
    from bootlink_runtime.consumer import consume, follow, follow_numbered
    from bootlink_runtime.discovery import ask, listening, survey
    from bootlink_runtime.distribution import LONG_SECONDS, SECONDS, Distribution
    from bootlink_runtime.errors import BusUnavailable, CommandError, CompareFailed, StartupError
    from bootlink_runtime.health import Health
    from bootlink_runtime.http import address_error, listen, serving
    from bootlink_runtime.lifecycle import main
    from bootlink_runtime.logs import Logger, configure, logger
    from bootlink_runtime.metering import Meter, Metric, Tally, tally
    from bootlink_runtime.planbook import PlanBook
    from bootlink_runtime.replica import Replica
    from bootlink_runtime.settings import ClusterSettings, ServiceSettings, load
    from bootlink_runtime.stores import Retention, provision
    from bootlink_runtime.tasks import ended
    from bootlink_runtime.telemetry import Telemetry
    from bootlink_runtime.version import __version__

__all__ = [
    "LONG_SECONDS",
    "SECONDS",
    "Allowance",
    "Bus",
    "BusUnavailable",
    "Chassis",
    "ClusterSettings",
    "CommandError",
    "CompareFailed",
    "Compared",
    "Distribution",
    "Health",
    "Logger",
    "Meter",
    "Metric",
    "NatsAccess",
    "PlanBook",
    "Replica",
    "Retention",
    "Service",
    "ServiceSettings",
    "StartupError",
    "Tally",
    "Telemetry",
    "__version__",
    "address_error",
    "ask",
    "compare_and_set_all",
    "configure",
    "connect_once",
    "consume",
    "ended",
    "follow",
    "follow_numbered",
    "listen",
    "listening",
    "load",
    "logger",
    "main",
    "provision",
    "put_all",
    "rpc",
    "running",
    "serving",
    "survey",
    "tally",
]

_MODULES = {
    "access": ("NatsAccess",),
    "allowance": ("Allowance",),
    "batch": ("Compared", "compare_and_set_all", "put_all"),
    "bus": ("Bus", "connect_once"),
    "chassis": ("Chassis", "Service", "running"),
    "consumer": ("consume", "follow", "follow_numbered"),
    "discovery": ("ask", "listening", "survey"),
    "distribution": ("LONG_SECONDS", "SECONDS", "Distribution"),
    "errors": ("BusUnavailable", "CommandError", "CompareFailed", "StartupError"),
    "health": ("Health",),
    "http": ("address_error", "listen", "serving"),
    "lifecycle": ("main",),
    "logs": ("Logger", "configure", "logger"),
    "metering": ("Meter", "Metric", "Tally", "tally"),
    "planbook": ("PlanBook",),
    "replica": ("Replica",),
    "settings": ("ClusterSettings", "ServiceSettings", "load"),
    "stores": ("Retention", "provision"),
    "tasks": ("ended",),
    "telemetry": ("Telemetry",),
    "version": ("__version__",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
