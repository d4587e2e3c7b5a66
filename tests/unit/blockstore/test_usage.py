"""What is told of the cache: figures that add up, layer by layer, as a page and as metrics."""

from __future__ import annotations

import asyncio
from pathlib import Path

from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from bootlink_blockstore import usage
from bootlink_blockstore.cache import BLOCK, ENTRY_COST
from bootlink_events import BootId
from bootlink_runtime import Telemetry
from lab.blockstore import identity, make_image, plan, serving
from lab.iscsi import Initiator
from lab.slow_disk import SlowDisk

OTHER = "52:54:00:00:00:02"


async def test_the_page_tells_hits_misses_and_bytes_of_each_layer_and_metrics_tell_the_same(tmp_path: Path) -> None:
    golden, other = make_image(tmp_path / "golden.img", 64 * BLOCK), make_image(tmp_path / "other.img", 8 * BLOCK)
    reader = InMemoryMetricReader()
    telemetry = Telemetry("blockstore", "lab", reader=reader)
    async with serving(tmp_path, plan(golden, version=3), plan(other, mac=OTHER)) as lab:
        store = lab.store
        usage.measure(store.cache, store.library, telemetry)
        empty = usage.report(store.cache, store.library, store.attachments, "lab")
        assert (empty["layers"], empty["hit_ratio"]) == ([], None)
        pc = await Initiator.logged_in(lab.host, lab.port, name=identity(BootId.mint()))
        idle = await Initiator.logged_in(
            lab.host, lab.port, name=identity(BootId.mint(), OTHER), target="iqn.2026-11.io.bootlink:52-54-00-00-00-02"
        )
        with SlowDisk() as disk:
            await pc.read(0, 4096)  # missed
            for _ in range(6):
                await pc.read(4096, 8192)  # in the same block
            await pc.read(20 * BLOCK, 4 * BLOCK)  # four blocks missed by one read
            await pc.read(22 * BLOCK - 4096, 8192)  # two hits
            read = disk.bytes_read
        await pc.read(40 * BLOCK, 4096)  # from the page cache, and missed all the same
        await pc.read(40 * BLOCK, 2 * BLOCK)  # a hit and a miss
        read += 2 * BLOCK
        told = usage.report(store.cache, store.library, store.attachments, "lab")
        await pc.close()
        await idle.close()
        (layer, unread) = told["layers"]
        assert (layer["hits"], layer["misses"]) == (9, 7)
        assert layer["hit_ratio"] == round(9 / 16, 6)
        assert (layer["images"], layer["clients"]) == (["golden@3"], 1)
        assert layer["path"] == str(golden)
        assert layer["bytes_read"] == read == 7 * BLOCK
        assert (layer["blocks"], layer["bytes"]) == (7, 7 * (BLOCK + ENTRY_COST))
        assert (layer["read_ahead"], layer["read_ahead_wasted"], layer["evicted"]) == (0, 0, 0)
        assert (unread["images"], unread["hit_ratio"], unread["blocks"]) == (["other@1"], None, 0)
        assert told["used"] == layer["bytes"] <= told["budget"] == store.cache.budget
        assert (told["node"], told["hits"], told["misses"]) == ("lab", 9, 7)

        data = await asyncio.to_thread(reader.get_metrics_data)
        assert data is not None
        points = {
            (metric.name, *dict(point.attributes or {}).values()): point.value
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
            for point in metric.data.data_points
            if isinstance(point, NumberDataPoint)
        }
        name = layer["id"]
        assert points["bootlink.cache.hits", name] == 9
        assert points["bootlink.cache.misses", name] == 7
        assert points["bootlink.cache.read", name] == read
        assert points["bootlink.cache.held", name] == layer["bytes"]
        assert points["bootlink.cache.used",] == told["used"]
        assert points["bootlink.cache.budget",] == told["budget"]
        assert {key[1] for key in points if len(key) > 1} == {name, unread["id"]}
    telemetry.close()
