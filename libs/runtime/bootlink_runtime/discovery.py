"""Who runs, and where: NATS micro services (ADR-32 of NATS).

Each service registers as `bootlink-<name>`. Its `$SRV.STATS` answer carries the health report, so `bootlink
status`, and any tool that knows NATS micro services, sees every service without a list of addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Final

import nats.micro
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, ServiceConfig

from bootlink_events import subject_token
from bootlink_runtime.bus import Bus
from bootlink_runtime.health import Health
from bootlink_runtime.logs import Logger
from bootlink_runtime.version import __version__

SURVEY_SECONDS: Final = 1.0  # the longest wait for answers
SURVEY_QUIET: Final = 0.25  # no answer for so long: all have answered
SURVEY_LIMIT: Final = 1_000  # answers taken from one survey


async def register(bus: Bus, health: Health, log: Logger) -> None:
    """Answer surveys for as long as this task runs. The subscriptions outlive server restarts."""

    async def status(request: Request) -> None:
        await request.respond(json.dumps(health.report()).encode())

    await bus.epoch_after(0)
    name = f"bootlink-{health.service}"
    config = ServiceConfig(
        name=name,
        version=__version__,
        description=f"Bootlink's {health.service} service",
        stats_handler=lambda _: health.report(),
    )
    service = await nats.micro.add_service(bus.client, config)
    subject = f"bootlink.rpc.status.{health.service}.{subject_token(health.node)}"
    await service.add_endpoint(EndpointConfig(name="status", subject=subject, handler=status))
    log.debug("registered", name=name)
    try:
        await asyncio.Event().wait()
    finally:
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await service.stop()


async def survey(client: Client) -> list[dict[str, Any]]:
    """The health reports of all running services, sorted by service and node. Empty where nobody answers."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, max_msgs=SURVEY_LIMIT)
    reports: list[dict[str, Any]] = []
    try:
        await client.publish("$SRV.STATS", reply=inbox)
        wait = SURVEY_SECONDS
        while len(reports) < SURVEY_LIMIT:
            message = await subscription.next_msg(timeout=wait)
            wait = SURVEY_QUIET
            answer = json.loads(message.data)
            if str(answer.get("name", "")).startswith("bootlink-"):
                reports.extend(e["data"] for e in answer.get("endpoints", ()) if isinstance(e.get("data"), dict))
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(NatsError):
            await subscription.unsubscribe()
    return sorted(reports, key=lambda report: (report["service"], report["node"]))
