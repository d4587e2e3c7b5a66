"""What a boot led to is linked to it, in a trace of its own."""

from __future__ import annotations

from datetime import UTC, datetime

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bootlink_events import (
    BootId,
    CloudEvent,
    EventData,
    ImagePublished,
    ImageRemoved,
    ImageVersionAdded,
    WritebackCommitted,
)
from bootlink_registry.traces import trace_change
from bootlink_runtime import Telemetry

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
BOOT = BootId.mint()


def traced(data: EventData) -> list[tuple[str, list[tuple[int, int]], dict[str, object]]]:
    """Name, links and attributes of the spans that this event leads to."""
    exporter = InMemorySpanExporter()
    telemetry = Telemetry("registry", "lab", processor=SimpleSpanProcessor(exporter))
    trace_change(telemetry, CloudEvent.of(data, source="/registry/lab", at=NOW))
    found = exporter.get_finished_spans()
    telemetry.close()
    for span in found:
        assert span.parent is None
        assert span.context is not None
        assert span.context.trace_id != BOOT.trace_id
        assert span.start_time == int(NOW.timestamp()) * 10**9
    return [
        (span.name, [(link.context.trace_id, link.context.span_id) for link in span.links], dict(span.attributes or {}))
        for span in found
    ]


LINKED = [(BOOT.trace_id, BOOT.root_span_id)]


def test_a_publish_is_linked_to_the_boot_that_wrote_the_version() -> None:
    publish = ImagePublished(image="win11", version=2, channel="production", at=NOW, from_boot=BOOT, author="eva")
    assert traced(publish) == [
        (
            "image.publish",
            LINKED,
            {
                "bootlink.image.name": "win11",
                "bootlink.image.version": 2,
                "bootlink.image.channel": "production",
                "bootlink.author": "eva",
            },
        )
    ]
    ((name, links, _),) = traced(publish.model_copy(update={"rollback": True, "from_boot": None}))
    assert (name, links) == ("image.roll_back", [])


def test_a_commit_and_the_version_that_it_made_are_linked_to_the_boot() -> None:
    mac = "52:54:00:12:34:56"
    commit = WritebackCommitted(mac=mac, boot_id=BOOT, lun=0, bytes=4096, image="win11", version=2)
    added = ImageVersionAdded(image="win11", version=2, from_boot=BOOT, virtual_size=1, file_size=1, at=NOW)
    assert [(name, links) for name, links, _ in traced(commit) + traced(added)] == [
        ("writeback.commit", LINKED),
        ("image.add_version", LINKED),
    ]


def test_no_other_change_is_traced() -> None:
    assert traced(ImageRemoved(image="win11", at=NOW)) == []
