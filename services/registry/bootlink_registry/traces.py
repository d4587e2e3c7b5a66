"""The spans of what changes in the registry because of a boot: linked to it, in traces of their own.

A version may be made of what a boot wrote, and published, weeks after that boot: its trace is closed by then. So each
is a trace with one span, and a link leads to the boot. The span begins with the change and ends when its event was
stored, from when on everybody can know it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from bootlink_events import BootId, CloudEvent, ImagePublished, ImageVersionAdded, WritebackCommitted
from bootlink_runtime import Telemetry


def trace_change(telemetry: Telemetry, event: CloudEvent) -> None:
    """Record the span of an event that was just stored, where it is one that a boot led to."""
    if not telemetry.recording:
        return
    boot: BootId | None
    match event.decode():
        case ImagePublished(from_boot=boot) as told:
            name = "image.roll_back" if told.rollback else "image.publish"
            attributes = {"bootlink.image.channel": told.channel, "bootlink.author": told.author}
        case ImageVersionAdded(from_boot=boot) as told:
            name, attributes = "image.add_version", {"bootlink.author": told.author}
        case WritebackCommitted(boot_id=boot) as told:
            name, attributes = "writeback.commit", {"bootlink.client.mac": told.mac}
        case _:
            return
    telemetry.linked_span(
        name,
        event.time,
        datetime.now(UTC),
        attributes | {"bootlink.image.name": told.image, "bootlink.image.version": told.version},
        links=[boot] if boot is not None else [],
    )
