"""The chassis: what every service is built on, and its life from start to stop.

A service is `Service(name, Settings, run)`. `run(chassis, settings)` binds its sockets, says `chassis.listening`
for each and `chassis.ready()`, waits for `chassis.stopping`, then closes what it opened and returns. Around it the
chassis brings up logs, the health port, the bus and the tracer, and takes them down in reverse order.

A background task (`spawn`) that fails stops the service with status 1, so that whoever supervises it starts it anew:
a service that has lost a part does not go on as if it were whole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bootlink_events import NODES_BUCKET, NodeInfo, Storage, subject_token
from bootlink_runtime import discovery, http, logs, planbook, rpc, vitals
from bootlink_runtime.bus import Bus
from bootlink_runtime.errors import BusUnavailable, StartupError
from bootlink_runtime.health import Address, Health
from bootlink_runtime.planbook import PlanBook
from bootlink_runtime.pulse import Pulse
from bootlink_runtime.settings import ServiceSettings
from bootlink_runtime.tasks import ended
from bootlink_runtime.telemetry import Telemetry

ANNOUNCE_SECONDS = 20.0  # between announcements of the same portals, so that a lost bucket is filled again


@dataclass(frozen=True)
class Service:
    """A service: its name, the settings it reads, and what it does."""

    name: str
    settings: type[ServiceSettings]
    run: Callable[[Chassis, Any], Awaitable[None]]


class Chassis:
    """What a running service is handed."""

    def __init__(
        self,
        service: Service,
        settings: ServiceSettings,
        *,
        telemetry: Telemetry | None = None,
        stopping: asyncio.Event | None = None,
    ) -> None:
        self.name = service.name
        self.node = settings.node
        self.log = logs.logger(service.name)
        self.data = settings.data / service.name
        self.stopping = stopping or asyncio.Event()  # set: stop gracefully
        self.health = Health(service.name, settings.node)
        self.telemetry = telemetry or Telemetry(service.name, settings.node, export=settings.export)
        self.bus = Bus(
            settings.nats_url,
            access=settings.nats_access(service.name),
            service=service.name,
            node=settings.node,
            log=self.log,
            health=self.health,
        )
        self.meter = self.telemetry.meter
        self.health.scrape = self.meter.scraped
        self.pulse = Pulse()
        vitals.measure(self.meter, self.health, self.pulse, self.bus)
        self.failure: BaseException | None = None
        self._is_ready = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._plan_book: PlanBook | None = None
        try:
            self.data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(
                f"{self.data} cannot be made ({error.strerror})", "set BOOTLINK_DATA to a folder it may write to"
            ) from error

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run something beside the service until it stops. If it fails, the service stops with status 1."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        if self.failure is None:
            self.failure = task.exception()
        self.log.error("task failed", task=task.get_name(), error=repr(task.exception()), exc_info=task.exception())
        self.stopping.set()

    def listening(self, what: str, host: str, port: int) -> None:
        """Make an address known that this service has really bound."""
        self.health.addresses.append(Address(what, host, port))
        self.log.info("listening", what=what, address=f"{host}:{port}")

    def ready(self) -> None:
        """The service serves from now on."""
        self.health.serving = True
        self._is_ready.set()
        self.log.info("ready")

    async def until_ready(self) -> None:
        await self._is_ready.wait()

    def plan_book(self) -> PlanBook:
        """The clients' boot plans, followed from now on."""
        if self._plan_book is None:
            self._plan_book = PlanBook(self.bus, folder=self.data, log=self.log, health=self.health)
            self.spawn(self._plan_book.run(), name="plan book")
            planbook.measure(self.meter, self._plan_book, self.health)
        return self._plan_book

    def serve_commands(self, handlers: rpc.Handlers) -> None:
        """Carry out these commands when this node is asked to. A handler that cannot, raises CommandError."""
        self.spawn(rpc.serve(self.bus, self.name, self.node, handlers, self.log), name="commands")

    def announce_portals(
        self,
        portals: list[str],
        storage: Callable[[], Storage | None] = lambda: None,
        free: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Tell the registry where clients reach this node's block store, now and at every reconnection.

        `storage` says where the node keeps what, `free` how many bytes write-backs may still take. They are asked each
        time, in a thread.
        """
        self.spawn(self._announce(tuple(portals), storage, free), name="announce portals")

    async def _announce(
        self, portals: tuple[str, ...], storage: Callable[[], Storage | None], free: Callable[[], int | None]
    ) -> None:
        while True:
            epoch = await self.bus.epoch_after(0)
            told = await asyncio.to_thread(storage)
            left = await asyncio.to_thread(free)
            info = NodeInfo(node=self.node, portals=portals, seen=datetime.now(UTC), storage=told, free=left)
            try:
                await self.bus.put(NODES_BUCKET, subject_token(self.node), info.model_dump_json().encode())
            except BusUnavailable as error:  # also while the registry has not made the bucket yet
                self.log.debug("portals not announced", error=str(error))
                await asyncio.sleep(0.5)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANNOUNCE_SECONDS):
                    await self.bus.epoch_after(epoch)

    async def close(self) -> None:
        """Stop the background tasks, then the bus, then the tracer."""
        await ended(*self._tasks)
        await self.bus.close()
        await asyncio.to_thread(self.telemetry.close)


@contextlib.asynccontextmanager
async def running(
    service: Service,
    settings: ServiceSettings,
    *,
    telemetry: Telemetry | None = None,
    stopping: asyncio.Event | None = None,
) -> AsyncIterator[Chassis]:
    """Run a service in this event loop for the length of the block, which begins once the service is ready.

    Raises what `run` or one of its tasks raised. The end of the block ends the service; so does setting `stopping`.
    """
    chassis = Chassis(service, settings, telemetry=telemetry, stopping=stopping)
    try:
        sock = http.listen(
            settings.health_host,
            settings.health_port,
            what=f"{service.name}'s health port",
            variable=f"BOOTLINK_{service.name.upper()}_HEALTH_PORT",
        )
        async with http.serving(chassis.health.app(), sock):
            host, port = sock.getsockname()[:2]
            chassis.listening("health", host, port)
            chassis.bus.start()
            chassis.meter.attend()
            chassis.spawn(chassis.pulse.run(), name="pulse")
            chassis.spawn(discovery.register(chassis.bus, chassis.health, chassis.log), name="discovery")
            run = asyncio.ensure_future(service.run(chassis, settings))
            # Also when it fails long after it was ready: nobody awaits it before the end of the block.
            run.add_done_callback(lambda _: chassis.stopping.set())
            ready = asyncio.create_task(chassis.until_ready())
            try:
                await asyncio.wait({run, ready}, return_when=asyncio.FIRST_COMPLETED)
                if run.done():  # it failed, which is raised here; or it was stopped before it was ready
                    chassis.stopping.set()
                    run.result()
                yield chassis
            finally:
                ready.cancel()
                chassis.stopping.set()
                await run
        if chassis.failure is not None:
            raise chassis.failure
    finally:
        await chassis.close()
