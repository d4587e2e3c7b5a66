"""Where spans and metrics are sent: what the standard OTEL_* variables ask for, as OTLP exporters.

Which signal goes where, by which protocol and how much of it, is decided here. The rest (headers, time-outs,
certificates, compression, batch sizes, resource attributes) the SDK reads from the environment itself; docs/traces.md
lists it. Unlike the SDK's default nothing is sent unless an endpoint is named or a signal's exporter is `otlp`: a
service on a PC without a collector is not to knock at its own door for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

Protocol = Literal["grpc", "http/protobuf"]
Exporter = Literal["otlp", "none"]
SamplerName = Literal[
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
]

_DEFAULT_ENDPOINTS: Final = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}


@dataclass(frozen=True, slots=True)
class Signal:
    """Where one signal goes. `endpoint` is whole: of HTTP with its path."""

    exporter: Exporter = "none"
    endpoint: str = ""
    protocol: Protocol = "http/protobuf"


@dataclass(frozen=True, slots=True)
class Export:
    """Where a service's telemetry goes, and which share of the boots is traced."""

    traces: Signal = Signal()
    metrics: Signal = Signal()
    share: float = 1.0


def signal(
    what: Literal["traces", "metrics"],
    *,
    exporter: Exporter | None,
    endpoint: str,
    own_endpoint: str,
    protocol: Protocol,
) -> Signal:
    """One signal's destination. `endpoint` is for all signals; its own comes before it.

    An endpoint for all signals is a base, to which HTTP adds the signal's path (OTLP exporter specification, "Endpoint
    URLs for OTLP/HTTP"); one of its own is taken as it stands.
    """
    if exporter == "none" or not (exporter or endpoint or own_endpoint):
        return Signal()
    base = endpoint or _DEFAULT_ENDPOINTS[protocol]
    target = own_endpoint or (base if protocol == "grpc" else f"{base.rstrip('/')}/v1/{what}")
    return Signal("otlp", target, protocol)


def share(sampler: SamplerName, ratio: float) -> float:
    """Which share of the boots a standard sampler keeps. Parents need no look: they were kept by the same rule."""
    kind = sampler.removeprefix("parentbased_")
    return {"always_on": 1.0, "always_off": 0.0}.get(kind, ratio)


def span_exporter(to: Signal) -> SpanExporter | None:
    """What sends spans there; None where nobody wants them."""
    if to.exporter == "none":
        return None
    if to.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(endpoint=to.endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter(endpoint=to.endpoint)


def metric_exporter(to: Signal) -> MetricExporter | None:
    """As `span_exporter`, for metrics."""
    if to.exporter == "none":
        return None
    if to.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

        return GrpcExporter(endpoint=to.endpoint)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

    return HttpExporter(endpoint=to.endpoint)
