"""One service's spans (see `tracing`) and metrics (see `metering`). Nothing here touches a global tracer or meter."""

from __future__ import annotations

import threading
from typing import Final

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor

from bootlink_runtime import otlp
from bootlink_runtime.metering import Meter
from bootlink_runtime.otlp import Export
from bootlink_runtime.tracing import Tracing
from bootlink_runtime.version import __version__

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
        self.meter = Meter(service, resource, otlp=otlp.metric_exporter(export.metrics))

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Send what is left. Blocks for at most about so long, whatever the collector does."""
        # A reader waits for its thread, which may be waiting for the collector: beside the spans, and no longer.
        metrics = threading.Thread(target=self.meter.close, name="metrics close", daemon=True)
        metrics.start()
        super().close(seconds)
        metrics.join(seconds)
