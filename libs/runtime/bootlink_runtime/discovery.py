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
from nats.micro.service import EndpointConfig, Service, ServiceConfig

from bootlink_events import subject_token
from bootlink_runtime.bus import Bus
from bootlink_runtime.health import Health
from bootlink_runtime.logs import Logger
from bootlink_runtime.version import __version__

STATUS: Final = "Status"  # header of what the server itself answers
NO_RESPONDERS: Final = "503"  # nobody subscribes to what was asked

SURVEY_SECONDS: Final = 1.0  # the longest wait for answers
SURVEY_QUIET: Final = 0.25  # no answer for so long: all have answered
SURVEY_LIMIT: Final = 1_000  # answers taken from one survey
RETRY_SECONDS: Final = 0.5  # after the connection broke while registering


async def register(bus: Bus, health: Health, log: Logger) -> None:
    """Answer surveys for as long as this task runs.

    The subscriptions outlive server restarts, but not a client that nats-py gave up.
    """

    async def status(request: Request) -> None:
        await request.respond(json.dumps(health.report()).encode())

    name = f"bootlink-{health.service}"
    config = ServiceConfig(
        name=name,
        version=__version__,
        description=f"Bootlink's {health.service} service",
        stats_handler=lambda _: health.report(),
    )
    subject = f"bootlink.rpc.status.{health.service}.{subject_token(health.node)}"
    client: Client | None = None
    service: Service | None = None
    epoch = 0
    try:
        while True:
            epoch = await bus.epoch_after(epoch)
            if bus.client is client:
                continue
            try:
                service = await nats.micro.add_service(bus.client, config)
                await service.add_endpoint(EndpointConfig(name="status", subject=subject, handler=status))
            except (NatsError, OSError, TimeoutError) as error:
                log.debug("not registered", error=str(error))
                epoch = 0
                await asyncio.sleep(RETRY_SECONDS)
                continue
            client = bus.client
            log.debug("registered", name=name)
    finally:
        if service is not None:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await service.stop()


async def survey(client: Client) -> list[dict[str, Any]]:
    """The health reports of all running services, sorted by service and node. Empty where nobody answers.

    Whatever else speaks to this NATS server may answer too; what is no report of ours is passed over.
    """
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, max_msgs=SURVEY_LIMIT)
    reports: list[dict[str, Any]] = []
    try:
        await client.publish("$SRV.STATS", reply=inbox)
        wait = SURVEY_SECONDS
        while len(reports) < SURVEY_LIMIT:
            message = await subscription.next_msg(timeout=wait)
            if message.headers and message.headers.get(STATUS) == NO_RESPONDERS:
                break
            wait = SURVEY_QUIET
            reports += _reports(message.data)
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(NatsError):
            await subscription.unsubscribe()
    return sorted(reports, key=lambda report: (report["service"], report["node"]))


def _reports(answer: bytes) -> list[dict[str, Any]]:
    """The health reports in one answer to a survey; none in an answer of somebody else."""
    try:
        stats = json.loads(answer)
        if not stats["name"].startswith("bootlink-"):
            return []
        found = [endpoint.get("data") for endpoint in stats["endpoints"]]
        return [data for data in found if isinstance(data["service"], str) and isinstance(data["node"], str)]
    except (ValueError, LookupError, TypeError, AttributeError):
        return []
