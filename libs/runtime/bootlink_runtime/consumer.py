"""Reading events: a durable consumer for a service that must see each one, and a follower for whoever watches.

The durable consumer is a push consumer with explicit acknowledgement. nats-py's pull `fetch` stalls for its whole
time-out after an empty fetch (measured), which would hold back the enrolment of a PC that is booting. After a
server restart acknowledged messages may come again, so handlers are idempotent by event id. Whoever may make a
consumer, of the leases or of the events, can have it deliver where another listens, and NATS does not hold that back
(measured): so a message counts only if its reply, which the server writes, names our own consumer.

The follower is an ordered consumer. It falls silent when the server restarts (measured), so it is made anew at each
new connection, after the last sequence it delivered. It has a name, as whoever may only read is let make no other
(`bootlink_events.access`); nats-py cannot make such a one anew itself after a gap, so that is looked for here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import BadRequestError

from bootlink_events import ALL_EVENTS, EVENTS_STREAM, CloudEvent, UnreadableEvent
from bootlink_runtime.bus import Bus
from bootlink_runtime.errors import BusUnavailable
from bootlink_runtime.logs import Logger
from bootlink_runtime.tasks import heed_cancellation

MAX_ACK_PENDING: Final = 256  # messages under way to one consumer; the server holds back the rest
ACK_WAIT_SECONDS: Final = 30
MAX_DELIVER: Final = 20  # then the event is given up, and said so: after about a quarter of an hour
REDELIVER_SECONDS: Final = 2.0  # before an event whose handler failed comes again; twice as long each time, up to
REDELIVER_LONGEST: Final = 60.0
RETRY_SECONDS: Final = 0.5
STRANGERS_TOLD: Final = 8  # consumers of others that deliver to us, and are told of: anybody with a key can make more
WATCHDOG_SECONDS: Final = 30.0  # between looks whether the server still knows the consumer

Handler = Callable[[CloudEvent], Awaitable[None]]


def redeliver_after(deliveries: int) -> float:
    """Seconds until an event comes again whose handler has failed `deliveries` times."""
    return min(REDELIVER_LONGEST, REDELIVER_SECONDS * 2.0 ** (deliveries - 1))


async def consume(
    bus: Bus,
    durable: str,
    handler: Handler,
    log: Logger,
    *,
    subject: str = ALL_EVENTS,
    since: Callable[[], datetime] | None = None,
) -> None:
    """Hand every event on `subject` to `handler`, for ever; each at least once, however often this service restarts.

    A consumer that the server does not know yet begins with all that is stored, or with what was since then."""

    strangers: set[str] = set()

    async def on_message(message: Msg) -> None:
        metadata = message.metadata
        if (metadata.stream, metadata.consumer) != (EVENTS_STREAM, durable):
            if metadata.consumer not in strangers and len(strangers) < STRANGERS_TOLD:
                strangers.add(metadata.consumer)
                log.warning(
                    "what another consumer delivers to us is passed over",
                    durable=durable,
                    stream=metadata.stream,
                    consumer=metadata.consumer,
                    remedy="find out who made that consumer, and take its key away or delete it",
                )
            return
        deliveries = metadata.num_delivered
        try:
            await handler(CloudEvent.parse(message.data))
        except UnreadableEvent as error:
            log.error("event unreadable", subject=message.subject, error=str(error))
            await message.term()
        except Exception as error:
            last = deliveries >= MAX_DELIVER
            log.error("event failed", subject=message.subject, error=repr(error), deliveries=deliveries, given_up=last)
            await message.nak(delay=redeliver_after(deliveries))
        else:
            await message.ack()

    while True:
        config = ConsumerConfig(
            durable_name=durable,
            deliver_subject=f"_deliver.{durable}",
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_SECONDS,
            max_deliver=MAX_DELIVER,
            max_ack_pending=MAX_ACK_PENDING,
            deliver_policy=DeliverPolicy.BY_START_TIME if since else DeliverPolicy.ALL,
            opt_start_time=since().isoformat() if since else None,  # type: ignore[arg-type]
            filter_subject=subject,
        )
        epoch = await bus.epoch_after(0)
        subscription: Subscription | None = None
        try:
            client, js = bus.client, bus.jetstream
            subscription = await js.subscribe(
                subject, stream=EVENTS_STREAM, durable=durable, config=config, cb=on_message, manual_ack=True
            )
            # The subscription outlives a server restart; the consumer may not, if its stream was lost.
            while True:
                heed_cancellation()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WATCHDOG_SECONDS):
                        epoch = await bus.epoch_after(epoch)
                if bus.client is not client:
                    raise BusUnavailable("the connection was given up, and its subscription with it")
                info = await js.consumer_info(EVENTS_STREAM, durable)
                if not info.push_bound:
                    raise BusUnavailable(f"the server does not deliver to {durable}")
        except (NatsError, BusUnavailable, OSError, TimeoutError) as error:
            log.debug("consumer broke", durable=durable, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            if subscription is not None:
                with contextlib.suppress(NatsError, OSError, TimeoutError):
                    await subscription.unsubscribe()


async def follow(
    bus: Bus, *, subject: str = ALL_EVENTS, since: datetime | None = None, after: int = 0, wait: bool = True
) -> AsyncIterator[CloudEvent]:
    """The stored events on `subject` from `since`, or after a sequence (default: all), then new ones as they come.

    With `wait` false it ends when the stored ones are through. Raises BusUnavailable only when it may not wait, or
    where the server refuses what it would refuse again.
    """
    numbered = follow_numbered(bus, subject=subject, since=since, after=after, wait=wait)
    async with contextlib.aclosing(numbered):  # or its subscription lasts until the garbage is collected
        async for _, event in numbered:
            yield event


async def follow_numbered(
    bus: Bus, *, subject: str = ALL_EVENTS, since: datetime | None = None, after: int = 0, wait: bool = True
) -> AsyncGenerator[tuple[int, CloudEvent], None]:
    """The same, each with its sequence in the stream: who keeps it goes on behind it another time."""
    last = after
    while True:
        epoch = await bus.epoch_after(0)
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            state = (await bus.jetstream.stream_info(EVENTS_STREAM)).state
            if state.last_seq < last:
                last = 0  # the store was lost, and its numbers began anew: all that it holds now is new
        name = f"follow-{uuid.uuid4().hex}"
        if last:
            start = ConsumerConfig(name=name, deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=last + 1)
        elif since is not None:
            start = ConsumerConfig(
                name=name,
                deliver_policy=DeliverPolicy.BY_START_TIME,
                opt_start_time=since.isoformat(),  # type: ignore[arg-type]
            )
        else:
            start = ConsumerConfig(name=name, deliver_policy=DeliverPolicy.ALL)
        try:
            subscription = await bus.jetstream.subscribe(
                subject, stream=EVENTS_STREAM, config=start, ordered_consumer=True
            )  # flow control, which ordered consumers ask for, bounds what waits between server and reader
            info = await subscription.consumer_info()
            pending = (info.num_pending or 0) + (info.delivered.consumer_seq if info.delivered else 0)
            delivered, silent_since = 0, time.monotonic()
            try:
                while bus.epoch == epoch:
                    heed_cancellation()
                    if not wait and pending <= 0:
                        return
                    try:
                        message = await subscription.next_msg(timeout=RETRY_SECONDS)
                    except TimeoutError:
                        if time.monotonic() - silent_since > WATCHDOG_SECONDS:
                            silent_since = time.monotonic()
                            told = (await subscription.consumer_info()).delivered
                            if told is None or told.consumer_seq > delivered:
                                break  # and it has not come since
                        continue
                    silent_since = time.monotonic()
                    if message.metadata.sequence.consumer != delivered + 1:
                        break
                    delivered += 1
                    pending = message.metadata.num_pending
                    last = message.metadata.sequence.stream
                    with contextlib.suppress(UnreadableEvent):
                        yield last, CloudEvent.parse(message.data)
            finally:
                with contextlib.suppress(NatsError, OSError, TimeoutError):
                    await subscription.unsubscribe()
        except BadRequestError as error:  # too many consumers, above all
            raise BusUnavailable(
                f"NATS lets nobody else read events: {error.description}", "end other programs that read events"
            ) from error
        except (NatsError, OSError, TimeoutError) as error:
            if not wait:
                raise BusUnavailable(str(error) or type(error).__name__) from error
            await asyncio.sleep(RETRY_SECONDS)
