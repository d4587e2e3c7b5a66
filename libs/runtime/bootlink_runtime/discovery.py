"""Who runs, and where: NATS micro services (ADR-32 of NATS).

Each service registers as `bootlink-<name>`. Its `$SRV.STATS` answer carries the health report, so `bootlink
status`, and any tool that knows NATS micro services, sees every service without a list of addresses. Its endpoint gives
the pages of `Health`, `bootlink.rpc.<page>.<service>.<node>`; the report is the page `status`.
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
from bootlink_runtime.errors import BusUnavailable
from bootlink_runtime.health import Health
from bootlink_runtime.logs import Logger
from bootlink_runtime.standing import on_each_client
from bootlink_runtime.version import __version__

STATUS: Final = "Status"  # header of what the server itself answers
NO_RESPONDERS: Final = "503"  # nobody subscribes to what was asked

_ASKED: Final = "$SRV.STATS"  # of all micro services
PAGE_TOKEN: Final = 2  # of the subject
SURVEY_SECONDS: Final = 1.0  # the longest wait for answers
SURVEY_QUIET: Final = 0.25  # no answer for so long: all have answered
SURVEY_LIMIT: Final = 1_000  # answers taken from one survey


async def register(bus: Bus, health: Health, log: Logger) -> None:
    """Answer surveys for as long as this task runs."""

    async def told(request: Request) -> None:
        page = health.pages.get(request.subject.split(".")[PAGE_TOKEN])
        if page is None:
            await request.respond_error("404", f"the pages are {', '.join(sorted(health.pages))}")
        else:
            await request.respond(json.dumps(page()).encode())

    name = f"bootlink-{health.service}"
    config = ServiceConfig(
        name=name,
        version=__version__,
        description=f"Bootlink's {health.service} service",
        stats_handler=lambda _: health.report(),
    )
    subject = _subject("*", health.service, health.node)
    service: Service | None = None

    async def registered(client: Client) -> None:
        nonlocal service
        service = await nats.micro.add_service(client, config)
        await service.add_endpoint(EndpointConfig(name="status", subject=subject, handler=told))

    try:
        await on_each_client(bus, registered, log, what=name)
    finally:
        if service is not None:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await service.stop()


async def survey(client: Client) -> list[dict[str, Any]]:
    """The health reports of all running services, sorted by service and node. Empty where nobody answers.

    Whatever else speaks to this NATS server may answer too; what is no report of ours is passed over. BusUnavailable
    where the key may not ask, as an integration's: silence would say that nobody runs.
    """
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, max_msgs=SURVEY_LIMIT)
    reports: list[dict[str, Any]] = []
    try:
        await client.publish(_ASKED, reply=inbox)
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
    refused = str(client.last_error or "").lower()
    if not reports and "permissions violation" in refused and _ASKED.lower() in refused:
        raise BusUnavailable(
            "the key that is shown to NATS may not ask the services how they are",
            "show the command's own, nats/keys/command.nk of the data folder of `bootlink up`, by "
            "BOOTLINK_NATS_CREDENTIALS_FILE",
        )
    return sorted(reports, key=lambda report: (report["service"], report["node"]))


async def ask(client: Client, page: str, service: str) -> list[dict[str, Any]]:
    """This page of every running service of this name, sorted by node. Who does not answer is passed over."""

    async def one(node: str) -> dict[str, Any] | None:
        try:
            message = await client.request(_subject(page, service, node), timeout=SURVEY_SECONDS)
            told = json.loads(message.data)
        except (NatsError, TimeoutError, ValueError):
            return None
        return told if isinstance(told, dict) else None

    nodes = [report["node"] for report in await survey(client) if report["service"] == service]
    return [told for told in await asyncio.gather(*map(one, nodes)) if told is not None]


async def listening(bus: Bus, service: str, what: str) -> frozenset[str]:
    """Where the running services of this name listen for this, each as host:port. Empty while NATS is away."""
    if not bus.connected:
        return frozenset()
    try:
        reports = await survey(bus.client)
    except (BusUnavailable, NatsError, OSError, TimeoutError):
        return frozenset()
    told = [report.get("addresses") for report in reports if report["service"] == service]
    found = [addresses.get(what) for addresses in told if isinstance(addresses, dict)]
    return frozenset(address for address in found if isinstance(address, str))


def _subject(page: str, service: str, node: str) -> str:
    return f"bootlink.rpc.{page}.{service}.{subject_token(node)}"


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
