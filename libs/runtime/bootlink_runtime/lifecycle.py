"""A service as a process: `main(SERVICE)` is all that `python -m bootlink_<service>` does.

Settings come from the environment, SIGTERM and SIGINT stop it gracefully, and it exits with 0 when asked to stop and
with 1 when it could not start or lost a part. A reason not to start is one line that says what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import sys

import uvloop

from bootlink_runtime import logs
from bootlink_runtime.chassis import Service, running
from bootlink_runtime.errors import StartupError
from bootlink_runtime.settings import ServiceSettings, load


def main(service: Service) -> None:
    """Run `service` until it is told to stop. Does not return."""
    try:
        settings = load(service.settings)
    except StartupError as error:
        logs.configure("info", "console")
        _explain(service, error)
        sys.exit(1)
    logs.configure(settings.log_level, settings.log_format)
    _raise_file_limit()
    try:
        sys.exit(uvloop.run(_serve(service, settings)))
    except KeyboardInterrupt:
        sys.exit(0)


def _raise_file_limit() -> None:
    """As many descriptors as the process may have. A client of the block store takes a socket and an overlay, one of
    tftp a socket and a file: the usual 1,024 would be 500 clients."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(service: Service, settings: ServiceSettings) -> int:
    log = logs.logger(service.name)
    stopping = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stopping.set)
    try:
        async with running(service, settings, stopping=stopping):
            await stopping.wait()
            log.info("stopping")
    except StartupError as error:
        _explain(service, error)
        return 1
    except Exception as error:
        log.error("failed", error=repr(error), exc_info=error)
        return 1
    log.info("stopped")
    return 0


def _explain(service: Service, error: StartupError) -> None:
    logs.logger(service.name).error("cannot start", problem=error.problem, remedy=error.remedy)
