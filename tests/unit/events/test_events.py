"""Events are the contract: one table, frozen models, an envelope that every consumer can read."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from bootlink_events import (
    EVENTS,
    BootAddressed,
    BootId,
    ClientSeen,
    CloudEvent,
    ImagePublished,
    LinkChanged,
    UnreadableEvent,
    kind_of,
    models,
)
from bootlink_events.docs import asyncapi, pages

MAC = "52:54:00:12:34:56"
DOCS = Path(__file__).parents[3] / "docs"


def addressed() -> BootAddressed:
    now = datetime.now(UTC)
    return BootAddressed(
        mac=MAC,
        boot_id=BootId.mint(),
        started=now,
        ended=now,
        pass_="ipxe",
        address=IPv4Address("10.77.0.100"),
        boot_file="undionly.kpxe",
    )


def test_every_event_model_has_one_row_in_the_table() -> None:
    abstract = {models.EventData, models.Stage, models.DiskIo, models.Writeback}
    concrete = {
        model
        for model in vars(models).values()
        if isinstance(model, type) and issubclass(model, models.EventData) and model not in abstract
    }
    assert {kind.model for kind in EVENTS} == concrete
    assert len({kind.what for kind in EVENTS}) == len(EVENTS)


def test_an_event_comes_out_of_its_envelope_as_it_went_in() -> None:
    data = addressed()
    event = CloudEvent.of(data, source="/dhcp/server-1")
    assert CloudEvent.parse(event.payload()).decode() == data
    assert event.nats_subject == "bootlink.v1.boot.addressed.52-54-00-12-34-56"
    assert b'"pass":"ipxe"' in event.payload()


def test_the_envelope_is_a_structured_cloudevent_1_0() -> None:
    event = CloudEvent.of(addressed(), source="/dhcp/server-1")
    attributes = yaml.safe_load(event.payload())
    assert attributes["specversion"] == "1.0"
    assert {"id", "source", "type", "subject", "time", "datacontenttype", "data"} <= set(attributes)
    assert all(name.isalnum() and name.islower() for name in attributes)  # CloudEvents 1.0, section 3.1


def test_the_trace_parent_places_an_event_under_its_boot() -> None:
    data = addressed()
    version, trace, span, flags = str(CloudEvent.of(data, source="/x").traceparent).split("-")
    assert (version, flags) == ("00", "01")
    assert int(trace, 16) == data.boot_id.trace_id
    assert int(span, 16) == data.boot_id.root_span_id


def test_an_event_that_is_about_no_boot_has_no_trace_parent() -> None:
    published = ImagePublished(image="win11", version=2, channel="production", at=datetime.now(UTC))
    event = CloudEvent.of(published, source="/registry/a")
    assert event.traceparent is None
    assert event.nats_subject == "bootlink.v1.image.published.win11"


def test_a_link_is_keyed_by_its_scope_and_name() -> None:
    link = LinkChanged(scope="group", name="row 2", image="win11", policy="discard", at=datetime.now(UTC))
    assert kind_of(link).subject(link) == "bootlink.v1.link.changed.group-row-2"


def test_an_event_of_a_newer_version_is_passed_over_and_not_an_error() -> None:
    event = CloudEvent.of(ClientSeen(mac=MAC, boot_id=BootId.mint()), source="/x")
    assert event.model_copy(update={"type": "bootlink.v1.boot.levitated"}).decode() is None
    more = event.model_copy(update={"data": event.data | {"colour": "blue"}})
    assert isinstance(more.decode(), ClientSeen)


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff\xfe", b'{"specversion":"0.3"}', b"[]", b"null"])
def test_a_message_that_is_no_event_is_called_unreadable(payload: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        CloudEvent.parse(payload)


@pytest.mark.parametrize("name", ["", " ", "a\r\nhost: b", "a\0", "\xe9", "x" * 201])
def test_an_id_that_could_be_no_key_of_a_row_and_no_header_makes_an_event_unreadable(name: str) -> None:
    event = CloudEvent.of(ClientSeen(mac=MAC, boot_id=BootId.mint()), source="/x")
    with pytest.raises(UnreadableEvent):
        CloudEvent.parse(event.model_copy(update={"id": name}).payload())


def test_an_event_whose_data_is_wrong_is_called_unreadable() -> None:
    event = CloudEvent.of(ClientSeen(mac=MAC, boot_id=BootId.mint()), source="/x")
    with pytest.raises(UnreadableEvent):
        event.model_copy(update={"data": {"mac": "no mac"}}).decode()


def test_events_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        addressed().address = IPv4Address("10.0.0.1")  # type: ignore[misc]


def test_the_generated_pages_are_fresh() -> None:
    for name, contents in pages().items():
        assert (DOCS / name).read_text() == contents, f"docs/{name} is stale: run `make docs`"


def test_every_reference_in_the_asyncapi_document_resolves() -> None:
    document = asyncapi()

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [ref for value in node.values() for ref in references(value)]
        return [ref for value in node for ref in references(value)] if isinstance(node, list) else []

    found = references(document)
    assert len(found) >= 3 * len(EVENTS)
    for reference in found:
        node: object = document
        for part in reference.removeprefix("#/").split("/"):
            assert isinstance(node, dict)
            node = node[part]
