"""What NATS holds of our events, and what its consumers have not taken yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nats.errors import Error as NatsError
from nats.js.api import ConsumerInfo
from nats.js.errors import NotFoundError

from bootlink_events import EVENTS_STREAM
from bootlink_events.access import DURABLE_CONSUMERS
from bootlink_runtime.bus import Bus
from bootlink_runtime.errors import BusUnavailable

CONSUMERS_LIMIT: Final = 32  # durable ones that are told; followers that come and go have no durable name


@dataclass(frozen=True, slots=True)
class Pending:
    """A durable consumer's backlog: events not delivered yet, and delivered ones that were not acknowledged."""

    undelivered: int
    unacknowledged: int
    redelivered: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """The stream of events, and its durable consumers by name."""

    events: int
    size: int  # bytes
    consumers: dict[str, Pending]


async def look(bus: Bus) -> Backlog:
    """As it is now. BusUnavailable if NATS does not answer, or has no stream yet."""
    try:
        state = (await bus.jetstream.stream_info(EVENTS_STREAM)).state
        # Ours by name: the list is by name and one page long, and who may read events makes as many as he likes.
        consumers = [one for name in DURABLE_CONSUMERS if (one := await _consumer(bus, name)) is not None]
        consumers += [
            one for one in await bus.jetstream.consumers_info(EVENTS_STREAM) if one.name not in DURABLE_CONSUMERS
        ]
    except (NatsError, OSError, TimeoutError) as error:
        raise BusUnavailable(str(error) or type(error).__name__) from error
    durable = [one for one in consumers if one.config.durable_name][:CONSUMERS_LIMIT]
    return Backlog(
        events=state.messages,
        size=state.bytes,
        consumers={
            str(one.config.durable_name): Pending(
                one.num_pending or 0, one.num_ack_pending or 0, one.num_redelivered or 0
            )
            for one in durable
        },
    )


async def _consumer(bus: Bus, name: str) -> ConsumerInfo | None:
    try:
        found: ConsumerInfo = await bus.jetstream.consumer_info(EVENTS_STREAM, name)
    except NotFoundError:
        return None
    return found
