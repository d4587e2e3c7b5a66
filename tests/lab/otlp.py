"""A collector as a test host: receives OTLP over gRPC and over HTTP on free ports, and keeps what came.

It speaks the published service of opentelemetry-proto by grpcio's own server, and protobuf over HTTP by Python's; what
a service sends arrives here as it would at Tempo, Jaeger or the OpenTelemetry Collector. `hang` makes it take requests
and never answer them.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import pkgutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_rpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_rpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.semconv import attributes as stable
from opentelemetry.semconv._incubating import attributes as incubating

from bootlink_events import BootId
from lab.netns import entered

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
HOST = "127.0.0.1"
STATUS_ERROR = 2  # opentelemetry.proto.trace.v1.Status.StatusCode


def _conventions() -> frozenset[str]:
    """Every attribute name of OpenTelemetry's semantic conventions, stable or not, as its own package lists them."""
    found: set[str] = set()
    for package in (stable, incubating):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            found |= {value for value in vars(importlib.import_module(module.name)).values() if isinstance(value, str)}
    return frozenset(found)


CONVENTIONS = _conventions()


@dataclass(frozen=True)
class Span:
    """A span as it came, with its resource's attributes."""

    name: str
    trace_id: int
    span_id: int
    parent: int | None
    kind: str
    start: int  # nanoseconds
    end: int
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    links: tuple[tuple[int, int], ...] = ()  # trace id and span id
    error: str | None = None

    @property
    def service(self) -> str:
        return str(self.resource["service.name"])

    @property
    def boot(self) -> str:
        return str(UUID(int=self.trace_id))


@dataclass
class Collector:
    """What came so far. `grpc` and `http` are its endpoints, as OTEL_EXPORTER_OTLP_ENDPOINT takes them."""

    spans: list[Span] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)
    headers: list[Mapping[str, str]] = field(default_factory=list)  # of each request
    protocols: set[str] = field(default_factory=set)
    hang: bool = False
    namespace: str = ""  # the network namespace whose loopback it listens on; empty: this one's
    grpc: str = ""
    http: str = ""
    _more: threading.Condition = field(default_factory=threading.Condition)
    _released: threading.Event = field(default_factory=threading.Event)
    _stops: list[Callable[[], object]] = field(default_factory=list)

    def __enter__(self) -> Collector:
        with entered(self.namespace) if self.namespace else contextlib.nullcontext():
            self._start()
        return self

    def _start(self) -> None:
        server = grpc.server(ThreadPoolExecutor(4))
        trace_rpc.add_TraceServiceServicer_to_server(_Traces(self), server)
        metrics_rpc.add_MetricsServiceServicer_to_server(_Metrics(self), server)
        self.grpc = f"http://{HOST}:{server.add_insecure_port(f'{HOST}:0')}"
        server.start()
        web = ThreadingHTTPServer((HOST, 0), type("Handler", (_Handler,), {"collector": self}))
        web.daemon_threads = True
        self.http = f"http://{HOST}:{web.server_address[1]}"
        serving = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        self._stops = [self._released.set, lambda: server.stop(0).wait(), web.shutdown, web.server_close, serving.join]

    def __exit__(self, *_: object) -> None:
        for stop in self._stops:
            stop()

    def took(self, protocol: str, headers: Iterable[tuple[str, str]], spans: list[Span], metrics: set[str]) -> None:
        """A request has come; returns when it is to be answered."""
        with self._more:
            self.protocols.add(protocol)
            self.headers.append({name.lower(): value for name, value in headers})
            self.spans += spans
            self.metrics |= metrics
            self._more.notify_all()
        if self.hang:
            self._released.wait()

    def until(self, holds: Callable[[Collector], bool], *, seconds: float = 20.0) -> None:
        """Wait until it holds. AssertionError with what there is."""
        deadline = time.monotonic() + seconds
        with self._more:
            while not holds(self):
                assert self._more.wait(deadline - time.monotonic()), sorted((s.service, s.name) for s in self.spans)

    def one_trace(self, boot_id: BootId, services: set[str], names: set[str]) -> list[Span]:
        """The spans of this boot, once these services have sent theirs and these names are among them, and the root.

        AssertionError unless they are one trace: one root, with the id that the boot id gives it, every other span is
        its child, and every attribute is OpenTelemetry's or ours.
        """
        self.until(lambda it: services <= {span.service for span in it.trace(boot_id)})
        self.until(lambda it: names <= {span.name for span in it.trace(boot_id)})
        spans = self.trace(boot_id)
        (root,) = [span for span in spans if span.parent is None]
        assert root.span_id == boot_id.root_span_id
        assert {span.service for span in spans} == services
        assert {span.parent for span in spans} == {None, root.span_id}, "each is the root's child, and none an orphan"
        assert len({span.span_id for span in spans}) == len(spans)
        assert all(span.start <= span.end for span in spans)
        assert min(span.start for span in spans) == root.start
        used = {name for span in spans for name in span.attributes}
        assert not [name for name in used if not name.startswith("bootlink.") and name not in CONVENTIONS]
        return spans

    def trace(self, boot_id: UUID) -> list[Span]:
        """The spans of one boot, in the order of their beginnings."""
        return sorted((span for span in self.spans if span.trace_id == boot_id.int), key=lambda span: span.start)


def spans_of(request: trace_pb.ExportTraceServiceRequest) -> list[Span]:
    """The spans of an export request."""
    return [
        Span(
            name=span.name,
            trace_id=int.from_bytes(span.trace_id),
            span_id=int.from_bytes(span.span_id),
            parent=int.from_bytes(span.parent_span_id) if span.parent_span_id else None,
            kind=KINDS[span.kind],
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            attributes=_attributes(span.attributes),
            resource=_attributes(of.resource.attributes),
            links=tuple((int.from_bytes(link.trace_id), int.from_bytes(link.span_id)) for link in span.links),
            error=span.status.message if span.status.code == STATUS_ERROR else None,
        )
        for of in request.resource_spans
        for scope in of.scope_spans
        for span in scope.spans
    ]


def _metrics_of(request: metrics_pb.ExportMetricsServiceRequest) -> set[str]:
    return {metric.name for of in request.resource_metrics for scope in of.scope_metrics for metric in scope.metrics}


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


class _Traces(trace_rpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the service's own name
        self._collector.took("grpc", _metadata(context), spans_of(request), set())
        return trace_pb.ExportTraceServiceResponse()


class _Metrics(metrics_rpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the service's own name
        self._collector.took("grpc", _metadata(context), [], _metrics_of(request))
        return metrics_pb.ExportMetricsServiceResponse()


def _metadata(context: grpc.ServicerContext) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in context.invocation_metadata()]


class _Handler(BaseHTTPRequestHandler):
    collector: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        spans: list[Span] = []
        metrics: set[str] = set()
        if self.path == "/v1/traces":
            spans = spans_of(trace_pb.ExportTraceServiceRequest.FromString(body))
        elif self.path == "/v1/metrics":
            metrics = _metrics_of(metrics_pb.ExportMetricsServiceRequest.FromString(body))
        else:
            self.send_error(404)
            return
        self.collector.took("http", list(self.headers.items()), spans, metrics)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing: what came is kept."""
