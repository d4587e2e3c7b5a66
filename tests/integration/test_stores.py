"""How long events are kept, and on how many servers: settings that hold for a stream that is there as for a new one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bootlink_events import EVENTS_STREAM, LEASES_BUCKET, NODES_BUCKET, PLANS_BUCKET, ImagePublished
from bootlink_registry.settings import RegistrySettings
from bootlink_runtime import Bus, BusUnavailable, Retention, follow, provision
from lab.chassis import bus_on
from lab.nats import NatsServer, cluster
from lab.registry import Registry, registry_on, until

ALL = (EVENTS_STREAM, *(f"KV_{bucket}" for bucket in (PLANS_BUCKET, NODES_BUCKET, LEASES_BUCKET)))


async def configuration(bus: Bus, stream: str = EVENTS_STREAM) -> Any:
    return (await bus.jetstream.stream_info(stream)).config


def told(n: int) -> ImagePublished:
    return ImagePublished(image=f"image-{n}", version=n, channel="production", at=datetime.now(UTC))


async def test_the_registrys_settings_are_the_streams_at_its_next_start_and_what_is_stored_stays(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        bus = registry.chassis.bus
        await ready(registry)
        bus.emit(told(1))
        await until(lambda: bus.waiting == 0, "the event to be stored")
        first = await configuration(bus)
        assert (first.max_age, first.max_bytes, first.num_replicas) == (30 * 86400, 2 << 30, 1)
    settings: dict[str, Any] = {"events_days": 2, "events_size": "64MiB"}
    async with registry_on(nats.url, database, tmp_path / "data", **settings) as registry:
        await ready(registry)
        then = await configuration(registry.chassis.bus)
        assert (then.max_age, then.max_bytes) == (2 * 86400, 64 << 20)
        assert [event.subject async for event in follow(registry.chassis.bus, wait=False)] == ["image-1"]


async def ready(registry: Registry) -> None:
    await until(lambda: bool(registry.chassis.health.report()["checks"]["bus"]["ok"]), "the registry to prepare NATS")


@pytest.mark.parametrize("wrong", [{"events_days": 0}, {"events_size": "1KiB"}, {"nats_replicas": 2}])
def test_settings_that_nats_would_refuse_are_refused_at_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RegistrySettings(**wrong)


async def test_replicas_that_there_are_no_servers_for_are_refused_with_what_to_do(nats: NatsServer) -> None:
    async with bus_on(nats.url) as bus:
        with pytest.raises(BusUnavailable, match="BOOTLINK_REGISTRY_NATS_REPLICAS"):
            await provision(bus, Retention(replicas=3))
        assert (await configuration(bus)).num_replicas == 1


async def test_in_a_cluster_all_lies_on_three_servers_and_outlives_one_of_them(tmp_path: Path) -> None:
    with cluster(tmp_path) as servers:
        async with bus_on(servers[0].url, make=False) as bus:
            await provisioned(bus, Retention(replicas=1))
            bus.emit(told(1))
            await until(lambda: bus.waiting == 0, "the event to be stored")
            await provisioned(bus, Retention(replicas=3))
            assert [(await configuration(bus, stream)).num_replicas for stream in ALL] == [3] * len(ALL)
            await until(lambda: replicated(bus), "the replicas to catch up")
            await provisioned(bus, Retention())  # unset: as NATS has it
            assert (await configuration(bus)).num_replicas == 3
        servers[0].kill()
        async with bus_on(servers[1].url, make=False) as bus:
            async for event in follow(bus):
                assert event.subject == "image-1"
                break


async def provisioned(bus: Bus, keep: Retention) -> None:
    """Prepare NATS once its cluster has chosen a leader."""

    async def done() -> bool:
        try:
            await provision(bus, keep)
        except BusUnavailable:
            return False
        return True

    await until(done, "the cluster to take streams")


async def replicated(bus: Bus) -> bool:
    info = await bus.jetstream.stream_info(EVENTS_STREAM)
    return info.cluster is not None and len([r for r in info.cluster.replicas or () if r.current]) == 2
