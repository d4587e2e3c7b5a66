"""What NATS must hold before the services use it: the event stream and the buckets. The registry makes them.

Everything in them can be rebuilt from PostgreSQL; they are on disk all the same, so that a boot during the
registry's absence finds its plan.
"""

from __future__ import annotations

from typing import Final

from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, KeyValueConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError

from bootlink_events import ALL_EVENTS, EVENTS_STREAM, LEASES_BUCKET, NODES_BUCKET, PLANS_BUCKET
from bootlink_runtime.bus import Bus
from bootlink_runtime.errors import BusUnavailable

EVENT_AGE_SECONDS: Final = 30 * 24 * 3600
EVENT_BYTES: Final = 2 * 1024**3
DUPLICATE_WINDOW_SECONDS: Final = 30 * 60  # longer than any outage the outbox is expected to bridge
STREAM_SETTINGS: Final = ("subjects", "retention", "discard", "max_age", "max_bytes", "duplicate_window")
NODE_TTL_SECONDS: Final = 60  # a block store that stopped announcing itself is not offered to clients
BATCHES_SINCE: Final = (2, 12)  # the nats-server that took batches first
PLAN_BYTES: Final = 64 * 1024  # one plan; a chain of some hundred layers


async def provision(bus: Bus) -> bool:
    """Make the stream and the buckets, or bring their settings up to date. True if one of them was not there.

    BusUnavailable if NATS does not answer. Replicas are the administrator's to set, and stay as they are.
    """
    made = False
    stream = StreamConfig(
        name=EVENTS_STREAM,
        subjects=[ALL_EVENTS],
        storage=StorageType.FILE,
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD,
        max_age=EVENT_AGE_SECONDS,
        max_bytes=EVENT_BYTES,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
    )
    try:
        js = bus.jetstream
        try:
            there = (await js.stream_info(EVENTS_STREAM)).config
            stream.num_replicas = there.num_replicas
            if any(getattr(there, setting) != getattr(stream, setting) for setting in STREAM_SETTINGS):
                await js.update_stream(stream)
        except NotFoundError:
            await js.add_stream(stream)
            made = True
        for bucket in (
            KeyValueConfig(bucket=PLANS_BUCKET, history=1, storage=StorageType.FILE, max_value_size=PLAN_BYTES),
            KeyValueConfig(bucket=NODES_BUCKET, history=1, storage=StorageType.FILE, ttl=NODE_TTL_SECONDS),
            KeyValueConfig(bucket=LEASES_BUCKET, history=1, storage=StorageType.FILE),
        ):
            try:
                await js.key_value(str(bucket.bucket))
            except NotFoundError:
                await js.create_key_value(bucket)
                made = True
        await _allow_batches(bus, PLANS_BUCKET)
    except BadRequestError as error:
        raise BusUnavailable(f"NATS refuses the event stream: {error.description}; is JetStream on?") from error
    except (NatsError, OSError, TimeoutError) as error:
        raise BusUnavailable(str(error) or type(error).__name__) from error
    return made


async def _allow_batches(bus: Bus, bucket: str) -> None:
    """Have the bucket take batches (see `batch`), if this server knows them."""
    server = bus.client.connected_server_version
    config = (await bus.jetstream.stream_info(f"KV_{bucket}")).config
    if (server.major, server.minor) >= BATCHES_SINCE and not config.allow_atomic:
        config.allow_atomic = True
        await bus.jetstream.update_stream(config)
