"""The chassis every Bootlink service runs on: settings, bus, plans, telemetry, health, lifecycle."""

from bootlink_runtime import rpc
from bootlink_runtime.batch import put_all
from bootlink_runtime.bus import Bus, connect_once
from bootlink_runtime.chassis import Chassis, Service, running
from bootlink_runtime.consumer import consume, follow
from bootlink_runtime.discovery import ask, survey
from bootlink_runtime.errors import BusUnavailable, CommandError, StartupError
from bootlink_runtime.health import Health
from bootlink_runtime.http import address_error, listen, serving
from bootlink_runtime.lifecycle import main
from bootlink_runtime.logs import Logger, configure, logger
from bootlink_runtime.planbook import PlanBook
from bootlink_runtime.provision import provision
from bootlink_runtime.replica import Replica
from bootlink_runtime.settings import ClusterSettings, ServiceSettings, load
from bootlink_runtime.tasks import ended
from bootlink_runtime.telemetry import Telemetry
from bootlink_runtime.version import __version__

__all__ = [
    "Bus",
    "BusUnavailable",
    "Chassis",
    "ClusterSettings",
    "CommandError",
    "Health",
    "Logger",
    "PlanBook",
    "Replica",
    "Service",
    "ServiceSettings",
    "StartupError",
    "Telemetry",
    "__version__",
    "address_error",
    "ask",
    "configure",
    "connect_once",
    "consume",
    "ended",
    "follow",
    "listen",
    "load",
    "logger",
    "main",
    "provision",
    "put_all",
    "rpc",
    "running",
    "serving",
    "survey",
]
