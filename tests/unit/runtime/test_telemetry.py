"""One boot is one trace: every stage lies under a root that the registry writes last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from bootlink_events import BootId
from bootlink_runtime import Telemetry

START = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
END = START + timedelta(seconds=2)


def spans_of(service: str, boot_id: BootId, name: str, *, root: bool = False, error: str | None = None) -> ReadableSpan:
    exporter = InMemorySpanExporter()
    telemetry = Telemetry(service, "lab", processor=SimpleSpanProcessor(exporter))
    record = telemetry.root_span if root else telemetry.boot_span
    record(boot_id, name, START, END, {"bootlink.client": "pc-07"}, error=error)
    (span,) = exporter.get_finished_spans()
    telemetry.close()
    return span


def test_spans_of_two_services_meet_under_one_root() -> None:
    boot_id = BootId.mint()
    address, disk = spans_of("dhcp", boot_id, "dhcp"), spans_of("blockstore", boot_id, "disk")
    root = spans_of("registry", boot_id, "boot", root=True)
    assert root.context is not None
    assert root.parent is None
    assert root.context.trace_id == boot_id.trace_id
    for span in (address, disk):
        assert span.context is not None
        assert span.context.trace_id == boot_id.trace_id
        assert span.parent is not None
        assert span.parent.span_id == root.context.span_id
    assert address.resource.attributes["service.name"] == "bootlink-dhcp"


def test_a_span_carries_the_stage_s_own_times() -> None:
    span = spans_of("tftp", BootId.mint(), "loader")
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == 2_000_000_000


def test_a_failed_stage_is_an_error_with_its_cause() -> None:
    span = spans_of("tftp", BootId.mint(), "script", error="no link")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no link")


def test_without_an_endpoint_nothing_is_sent_and_nothing_fails() -> None:
    telemetry = Telemetry("dhcp", "lab")
    telemetry.boot_span(BootId.mint(), "dhcp", START, END)
    telemetry.close()
