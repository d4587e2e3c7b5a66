"""The registry as a service: its parts, put together.

The API answers from the first moment; until the database is there, with 503. Ready means: connected, migrated, and
everything at work. NATS may come and go: changes are rows first, and follow when it is back.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bootlink_registry import metrics
from bootlink_registry.api import api
from bootlink_registry.api.context import Context
from bootlink_registry.database import Database
from bootlink_registry.delivery import Delivery
from bootlink_registry.enrolment import first_rule
from bootlink_registry.homes import Homes
from bootlink_registry.intake import Intake
from bootlink_registry.jobs import Runner
from bootlink_registry.jobs.kinds import KINDS
from bootlink_registry.jobs.work import Tools
from bootlink_registry.layers import Layers
from bootlink_registry.nodes import NodeWatch
from bootlink_registry.provisioning import Provisioning
from bootlink_registry.settings import RegistrySettings
from bootlink_registry.spindles import Spindles
from bootlink_registry.store import Sweeper
from bootlink_registry.tokens import Tokens
from bootlink_registry.traces import trace_change
from bootlink_registry.webhooks.forwarder import Forwarder
from bootlink_registry.webhooks.schedule import Schedule
from bootlink_registry.writebacks import Reclaim
from bootlink_runtime import Chassis, Service, ended, listen, serving


async def run(chassis: Chassis, settings: RegistrySettings) -> None:
    """Serve until the chassis stops."""
    log, health, bus = chassis.log, chassis.health, chassis.bus
    database = Database(settings.database(), log)
    layers = Layers(database, log)
    nodes = NodeWatch(
        bus, chassis.data / "nodes.json", lambda: delivery.full_round(), log, reserve=int(settings.boot_reserve)
    )
    spindles = Spindles(
        database,
        layers,
        nodes,
        bus,
        policy=settings.spindle,
        on_change=lambda: delivery.full_round(),
        health=health,
        log=log,
    )
    homes = Homes(bus, nodes, lambda: delivery.full_round(), log)
    delivery = Delivery(
        database,
        bus,
        nodes,
        homes,
        spindles,
        on_stored=lambda event: trace_change(chassis.telemetry, event),
        health=health,
        log=log,
    )
    provisioning = Provisioning(bus, delivery.full_round, log, settings.retention)
    figures = metrics.Figures()
    intake = Intake(
        database,
        figures,
        enrolment_rule=first_rule(settings),
        source=chassis.bus.source,
        silence=settings.silent_seconds,
        telemetry=chassis.telemetry,
        health=health,
        log=log,
    )
    sweeper = Sweeper(settings.image_store, database, log, retired_days=settings.retired_days)
    runner = Runner(Tools(database, layers, nodes, bus, settings, log), KINDS)
    health.check("database", database.check)
    health.check("schema", database.check_schema)
    health.check("room", nodes.nodes.room, required=False)
    health.check("bus", provisioning.check, required=False)
    forwarder = Forwarder(
        database,
        source=chassis.bus.source,
        schedule=Schedule(first=settings.webhook_retry, hours=settings.webhook_hours),
        networks=settings.networks,
        health=health,
        log=log,
    )
    tokens = Tokens(database, settings.shared_admin_token(), log)
    context = Context(database, layers, nodes, spindles, delivery, bus, health, settings, tokens, forwarder)
    metrics.measure(chassis, figures, database, context.requests)
    sock = listen(settings.api_host, settings.api_port, what="the API", variable="BOOTLINK_REGISTRY_API_PORT")
    tasks: list[asyncio.Task[Any]] = []
    try:
        async with serving(api(context, log=log), sock):
            chassis.listening("api", *sock.getsockname()[:2])
            if await _opened(database, tokens, chassis):
                work = {
                    "database watch": database.watch(),
                    "provisioning": provisioning.run(),
                    **nodes.work(),
                    **delivery.work(),
                    "census": homes.run(),
                    "tokens": tokens.watch(),
                    "intake": intake.run(bus),
                    "webhooks": forwarder.run(),
                    "webhook events": forwarder.take_in(bus),
                    "sweep": intake.sweep(),
                    "jobs": runner.run(),
                    "figures": figures.watch(database, bus),
                    "reclaim": Reclaim(database, bus, log).run(),
                    "image store": sweeper.run(lambda: delivery.active),
                    "spindles": spindles.watch(lambda: delivery.active),
                    "layers": layers.watch(lambda: delivery.active or not bus.connected),
                }
                tasks = [chassis.spawn(coroutine, name=name) for name, coroutine in work.items()]
                chassis.ready()
                await chassis.stopping.wait()
    finally:
        # Before what they work with is closed; the chassis itself ends its tasks only after this function.
        await ended(*tasks)
        layers.close()
        await database.close()


async def _opened(database: Database, tokens: Tokens, chassis: Chassis) -> bool:
    """Wait for the database, or for the end. StartupError if it can never be opened."""

    async def open_both() -> None:
        await database.open()
        await tokens.open()

    opening = asyncio.create_task(open_both(), name="database open")
    stopping = asyncio.create_task(chassis.stopping.wait(), name="stopping")
    try:
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            return True
        return False
    finally:
        await ended(opening, stopping)


SERVICE = Service("registry", RegistrySettings, run)
