"""What NATS must hold before the services use it: the event stream and the buckets. The registry makes them.

Everything in them can be rebuilt from PostgreSQL; they are on disk all the same, so that a boot during the
registry's absence finds its plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, KeyValueConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from bootlink_events import ALL_EVENTS, EVENTS_STREAM, LEASES_BUCKET, NODES_BUCKET, PLANS_BUCKET
from bootlink_runtime.bus import Bus
from bootlink_runtime.errors import BusUnavailable

DUPLICATE_WINDOW_SECONDS: Final = 30 * 60  # longer than any outage the outbox is expected to bridge
STREAM_SETTINGS: Final = (
    *("subjects", "retention", "discard", "max_age", "max_bytes", "duplicate_window", "num_replicas"),
)
NO_ROOM_FOR_REPLICAS: Final = (10005, 10074, 10156)  # no suitable peers, no cluster, peers too few: errors.json
NODE_TTL_SECONDS: Final = 60  # a block store that stopped announcing itself is not offered to clients
BATCHES_SINCE: Final = (2, 12)  # the nats-server that took batches first
PLAN_BYTES: Final = 64 * 1024  # one plan; a chain of some hundred layers


@dataclass(frozen=True, slots=True)
class Retention:
    """How long events are kept, and on how many servers of a cluster all of it lies."""

    seconds: float = 30 * 24 * 3600
    bytes: int = 2 * 1024**3
    replicas: int | None = None  # None: as they are, as an administrator may have set them in NATS


async def provision(bus: Bus, keep: Retention = Retention()) -> bool:
    """Make the stream and the buckets, or bring their settings up to date. True if one of them was not there.

    BusUnavailable if NATS does not answer, or cannot have so many replicas.
    """
    made = False
    stream = StreamConfig(
        name=EVENTS_STREAM,
        subjects=[ALL_EVENTS],
        storage=StorageType.FILE,
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD,
        max_age=keep.seconds,
        max_bytes=keep.bytes,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        num_replicas=keep.replicas or 1,
    )
    try:
        js = bus.jetstream
        try:
            there = (await js.stream_info(EVENTS_STREAM)).config
            stream.num_replicas = keep.replicas or there.num_replicas
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
                bucket.replicas = keep.replicas or 1
                await js.create_key_value(bucket)
                made = True
            else:
                await _replicate(bus, f"KV_{bucket.bucket}", keep.replicas)
        for batched in (PLANS_BUCKET, LEASES_BUCKET):
            await _allow_batches(bus, batched)
    except APIError as error:
        if error.err_code in NO_ROOM_FOR_REPLICAS:
            raise BusUnavailable(
                f"NATS cannot keep {keep.replicas} replicas ({error.description}): set BOOTLINK_REGISTRY_NATS_REPLICAS "
                "to no more than its cluster has servers with JetStream"
            ) from error
        raise BusUnavailable(f"NATS refuses the event stream: {error.description}; is JetStream on?") from error
    except (NatsError, OSError, TimeoutError) as error:
        raise BusUnavailable(str(error) or type(error).__name__) from error
    return made


async def _replicate(bus: Bus, stream: str, replicas: int | None) -> None:
    """Have a stream that is there on so many servers; None: leave it."""
    config = (await bus.jetstream.stream_info(stream)).config
    if replicas is not None and config.num_replicas != replicas:
        config.num_replicas = replicas
        await bus.jetstream.update_stream(config)


async def _allow_batches(bus: Bus, bucket: str) -> None:
    """Have the bucket take batches (see `batch`), if this server knows them."""
    server = bus.client.connected_server_version
    config = (await bus.jetstream.stream_info(f"KV_{bucket}")).config
    if (server.major, server.minor) >= BATCHES_SINCE and not config.allow_atomic:
        config.allow_atomic = True
        await bus.jetstream.update_stream(config)
