"""One service's spans and metrics (see `tracing` for the former). Nothing here touches a global tracer or meter.

Metrics are observed: nothing is counted here. At each export, in the exporter's thread, what the service has counted is
read from it. Their attributes come from a set that the service bounds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor

from bootlink_runtime import otlp
from bootlink_runtime.otlp import Export
from bootlink_runtime.tracing import Attributes, Tracing
from bootlink_runtime.version import __version__

Readings = Callable[[], Iterable[tuple[int | float, Attributes]]]

FLUSH_SECONDS: Final = 2.0
"""Given to the exporters when the service stops: half of what `up` and container engines wait for a service."""
_NOWHERE: Final = Export()


class Telemetry(Tracing):
    """One service's tracer and meter."""

    def __init__(
        self,
        service: str,
        node: str,
        *,
        export: Export = _NOWHERE,
        processor: SpanProcessor | None = None,
        reader: MetricReader | None = None,
    ) -> None:
        ours = {
            "service.namespace": "bootlink",
            "service.name": f"bootlink-{service}",
            "service.version": __version__,
            "service.instance.id": node,
        }
        # What the environment names (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) comes before ours.
        named = OTELResourceDetector().detect()
        resource = Resource.create(ours).merge(named)
        super().__init__(
            f"bootlink_{service}",
            resource,
            share=export.share,
            exporter=otlp.span_exporter(export.traces),
            processor=processor,
        )
        readers = [reader] if reader is not None else []
        metrics = otlp.metric_exporter(export.metrics)
        if metrics is not None:
            readers.append(PeriodicExportingMetricReader(metrics))
        self._meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        self._meter = self._meters.get_meter(f"bootlink_{service}", __version__)

    def counter(self, name: str, unit: str, description: str, read: Readings) -> None:
        """A metric that only grows. `read` is called in another thread, and must neither block nor change anything."""
        self._meter.create_observable_counter(name, [_observing(read)], unit, description)

    def gauge(self, name: str, unit: str, description: str, read: Readings) -> None:
        """A metric that goes up and down. `read` as for `counter`."""
        self._meter.create_observable_gauge(name, [_observing(read)], unit, description)

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Send what is left. Blocks for at most about so long, whatever the collector does."""
        # A reader waits for its thread, which may be waiting for the collector: beside the spans, and no longer.
        metrics = threading.Thread(target=self._meters.shutdown, name="metrics close", daemon=True)
        metrics.start()
        super().close(seconds)
        metrics.join(seconds)


def _observing(read: Readings) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(value, dict(attributes)) for value, attributes in read()]
