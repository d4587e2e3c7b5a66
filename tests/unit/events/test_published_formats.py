"""What others read our events with: CloudEvents' own SDK, and JSON Schema validators with docs/asyncapi.yaml."""

from __future__ import annotations

import json
from typing import Any, Final

import jsonschema_rs
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent

from bootlink_events import EVENTS, CloudEvent, EventKind
from bootlink_events.cloudevent import CONTENT_TYPE
from bootlink_events.docs import asyncapi
from lab.event_samples import sample

every_kind = pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.what)


@every_kind
def test_the_official_sdk_reads_every_event_and_writes_what_we_read_again(kind: EventKind) -> None:
    ours = sample(kind)
    theirs = JSONFormat().read(SdkEvent, ours.payload())  # refuses what CloudEvents 1.0 does not allow
    assert theirs.get_type() == f"bootlink.v1.{kind.what}"
    assert (theirs.get_id(), theirs.get_source(), theirs.get_subject()) == (ours.id, ours.source, ours.subject)
    assert theirs.get_time() == ours.time
    assert theirs.get_data() == ours.data
    assert theirs.get_extension("severitynumber") == ours.severity
    assert theirs.get_extension("traceparent") == ours.traceparent
    message = to_structured_event(theirs)
    assert message.headers["content-type"].startswith(CONTENT_TYPE)
    assert CloudEvent.parse(message.body) == ours


def test_the_sdk_refuses_what_is_no_cloudevent() -> None:
    """That it read all of ours says something only if there is something that it does not read."""
    told = json.loads(sample(EVENTS[0]).payload())
    for wrong in ({"id": ""}, {"time": "2026-11-24T06:00:00"}, {"Severity_Text": "x"}):
        with pytest.raises(Exception, match=r"(?i)attribute|empty|timezone"):
            JSONFormat().read(SdkEvent, json.dumps(told | wrong).encode())


def test_an_event_is_a_structured_http_message_to_the_sdk_as_a_webhook_sends_it() -> None:
    ours = sample(EVENTS[0])
    read = from_http_event(HTTPMessage({"content-type": CONTENT_TYPE}, ours.payload()))
    assert (read.get_id(), read.get_data()) == (ours.id, ours.data)


# The parts of an AsyncAPI 3.0.0 document that ours uses, as the specification's tables give them ("AsyncAPI Object" and
# those below it). The official JSON Schema is published on npm alone: `make asyncapi` fetches it and asks it.
_REFERENCE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["$ref"],
    "properties": {"$ref": {"type": "string", "pattern": "^#/"}},
    "additionalProperties": False,
}
_TEXT: Final = {"type": "string", "minLength": 1}


def _fixed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _map(of: Any, key: str = r"^[A-Za-z0-9._-]+$") -> dict[str, Any]:
    return {"type": "object", "minProperties": 1, "patternProperties": {key: of}, "additionalProperties": False}


_CHANNEL: Final = _fixed(
    ["address", "messages"],
    address=_TEXT,
    description=_TEXT,
    parameters=_map(_fixed([], description=_TEXT)),
    messages=_map(_REFERENCE),
)
_OPERATION: Final = _fixed(
    ["action", "channel"], action={"enum": ["send", "receive"]}, channel=_REFERENCE, summary=_TEXT
)
_MESSAGE: Final = _fixed(["payload"], name=_TEXT, contentType=_TEXT, summary=_TEXT, payload={"type": "object"})
_DOCUMENT: Final = _fixed(
    ["asyncapi", "info", "channels", "operations", "components"],
    asyncapi={"const": "3.0.0"},
    info=_fixed(
        ["title", "version"], title=_TEXT, version=_TEXT, description=_TEXT, license=_fixed(["name"], name=_TEXT)
    ),
    defaultContentType=_TEXT,
    channels=_map(_CHANNEL),
    operations=_map(_OPERATION),
    components=_fixed([], messages=_map(_MESSAGE), schemas=_map({"type": "object"})),
)


def test_the_asyncapi_document_has_the_structure_that_version_3_gives_it() -> None:
    document = asyncapi()
    faults = [
        f"{error.instance_path}: {error.message}"
        for error in jsonschema_rs.Draft7Validator(_DOCUMENT).iter_errors(document)
    ]
    assert faults == []
    for channel in document["channels"].values():
        asked = {part.strip("{}") for part in channel["address"].split(".") if part.startswith("{")}
        assert asked == set(channel["parameters"])
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema | {"$schema": "http://json-schema.org/draft-07/schema#"})


@every_kind
def test_every_event_is_what_the_asyncapi_document_says_of_it(kind: EventKind) -> None:
    """The payload's schema, asked by a validator that knows nothing of our models; and of another event it says no."""
    document = asyncapi()
    payload = document["components"]["messages"][kind.model.__name__]["payload"]
    validator = jsonschema_rs.Draft7Validator(payload | {"components": document["components"]})
    told = json.loads(sample(kind).payload())
    assert [error.message for error in validator.iter_errors(told)] == []
    assert not validator.is_valid(told | {"type": "bootlink.v1.something.else"})
    needed = kind.model.model_json_schema(by_alias=True)["required"][0]
    assert not validator.is_valid(told | {"data": {k: v for k, v in told["data"].items() if k != needed}})
