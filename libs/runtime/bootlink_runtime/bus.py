"""The service's connection to NATS: events out, buckets and consumers on top.

How it works. The bus starts without NATS and never gives up connecting. Each time a connection is made (the first
time or again) its *epoch* grows; whatever nats-py lets fall silent at a server restart (key-value watches, ordered
consumers: measured) waits for a new epoch and is made anew. nats-py reconnects by itself, except after an error that
the server sent (a password that changed, a limit): then it closes the client for ever, and the bus makes a new one.

Events leave through a bounded backlog in memory. `emit` appends and returns; one task publishes from its head, in
order, and repeats with the same message id until JetStream says "stored". A publish that timed out may have been
stored all the same; the message id makes the repeat harmless. So an outage of NATS shorter than the backlog loses
nothing, and the boot path never waits for it. When the backlog is full the oldest event goes, and is counted; so does
an event that can never be sent, which would hold up all those behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from logging import DEBUG, INFO
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import AuthorizationError, NoServersError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import Header
from nats.js.errors import BadRequestError, NotFoundError
from nats.js.kv import KV_DEL, KV_OP, KeyValue

from bootlink_events import CloudEvent, EventData
from bootlink_events.cloudevent import CONTENT_TYPE
from bootlink_runtime.access import ANYBODY, NatsAccess, refusal, without_password
from bootlink_runtime.distribution import LONG_SECONDS, Distribution
from bootlink_runtime.errors import BusUnavailable, CompareFailed
from bootlink_runtime.health import Health
from bootlink_runtime.logs import Logger
from bootlink_runtime.tasks import ended

EVENT_BACKLOG: Final = 10_000  # events held while NATS is away: some minutes of a busy boot storm, about 10 MB
EVENT_LIMIT: Final = 768 * 1024  # bytes of one event; nats-server takes 1 MiB, with its headers
CONNECT_TIMEOUT: Final = 2  # seconds
RECONNECT_WAIT: Final = 0.5  # seconds between tries; a server on the same machine is back within two
PING_INTERVAL: Final = 5  # seconds; nats-py's default of 120 leaves a dead peer unseen for minutes
PINGS_OUTSTANDING: Final = 2
CLOSED_LOOK: Final = 1.0  # seconds between looks whether nats-py has given up without a word
PUBLISH_TIMEOUT: Final = 2.0  # seconds until a publish counts as unknown and is repeated
STORED_SECONDS: Final = 10.0  # a server that stores answers within milliseconds, a slow disk within a second or two
RETRY_LONGEST: Final = 5.0  # seconds between repeats of one publish
WRONG_LAST_SEQUENCE: Final = 10071  # JSStreamWrongLastSequenceErrF of nats-server's errors.json
DRAIN_SECONDS: Final = 2.0  # given to the backlog when the service stops


class Bus:
    """One service's connection to NATS."""

    def __init__(
        self, url: str, *, service: str, node: str, log: Logger, health: Health, access: NatsAccess = ANYBODY
    ) -> None:
        self.url = without_password(url)
        self._url = url
        self._access = access
        self.source = f"/{service}/{node}"
        self.epoch = 0
        self.batching: set[str] = set()  # buckets that are known to take batches, on this connection
        self._name = f"bootlink-{service}@{node}"
        self._log = log
        self._health = health
        self._client: Client | None = None
        self._js: JetStreamContext | None = None
        self._epoch_changed = asyncio.Event()
        self._backlog: deque[CloudEvent] = deque()
        self._work = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._tried = asyncio.Event()
        self.delays = Distribution(LONG_SECONDS)  # from emission until an event was stored
        self._told = ""  # why there is no connection, as it was logged last
        health.check("nats", self._check, required=False)

    def _check(self) -> tuple[bool, str]:
        if not self.connected:
            return False, f"no connection to {self.url}; {len(self._backlog)} events are waiting"
        if (lag := self.lag) > STORED_SECONDS:
            waiting = f"{len(self._backlog)} events are waiting, the oldest for {lag:.0f} s"
            return False, f"{self.url} stores nothing; {waiting}. Is its disk full? Free space, then restart it"
        return True, f"connected to {self.url}"

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    @property
    def waiting(self) -> int:
        """Events that are not stored yet."""
        return len(self._backlog)

    @property
    def lag(self) -> float:
        """Seconds that the oldest of them has waited; 0 without one."""
        return max(0.0, _age(self._backlog[0])) if self._backlog else 0.0

    def start(self) -> None:
        """Begin connecting and publishing, in the background."""
        self._tasks.append(asyncio.create_task(self._connect(), name="bus connect"))
        self._tasks.append(asyncio.create_task(self._publish_backlog(), name="bus publish"))

    async def close(self) -> None:
        """Publish what is waiting, as far as DRAIN_SECONDS allow, and disconnect."""
        self._closing = True
        if self.connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._drained.wait()
        if self._backlog:
            self._log.warning("events lost at stop", count=len(self._backlog), remedy="NATS was away; is it running?")
        await ended(*self._tasks)
        if self._client is not None and not self._client.is_closed:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await self._client.close()

    # -- connection ---------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Be connected for ever, with one client after the other where nats-py gives one up."""
        while True:
            closed = asyncio.Event()
            try:
                client = await self._new_client(closed)
            except (NatsError, OSError, TimeoutError) as error:
                self._tell(error)
                await asyncio.sleep(RETRY_LONGEST)
                continue
            self._client = client
            self._js = client.jetstream(timeout=PUBLISH_TIMEOUT)
            self._log.log(INFO if self._told else DEBUG, "nats connected", url=self.url)
            self._told = ""
            self._next_epoch()
            await _until_closed(client, closed)
            self._tell(client.last_error or ConnectionError("the server closed the connection"))
            await asyncio.sleep(RECONNECT_WAIT)

    def _tell(self, error: Exception) -> None:
        """Say why there is no connection, once for each reason."""
        self._tried.set()
        if str(error) != self._told:
            self._told = str(error)
            self._log.warning("nats away", url=self.url, problem=self._told, remedy=refusal(error))

    async def _new_client(self, closed: asyncio.Event) -> Client:
        """A connected client; waits for as long as that takes. `closed` is set when nats-py has given it up."""

        async def on_error(error: Exception) -> None:
            self._log.debug("nats error", error=str(error))
            if "permissions violation" in str(error).lower():
                self._log.error("nats refused", error=str(error), remedy="correct this service's NATS permissions")
            elif not client.is_connected and (self.epoch == 0 or isinstance(error, AuthorizationError)):
                self._tell(error)

        async def on_closed() -> None:
            closed.set()

        async def on_disconnect() -> None:
            if not self._closing:
                self._log.warning("nats disconnected", url=self.url)

        async def on_reconnect() -> None:
            self._log.info("nats reconnected", url=self.url)
            self._told = ""
            self._next_epoch()

        client = self._access.client()
        await client.connect(
            servers=[self._url],
            name=self._name,
            **self._access.options(),
            error_cb=on_error,
            disconnected_cb=on_disconnect,
            reconnected_cb=on_reconnect,
            closed_cb=on_closed,
            connect_timeout=CONNECT_TIMEOUT,
            reconnect_time_wait=RECONNECT_WAIT,  # type: ignore[arg-type]  # nats-py sleeps it; a float is fine
            max_reconnect_attempts=-1,
            ping_interval=PING_INTERVAL,
            max_outstanding_pings=PINGS_OUTSTANDING,
        )
        return client

    def _next_epoch(self) -> None:
        self.epoch += 1
        self.batching.clear()  # another server may answer now
        self._tried.set()
        self._epoch_changed.set()
        self._epoch_changed = asyncio.Event()

    async def tried(self) -> None:
        """Wait until a first try to connect has ended, one way or the other."""
        await self._tried.wait()

    async def epoch_after(self, epoch: int) -> int:
        """Wait until a connection newer than `epoch` is made; returns its number."""
        while self.epoch <= epoch:
            await self._epoch_changed.wait()
        return self.epoch

    @property
    def client(self) -> Client:
        """The NATS client. BusUnavailable before the first connection."""
        if self._client is None:
            raise BusUnavailable(f"not connected to {self.url}")
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream context. BusUnavailable before the first connection."""
        if self._js is None:
            raise BusUnavailable(f"not connected to {self.url}")
        return self._js

    async def key_value(self, bucket: str) -> KeyValue | None:
        """A bucket, or None while nobody has made it (the registry does, at its start)."""
        try:
            return await self.jetstream.key_value(bucket)
        except NotFoundError:
            return None

    async def put(self, bucket: str, key: str, value: bytes | None) -> None:
        """Set a key of a bucket, or take it out with None, and wait until that is stored.

        BusUnavailable when it was not confirmed; it may have been stored all the same, so repeat it.
        """
        headers: dict[str, Any] | None = None if value is not None else {KV_OP: KV_DEL}
        try:
            await self.jetstream.publish(f"$KV.{bucket}.{key}", value or b"", timeout=PUBLISH_TIMEOUT, headers=headers)
        except (NatsError, OSError, TimeoutError) as error:
            raise BusUnavailable(f"{bucket}/{key}: {error or type(error).__name__}") from error

    async def compare_and_set(self, bucket: str, key: str, value: bytes, revision: int) -> int:
        """Set a key if it is at this revision (0: it never was set). Returns its new one, once that is stored.

        CompareFailed if it is at another. BusUnavailable when nothing was confirmed; it may have been stored all the
        same, and then is at a newer revision.
        """
        headers = {Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(revision)}
        try:
            ack = await self.jetstream.publish(
                f"$KV.{bucket}.{key}", value, timeout=PUBLISH_TIMEOUT, headers=dict(headers)
            )
        except BadRequestError as error:
            if error.err_code != WRONG_LAST_SEQUENCE:
                raise BusUnavailable(f"{bucket}/{key}: {error.description}") from error
            raise CompareFailed(f"{bucket}/{key} is not at revision {revision}") from error
        except (NatsError, OSError, TimeoutError) as error:
            raise BusUnavailable(f"{bucket}/{key}: {error or type(error).__name__}") from error
        return ack.seq

    # -- events -------------------------------------------------------------------------------------------------

    def emit(self, data: EventData) -> None:
        """Publish an event when it can be. Never blocks and never raises."""
        try:
            event = CloudEvent.of(data, source=self.source)
        except Exception as error:
            self._drop(type(data).__name__, error)
            return
        if len(self._backlog) >= EVENT_BACKLOG:
            self._backlog.popleft()
            self._health.count("events_dropped")
        self._backlog.append(event)
        self._drained.clear()
        self._work.set()

    async def _publish_backlog(self) -> None:
        pause = RECONNECT_WAIT
        while True:
            while not self._backlog:
                self._work.clear()
                self._drained.set()
                await self._work.wait()
            event = self._backlog[0]
            try:
                _require_sendable(event)
                await self.epoch_after(0)
                await self.publish(event)
            except ValueError as error:
                self._drop(event.type, error)
            except BusUnavailable as error:
                self._log.debug("event waits", id=event.id, error=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_LONGEST)
                continue
            else:
                self.delays.record(max(0.0, _age(event)))
            pause = RECONNECT_WAIT
            # The backlog's head may have been dropped for space while it was on its way.
            if self._backlog and self._backlog[0] is event:
                self._backlog.popleft()

    def _drop(self, what: str, error: Exception) -> None:
        """An event that can never be sent: a bug of ours, which must not stop the events that can."""
        self._health.count("events_unsendable")
        self._log.error("event cannot be sent", kind=what, error=str(error), remedy="report it, with this line")

    async def publish(self, event: CloudEvent) -> bool:
        """Publish one event and wait until JetStream has stored it. True if it was new, False if it was a repeat.

        BusUnavailable when that was not confirmed; it may have been stored all the same, so repeat it as it is.
        """
        headers: dict[str, Any] = {"Nats-Msg-Id": event.id, "Content-Type": CONTENT_TYPE}
        if event.traceparent:
            headers["traceparent"] = event.traceparent
        try:
            ack = await self.jetstream.publish(
                event.nats_subject, event.payload(), timeout=PUBLISH_TIMEOUT, headers=headers
            )
        except (NatsError, OSError, TimeoutError) as error:
            raise BusUnavailable(f"{event.nats_subject}: {error or type(error).__name__}") from error
        self._health.count("events_published")
        return not ack.duplicate


def _age(event: CloudEvent) -> float:
    """Seconds since it was emitted."""
    return time.time() - event.time.timestamp()


def _require_sendable(event: CloudEvent) -> None:
    """ValueError if no attempt to publish this event could succeed."""
    size = len(event.payload())  # pydantic's own ValueError: text that is no Unicode, such as a lone surrogate
    if size > EVENT_LIMIT:
        raise ValueError(f"it has {size} bytes; at most {EVENT_LIMIT} can be sent")


async def _until_closed(client: Client, closed: asyncio.Event) -> None:
    """Wait until nats-py has given this client up. It may fail in the middle of that, when the server has gone before
    it: then it calls nobody, so it is looked at, too."""
    while not client.is_closed:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSED_LOOK):
                await closed.wait()
                return


async def connect_once(url: str, name: str, access: NatsAccess = ANYBODY) -> Client:
    """A plain connection for a command that runs once. BusUnavailable when there is none, within seconds; it says what
    to do if that is not to start a server."""

    async def quiet(_: Exception) -> None:
        return None

    client = access.client()
    try:
        await client.connect(
            servers=[url],
            name=name,
            **access.options(),
            allow_reconnect=False,
            connect_timeout=CONNECT_TIMEOUT,
            error_cb=quiet,
            # allow_reconnect does not count until a first server accepted: without these, 60 tries in 2 minutes.
            max_reconnect_attempts=1,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]  # nats-py sleeps it; a float is fine
        )
    except (NatsError, OSError, TimeoutError) as error:
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await client.close()  # nats-py leaves the socket open that was refused
        if isinstance(error, (NoServersError, ConnectionError, TimeoutError)) or not str(error):
            raise BusUnavailable(f"no NATS server at {without_password(url)}") from error
        raise BusUnavailable(f"NATS at {without_password(url)}: {error}", refusal(error)) from error
    return client
