"""Spans and metrics. One boot is one trace.

The boot id is the trace id, and its low 64 bits are the id of the root span (see `BootId`). So each service places
its spans under the root without asking anybody, and the registry writes the root itself once the boot is over.
Nothing here touches a global tracer or meter. Without an OTLP endpoint spans cost next to nothing and go nowhere.

Metrics are observed: nothing is counted here. At each export, in the exporter's thread, what the service has counted is
read from it. Their attributes come from a set that the service bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, Literal

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation import set_span_in_context

from bootlink_events import BootId
from bootlink_runtime.version import __version__

Attributes = Mapping[str, str | int | float | bool]
Readings = Callable[[], Iterable[tuple[int | float, Attributes]]]

FLUSH_MILLISECONDS: Final = 2_000  # given to the exporter when the service stops


class _BootIds(RandomIdGenerator):
    """Random ids, except for the next span while `root` names a boot. Used on one thread only."""

    root: BootId | None = None

    def generate_trace_id(self) -> int:
        return self.root.trace_id if self.root else super().generate_trace_id()

    def generate_span_id(self) -> int:
        return self.root.root_span_id if self.root else super().generate_span_id()


class Telemetry:
    """One service's tracer and meter."""

    def __init__(
        self,
        service: str,
        node: str,
        *,
        endpoint: str = "",
        protocol: Literal["grpc", "http/protobuf"] = "http/protobuf",
        processor: SpanProcessor | None = None,
        reader: MetricReader | None = None,
    ) -> None:
        self._ids = _BootIds()
        resource = Resource.create(
            {
                "service.name": f"bootlink-{service}",
                "service.version": __version__,
                "service.instance.id": node,
            }
        )
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        if endpoint:
            # The batch processor holds at most 2,048 spans and drops beyond, so an absent collector costs no memory.
            self._provider.add_span_processor(BatchSpanProcessor(_exporter(protocol)))
        if processor is not None:
            self._provider.add_span_processor(processor)
        self._recording = bool(endpoint) or processor is not None
        self._tracer = self._provider.get_tracer(f"bootlink_{service}", __version__)
        readers = [reader] if reader is not None else []
        if endpoint:
            readers.append(PeriodicExportingMetricReader(_metric_exporter(protocol)))
        self._meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        self._meter = self._meters.get_meter(f"bootlink_{service}", __version__)

    def counter(self, name: str, unit: str, description: str, read: Readings) -> None:
        """A metric that only grows. `read` is called in another thread, and must neither block nor change anything."""
        self._meter.create_observable_counter(name, [_observing(read)], unit, description)

    def gauge(self, name: str, unit: str, description: str, read: Readings) -> None:
        """A metric that goes up and down. `read` as for `counter`."""
        self._meter.create_observable_gauge(name, [_observing(read)], unit, description)

    def boot_span(
        self,
        boot_id: BootId,
        name: str,
        started: datetime,
        ended: datetime,
        attributes: Attributes | None = None,
        *,
        error: str | None = None,
    ) -> None:
        """Record a finished stage of a boot, as a child of the boot's root span."""
        if not self._recording:
            return
        root = SpanContext(boot_id.trace_id, boot_id.root_span_id, is_remote=True, trace_flags=TraceFlags(1))
        self._record(set_span_in_context(NonRecordingSpan(root), Context()), name, started, ended, attributes, error)

    def root_span(
        self,
        boot_id: BootId,
        name: str,
        started: datetime,
        ended: datetime,
        attributes: Attributes | None = None,
        *,
        error: str | None = None,
    ) -> None:
        """Record the root span of a boot that is over. The registry alone does this, once per boot."""
        self._ids.root = boot_id
        try:
            self._record(Context(), name, started, ended, attributes, error)
        finally:
            self._ids.root = None

    def _record(
        self,
        context: Context,
        name: str,
        started: datetime,
        ended: datetime,
        attributes: Attributes | None,
        error: str | None,
    ) -> None:
        span = self._tracer.start_span(
            name, context, kind=SpanKind.SERVER, attributes=dict(attributes or {}), start_time=_nanoseconds(started)
        )
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end_time=_nanoseconds(ended))

    def close(self) -> None:
        """Send what is left. Blocks for at most FLUSH_MILLISECONDS each for spans and metrics."""
        self._provider.force_flush(FLUSH_MILLISECONDS)
        self._provider.shutdown()
        self._meters.shutdown(FLUSH_MILLISECONDS)


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000


def _observing(read: Readings) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(value, dict(attributes)) for value, attributes in read()]


def _exporter(protocol: Literal["grpc", "http/protobuf"]) -> SpanExporter:
    """The OTLP exporter; it reads its endpoint, headers and TLS from the standard OTEL_* variables."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter()


def _metric_exporter(protocol: Literal["grpc", "http/protobuf"]) -> MetricExporter:
    """As `_exporter`, for metrics."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

    return HttpExporter()
