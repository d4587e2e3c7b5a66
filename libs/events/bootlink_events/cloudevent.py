"""The envelope of an event: CloudEvents 1.0, structured mode, JSON.

Structured mode keeps the whole event in the payload, so that it reads the same in a stream, a table and a web
hook. The envelope's `id` is also the NATS message id, by which JetStream drops repeats and consumers stay
idempotent. `traceparent` (CloudEvents' distributed tracing extension, W3C Trace Context) is repeated as a header.
`severitytext` and `severitynumber` are CloudEvents' severity extension.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from bootlink_events.bootid import BootId
from bootlink_events.models import EventData
from bootlink_events.severity import HIGHEST, LOWEST, Severity
from bootlink_events.subjects import kind_named, kind_of

CONTENT_TYPE: Final = "application/cloudevents+json"
ID_LIMIT: Final = 200  # characters; ours have 36
ID_PATTERN: Final = r"^[!-~]+$"  # what can be a key of a row, and a header of a request
_SAMPLED: Final = "01"  # trace flags, W3C Trace Context, section 3.2.2.5


class UnreadableEvent(ValueError):
    """A message that is no event of ours. Says why."""


class CloudEvent(BaseModel):
    """One event as it travels."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(
        description="unique; a repeat of the same event has the same id", max_length=ID_LIMIT, pattern=ID_PATTERN
    )
    source: str = Field(description="the service and node that saw it, such as /dhcp/server-1")
    type: str
    subject: str = Field(description="the key: the client's token, or the image's or link's name")
    time: AwareDatetime
    datacontenttype: Literal["application/json"] = "application/json"
    traceparent: str | None = None
    severitytext: str | None = Field(default=None, description="INFO, WARN or ERROR")
    severitynumber: int | None = Field(
        default=None, ge=LOWEST, le=HIGHEST, description="9, 13 or 17: as OpenTelemetry counts them"
    )
    data: dict[str, Any]

    @classmethod
    def of(cls, data: EventData, *, source: str, at: datetime | None = None) -> CloudEvent:
        """Wrap `data`, which just happened at `source`."""
        kind = kind_of(data)
        boot_id = getattr(data, "boot_id", None)
        severity = kind.severity(data)
        return cls(
            id=str(BootId.mint()),
            source=source,
            type=kind.type,
            subject=kind.key(data),
            time=at or datetime.now(UTC),
            traceparent=traceparent(boot_id) if boot_id is not None else None,
            severitytext=severity.name,
            severitynumber=severity.value,
            data=data.model_dump(mode="json", by_alias=True),
        )

    @property
    def nats_subject(self) -> str:
        return f"{self.type}.{self.subject}"

    @property
    def severity(self) -> int:
        """Its severity's number; of an event that names none, as earlier versions' did, that of what it is least."""
        return self.severitynumber or Severity.INFO

    def payload(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()

    def decode(self) -> EventData | None:
        """The event's data as its model; None for a type this version does not know. Raises UnreadableEvent."""
        kind = kind_named(self.type)
        if kind is None:
            return None
        try:
            return kind.model.model_validate(self.data)
        except ValidationError as error:
            raise UnreadableEvent(f"event {self.id} of type {self.type}: {error}") from error

    @classmethod
    def parse(cls, payload: bytes) -> CloudEvent:
        """Read a message's payload. Raises UnreadableEvent."""
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            raise UnreadableEvent(f"not a CloudEvent: {error}") from error


def traceparent(boot_id: BootId) -> str:
    """The W3C trace parent that places something under the root span of a boot."""
    return f"00-{boot_id.trace_id:032x}-{boot_id.root_span_id:016x}-{_SAMPLED}"
