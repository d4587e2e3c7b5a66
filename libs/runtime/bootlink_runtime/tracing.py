"""Spans. One boot is one trace.

The boot id is the trace id, and its low 64 bits are the id of the root span (see `BootId`). So each service places
its spans under the root without asking anybody, and the registry writes the root itself once the boot has arrived.
Nothing here touches a global tracer. A span is recorded when it is over; whoever records it never waits: it goes into a
bounded queue, from which a thread sends it.

Which boots are sampled is read from the boot id, too, so that services agree without a word. OpenTelemetry's own
ratio sampler compares the low 64 bits of the trace id, of which a UUID's variant fixes the highest two: with it a
ratio of a half would drop every boot. Ours takes the low 56 bits, which are random in a UUIDv7 as W3C Trace Context
(level 2) asks, and keeps the same boots that a collector's consistent sampler would.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.trace.propagation import set_span_in_context
from opentelemetry.util.types import Attributes as AnyAttributes

from bootlink_events import BootId
from bootlink_runtime.version import __version__

Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["server", "internal"]

_KINDS: Final = {"server": SpanKind.SERVER, "internal": SpanKind.INTERNAL}
BOOT_ID: Final = "bootlink.boot.id"
_RANDOM_BITS: Final = 56  # of a trace id, the rightmost: W3C Trace Context level 2, section 3.2.2.3.1
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class BootSampler(Sampler):
    """Keeps this share of all boots, 0 to 1: each boot in every service, or in none."""

    def __init__(self, share: float) -> None:
        self.share = min(max(share, 0.0), 1.0)
        self._threshold = round((1 - self.share) * (1 << _RANDOM_BITS))

    def keeps(self, trace_id: int) -> bool:
        """Whether spans of this trace are recorded."""
        return trace_id & ((1 << _RANDOM_BITS) - 1) >= self._threshold

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: AnyAttributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """By the trace id alone: a parent of ours was kept by the same rule."""
        if self.keeps(trace_id):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        return f"BootSampler{{{self.share}}}"


class _BootIds(RandomIdGenerator):
    """Random ids, except for the next span while `root` names a boot. Used on one thread only."""

    root: BootId | None = None

    def generate_trace_id(self) -> int:
        return self.root.trace_id if self.root else super().generate_trace_id()

    def generate_span_id(self) -> int:
        return self.root.root_span_id if self.root else super().generate_span_id()


class Tracing:
    """One service's tracer. For use by one thread."""

    def __init__(
        self,
        scope: str,
        resource: Resource,
        *,
        share: float = 1.0,
        exporter: SpanExporter | None = None,
        processor: SpanProcessor | None = None,
    ) -> None:
        """Spans go to `exporter`, sent by a thread in batches, and to `processor`; without both they cost nothing."""
        self._ids = _BootIds()
        self._exporter = exporter
        self._provider = TracerProvider(
            BootSampler(share), resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        if exporter is not None:
            # The batch processor holds at most OTEL_BSP_MAX_QUEUE_SIZE spans (2,048) and drops the oldest beyond.
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        if processor is not None:
            self._provider.add_span_processor(processor)
        self.recording = (exporter is not None or processor is not None) and share > 0
        self._tracer = self._provider.get_tracer(scope, __version__)

    def boot_span(
        self,
        boot_id: BootId,
        name: str,
        started: datetime,
        ended: datetime,
        attributes: Attributes | None = None,
        *,
        kind: Kind = "server",
        error: str | None = None,
        links: Sequence[BootId] = (),
    ) -> None:
        """Record a finished stage of a boot, as a child of the boot's root span. `links`: other boots it concerns."""
        if self.recording:
            parent = set_span_in_context(NonRecordingSpan(_root_of(boot_id)), Context())
            self._record(parent, name, started, ended, _of(boot_id, attributes), kind, error, links)

    def linked_span(
        self,
        name: str,
        started: datetime,
        ended: datetime,
        attributes: Attributes | None = None,
        *,
        links: Sequence[BootId],
        kind: Kind = "internal",
        error: str | None = None,
    ) -> None:
        """Record something that comes long after a boot, or concerns several: a trace of its own, linked to them."""
        if self.recording:
            self._record(Context(), name, started, ended, attributes, kind, error, links)

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
        """Record the root span of a boot. The registry alone does this, once per boot."""
        if not self.recording:
            return
        self._ids.root = boot_id
        try:
            self._record(Context(), name, started, ended, _of(boot_id, attributes), "internal", error, ())
        finally:
            self._ids.root = None

    def _record(
        self,
        context: Context,
        name: str,
        started: datetime,
        ended: datetime,
        attributes: Attributes | None,
        kind: Kind,
        error: str | None,
        links: Sequence[BootId],
    ) -> None:
        span = self._tracer.start_span(
            name,
            context,
            kind=_KINDS[kind],
            attributes=dict(attributes or {}),
            links=[Link(_root_of(boot_id)) for boot_id in links],
            start_time=_nanoseconds(started),
        )
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end_time=_nanoseconds(max(started, ended)))

    def close(self, seconds: float) -> None:
        """Send what is left, for at most so long. What a collector does not take by then is lost."""
        # The SDK's own shutdown waits for 30 s, and its flush for as long as the exporter likes.
        closing = threading.Thread(target=self._provider.shutdown, name="traces close", daemon=True)
        closing.start()
        closing.join(seconds)
        if closing.is_alive() and self._exporter is not None:
            self._exporter.shutdown()  # gives up waiting for its next try


def _root_of(boot_id: BootId) -> SpanContext:
    return SpanContext(boot_id.trace_id, boot_id.root_span_id, is_remote=True, trace_flags=_SAMPLED)


def _of(boot_id: BootId, attributes: Attributes | None) -> Attributes:
    """The boot id once more as `bootlink boot show` takes it."""
    return {BOOT_ID: str(boot_id), **(attributes or {})}


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000
