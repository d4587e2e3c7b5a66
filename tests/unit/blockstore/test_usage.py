"""What is told of the cache: figures that add up, layer by layer, as a page and as metrics."""

from __future__ import annotations

from pathlib import Path

from bootlink_blockstore import usage
from bootlink_blockstore.cache import BLOCK, ENTRY_COST
from bootlink_events import BootId
from bootlink_runtime import Telemetry
from lab.blockstore import identity, make_image, plan, serving
from lab.iscsi import Initiator
from lab.metrics import Scrape
from lab.slow_disk import SlowDisk

OTHER = "52:54:00:00:00:02"


async def test_the_page_tells_hits_misses_and_bytes_of_each_layer_and_metrics_tell_the_same(tmp_path: Path) -> None:
    golden, other = make_image(tmp_path / "golden.img", 64 * BLOCK), make_image(tmp_path / "other.img", 8 * BLOCK)
    meter = Telemetry("blockstore", "lab").meter
    async with serving(tmp_path, plan(golden, version=3), plan(other, mac=OTHER)) as lab:
        store = lab.store
        usage.measure(store.cache, store.library, meter)
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

        scrape = Scrape.of(meter.scrape())
        mine = {"bootlink_layer": layer["id"], "file_name": "golden.img"}
        assert scrape.value("bootlink_cache_hits_total", **mine) == 9
        assert scrape.value("bootlink_cache_misses_total", **mine) == 7
        assert scrape.value("bootlink_cache_read_bytes_total", **mine) == read
        assert scrape.value("bootlink_cache_held_bytes", **mine) == layer["bytes"]
        assert scrape.value("bootlink_cache_used_bytes") == told["used"]
        assert scrape.value("bootlink_cache_budget_bytes") == told["budget"]
        assert scrape.labels("bootlink_cache_hits_total", "bootlink_layer") == {layer["id"], unread["id"]}
    meter.close()
