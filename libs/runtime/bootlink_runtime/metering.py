"""What a service counts, for Prometheus to scrape and for an OTLP collector.

Theory of operation. The service counts in plain numbers of its own, where it works; a metric is a function that reads
them. All are read in one go, in the service's own event loop, when somebody wants to know: at a scrape (GET /metrics of
the health port) or at an OTLP export. So they may look at what the loop alone changes, and must not block. What is made
of the numbers takes longer, and is done in a thread. A metric that nobody reads costs what its number costs.

Counters and gauges are OpenTelemetry's observable instruments. It has none for a histogram that somebody else has
counted (see `Distribution`), so those join the others between the SDK and whoever takes the data.

Every metric is declared (`Metric`), with the labels it has and how many sets of them there can be at most. Beyond that,
sets are left out and counted in `bootlink.metrics.left_out`: no client, whatever it sends, makes a series without end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Metric as Exported
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from bootlink_runtime.distribution import Distribution
from bootlink_runtime.version import __version__

FRESH_SECONDS: Final = 1.0  # numbers are not read again within it: all metrics of one export are of one moment
REFRESH_SECONDS: Final = 2.0  # that an export waits for the event loop
CLOSE_MILLISECONDS: Final = 2_000  # given to the last export when the service stops

T = TypeVar("T")
Labels = Mapping[str, str]
Numbers = Callable[[], Iterable[tuple[int | float, Labels]]]
Distributions = Callable[[], Iterable[tuple[Distribution, Labels]]]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it is declared: OpenTelemetry's name and unit (UCUM), and what it tells.

    A counter only grows. `labels` are the names that each of its observations has; `at_most` is how many sets of their
    values there can be, and says so to whoever reads docs/metrics.md.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    tells: str
    labels: tuple[str, ...] = ()
    at_most: int = 1


@dataclass(frozen=True, slots=True)
class Tally:
    """A counter over what `Health.count` has counted: `shows` has the label's value for each name that it is of. All of
    them are told from the start, as a rate needs the zero before the first."""

    metric: Metric
    shows: Mapping[str, str]


def tally(name: str, unit: str, tells: str, label: str, shows: Mapping[str, str] | Sequence[str]) -> Tally:
    """A `Tally`; where the label's values are the names themselves, these alone."""
    known = shows if isinstance(shows, Mapping) else {one: one for one in shows}
    return Tally(Metric(name, "counter", unit, tells, (label,), len(known)), known)


LEFT_OUT: Final = Metric(
    "bootlink.metrics.left_out", "counter", "{set}", "sets of labels that were one too many for their metric"
)


