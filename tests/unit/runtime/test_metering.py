"""What a service counts is what a scrape tells and an OTLP exporter is handed; no series beyond those declared."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
)
from opentelemetry.sdk.resources import Resource

from bootlink_runtime import SECONDS, Distribution, Meter, Metric, Telemetry, metering, tally
from lab.metrics import Scrape

THINGS = Metric("bootlink.things", "counter", "{thing}", "things that were", ("which",), 3)
LEVEL = Metric("bootlink.level", "gauge", "By", "how high it is")
WAIT = Metric("bootlink.wait", "histogram", "s", "how long it took", ("who",), 2)


class Kept(MetricExporter):
    """Keeps what it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.handed: list[MetricsData] = []
        self.closed = False

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.handed.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.closed = True


def test_a_scrape_tells_what_the_service_has_counted_by_then() -> None:
    meter = Telemetry("blockstore", "lab").meter
    counted = {"a": 1, "b": 2}
    meter.observe(THINGS, lambda: [(n, {"which": k}) for k, n in counted.items()])
    meter.observe(LEVEL, lambda: [(counted["b"], {})])
    for expected in (2, 5):
        counted["b"] = expected
        scrape = Scrape.of(meter.scrape())
        assert scrape.value("bootlink_things_total", which="a") == 1
        assert scrape.value("bootlink_things_total", which="b") == expected
        assert scrape.value("bootlink_level_bytes") == expected
        family = scrape.families["bootlink_things"]
        assert (family.type, family.documentation) == ("counter", "things that were")
        (target,) = scrape.families["target_info"].samples
        assert target.labels["service_name"] == "bootlink-blockstore"
        assert target.labels["service_instance_id"] == "lab"
    meter.close()


def test_a_series_that_is_no_more_is_not_told_any_more() -> None:
    meter = Telemetry("blockstore", "lab").meter
    counted = {"a": 1, "b": 2}
    meter.observe(THINGS, lambda: [(n, {"which": k}) for k, n in counted.items()])
    assert Scrape.of(meter.scrape()).labels("bootlink_things_total", "which") == {"a", "b"}
    del counted["a"]
    assert Scrape.of(meter.scrape()).labels("bootlink_things_total", "which") == {"b"}
    meter.close()


def test_a_metric_has_no_more_series_than_it_declares_and_says_how_many_were_left_out() -> None:
    meter = Telemetry("blockstore", "lab").meter
    meter.observe(THINGS, lambda: [(n, {"which": str(n)}) for n in range(10)])
    waits = {str(n): Distribution() for n in range(5)}
    meter.distribute(WAIT, lambda: [(wait, {"who": who}) for who, wait in waits.items()])
    meter.scrape()
    scrape = Scrape.of(meter.scrape())
    assert scrape.series("bootlink_things_total") == THINGS.at_most
    assert scrape.series("bootlink_wait_seconds_count") == WAIT.at_most
    assert scrape.value("bootlink_metrics_left_out_total") >= 7 + 3
    meter.close()


def test_labels_that_were_not_declared_are_a_bug() -> None:
    meter = Telemetry("blockstore", "lab").meter
    meter.observe(LEVEL, lambda: [(1, {"client": "pc-07"})])
    with pytest.raises(AssertionError, match=LEVEL.name):
        list(meter._within(LEVEL, [(1, {"client": "pc-07"})]))
    meter.close()


@pytest.mark.parametrize(
    ("value", "below"), [(0.0, SECONDS[0]), (SECONDS[0], SECONDS[0]), (0.0011, 0.0025), (10.0, 10.0), (11.0, math.inf)]
)
def test_a_value_counts_in_the_bucket_that_prometheus_looks_for_it_in(value: float, below: float) -> None:
    wait, meter = Distribution(), Telemetry("blockstore", "lab").meter
    meter.distribute(WAIT, lambda: [(wait, {"who": "pc"})])
    wait.record(value)
    scrape = Scrape.of(meter.scrape())
    name = "bootlink_wait_seconds_bucket"
    for bound in (*SECONDS, math.inf):
        told = scrape.value(name, who="pc", le="+Inf" if bound == math.inf else str(bound))
        assert told == (1 if bound >= below else 0), bound
    assert scrape.value("bootlink_wait_seconds_sum", who="pc") == value
    assert scrape.value("bootlink_wait_seconds_count", who="pc") == wait.count == 1
    meter.close()


def test_bounds_grow() -> None:
    assert list(SECONDS) == sorted(set(SECONDS))


def test_what_was_counted_by_name_is_told_from_the_start() -> None:
    meter, counted = Telemetry("dhcp", "lab").meter, Counter[str]()
    meter.tally(
        [tally("bootlink.lost", "{thing}", "lost", "reason", {"lost_late": "late", "lost_odd": "odd"})], counted
    )
    assert Scrape.of(meter.scrape()).value("bootlink_lost_total", reason="late") == 0
    counted["lost_late"] += 3
    counted["something_else"] += 1
    scrape = Scrape.of(meter.scrape())
    assert scrape.value("bootlink_lost_total", reason="late") == 3
    assert scrape.labels("bootlink_lost_total", "reason") == {"late", "odd"}
    meter.close()


def test_an_otlp_exporter_is_handed_the_same_with_histograms() -> None:
    kept, wait = Kept(), Distribution()
    meter = Meter("blockstore", Resource({"service.name": "bootlink-blockstore"}), otlp=kept)
    meter.observe(LEVEL, lambda: [(7, {})])
    meter.distribute(WAIT, lambda: [(wait, {"who": "pc"})])
    wait.record(0.5)
    meter.close()  # exports what there is
    assert kept.closed
    (data,) = kept.handed
    (resource,) = data.resource_metrics
    assert resource.resource.attributes["service.name"] == "bootlink-blockstore"
    told = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    (level,) = told["bootlink.level"].data.data_points
    assert isinstance(level, NumberDataPoint)
    assert (level.value, told["bootlink.level"].unit) == (7, "By")
    (point,) = told["bootlink.wait"].data.data_points
    assert isinstance(point, HistogramDataPoint)
    assert (point.count, point.sum, sum(point.bucket_counts)) == (1, 0.5, 1)
    assert point.explicit_bounds[point.bucket_counts.index(1)] == 0.5


async def test_an_export_reads_in_the_event_loop_and_goes_without_one_that_is_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metering, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(metering, "REFRESH_SECONDS", 0.2)
    kept = Kept()
    meter = Meter("blockstore", Resource({}), otlp=kept)
    meter.attend()
    loop_thread, threads = threading.get_ident(), set()

    def read() -> list[tuple[int, dict[str, str]]]:
        threads.add(threading.get_ident())
        return [(len(threads), {})]

    meter.observe(LEVEL, read)
    await asyncio.to_thread(meter._provider.force_flush)
    assert threads == {loop_thread}
    assert len(kept.handed) == 1
    meter._provider.force_flush()  # in the loop's own thread, which so cannot answer
    assert len(kept.handed) == 2
    await asyncio.to_thread(meter.close)


def test_openmetrics_is_told_to_who_asks_for_it() -> None:
    meter = Telemetry("blockstore", "lab").meter
    text, kind = meter.scrape("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    meter.close()