class Meter:
    """One service's metrics."""

    def __init__(self, service: str, resource: Resource, *, otlp: MetricExporter | None = None) -> None:
        """`otlp`: where to export to each minute (OTEL_METRIC_EXPORT_INTERVAL)."""
        self.metrics: list[Metric] = []
        self._distributions: list[tuple[Metric, Distributions]] = []
        self._numbers: list[tuple[Metric, Numbers]] = []
        self._left_out = 0
        self._told: dict[str, list[Observation]] = {}
        self._spread: list[tuple[Metric, list[HistogramDataPoint]]] = []
        self._gathered = 0.0  # when, by the monotonic clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._since = time.time_ns()
        self._registry = CollectorRegistry()
        readers: list[MetricReader] = [_Scraped(self._registry, self._joined)]
        if otlp is not None:
            readers.append(PeriodicExportingMetricReader(_Joining(otlp, self._joined)))
        self._provider = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        self._meter = self._provider.get_meter(f"bootlink_{service}", __version__)
        self.observe(LEFT_OUT, lambda: [(self._left_out, {})])

    def observe(self, metric: Metric, read: Numbers) -> None:
        """Tell a counter or a gauge. `read` yields its numbers, each with its labels; see above for what it may do."""
        self.metrics.append(metric)
        self._numbers.append((metric, read))
        make = {"counter": self._meter.create_observable_counter, "gauge": self._meter.create_observable_gauge}
        make[metric.kind](metric.name, [self._observing(metric)], metric.unit, metric.tells)

    def distribute(self, metric: Metric, read: Distributions) -> None:
        """Tell a histogram, from what `Distribution`s hold."""
        assert metric.kind == "histogram"
        self.metrics.append(metric)
        self._distributions.append((metric, read))

    def tally(self, tallies: Iterable[Tally], counted: Mapping[str, int]) -> None:
        """Tell what was counted by name."""

        def reads(tally: Tally) -> Numbers:
            (label,) = tally.metric.labels
            return lambda: [(counted.get(name, 0), {label: shown}) for name, shown in tally.shows.items()]

        for one in tallies:
            self.observe(one.metric, reads(one))

    def attend(self) -> None:
        """From now on, what the metrics read is read in the event loop that runs."""
        self._loop = asyncio.get_running_loop()

    async def scraped(self, accept: str) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its content type; `accept`: what the client takes."""
        self.gather()
        return await asyncio.to_thread(self._encoded, accept)

    def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """The same, at once."""
        self.gather()
        return self._encoded(accept)

    def gather(self) -> None:
        """Read all numbers. In the event loop."""
        now = time.time_ns()
        told: dict[str, list[Observation]] = {}
        for metric, read in self._numbers:
            with contextlib.suppress(OSError):  # no descriptor is free, say: the others are wanted all the more
                told[metric.name] = [Observation(value, labels) for value, labels in self._within(metric, read())]
        self._spread = [
            (metric, [self._point(one, labels, now) for one, labels in self._within(metric, read())])
            for metric, read in self._distributions
        ]
        self._told = told
        self._gathered = time.monotonic()

    def close(self) -> None:
        """Export once more, where there is somebody to export to. Blocks for at most CLOSE_MILLISECONDS."""
        self._provider.shutdown(CLOSE_MILLISECONDS)

    def _encoded(self, accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _observing(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observations(_: CallbackOptions) -> Iterable[Observation]:
            self._refresh()
            return self._told.get(metric.name, ())

        return observations

    def _refresh(self) -> None:
        """In a thread, before an export: have the loop read all numbers, unless that was just done. A loop that does
        not come to it within REFRESH_SECONDS leaves the former ones."""
        if time.monotonic() - self._gathered < FRESH_SECONDS:
            return
        if self._loop is None or self._loop.is_closed():
            self.gather()
            return
        done = threading.Event()

        def gather() -> None:
            self.gather()
            done.set()

        with contextlib.suppress(RuntimeError):  # it was closed this very moment
            self._loop.call_soon_threadsafe(gather)
            done.wait(REFRESH_SECONDS)
        self._gathered = time.monotonic()  # once for all metrics of this export

    def _within(self, metric: Metric, told: Iterable[tuple[T, Labels]]) -> Iterator[tuple[T, Labels]]:
        """As many as the metric may have, each with the labels that it declares."""
        rest = iter(told)
        for value, labels in itertools.islice(rest, metric.at_most):
            assert tuple(labels) == metric.labels, (metric.name, labels)
            yield value, labels
        self._left_out += sum(1 for _ in rest)

    def _joined(self, data: MetricsData) -> MetricsData:
        """What the SDK has collected, with the histograms."""
        more = [
            Exported(
                name=metric.name,
                description=metric.tells,
                unit=metric.unit,
                data=Histogram(data_points=points, aggregation_temporality=AggregationTemporality.CUMULATIVE),
            )
            for metric, points in self._spread
        ]
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        whole = ScopeMetrics(scope.scope, [*scope.metrics, *more], scope.schema_url)
        return MetricsData([ResourceMetrics(resource.resource, [whole], resource.schema_url)])

    def _point(self, distribution: Distribution, labels: Labels, now: int) -> HistogramDataPoint:
        counts = list(distribution.counts)
        return HistogramDataPoint(
            attributes=dict(labels),
            start_time_unix_nano=self._since,
            time_unix_nano=now,
            count=sum(counts),
            sum=distribution.total,
            bucket_counts=counts,
            explicit_bounds=distribution.bounds,
            min=math.inf,  # not known: no value is kept
            max=-math.inf,
        )


class _Scraped(PrometheusMetricReader):
    """Answers scrapes, with the histograms."""

    def __init__(self, registry: CollectorRegistry, joined: Callable[[MetricsData], MetricsData]) -> None:
        self._joined = joined
        # The scope would be a label on each series, the same on all.
        super().__init__(registry=registry, scope_info_enabled=False)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        super()._receive_metrics(self._joined(metrics_data), timeout_millis, **kwargs)


class _Joining(MetricExporter):
    """An exporter that is handed the histograms, too."""

    def __init__(self, exporter: MetricExporter, joined: Callable[[MetricsData], MetricsData]) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._joined = joined

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        return self._exporter.export(self._joined(metrics_data), timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._exporter.shutdown(timeout_millis, **kwargs)
