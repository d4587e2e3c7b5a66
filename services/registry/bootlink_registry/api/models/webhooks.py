"""Webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from bootlink_events import parse_filter
from bootlink_events.cloudevent import ID_LIMIT
from bootlink_events.filters import FILTER_LIMIT
from bootlink_registry.api.etags import Tagged
from bootlink_registry.api.models.base import SOME_FIELD, Answer, Wish
from bootlink_registry.names import WITHOUT_NUL, Name, Note
from bootlink_registry.webhooks.deliveries import Counts, Delivery
from bootlink_registry.webhooks.rows import Webhook
from bootlink_registry.webhooks.signing import SECRET_PATTERN, check_secret
from bootlink_registry.webhooks.targets import URL_LIMIT, URL_PATTERN, check_url

FILTERS_LIMIT: Final = 20  # of one webhook; each is asked at every event


def _check_filter(text: str) -> str:
    if "\0" in text:
        raise ValueError("a filter cannot hold a NUL character")
    return parse_filter(text).text


Url = Annotated[
    str,
    AfterValidator(check_url),
    Field(
        description="where events are sent: http or https, without user, password and fragment",
        max_length=URL_LIMIT,
        json_schema_extra={"pattern": URL_PATTERN},
    ),
]
Filters = Annotated[
    tuple[Annotated[str, AfterValidator(_check_filter), Field(max_length=FILTER_LIMIT)], ...],
    Field(
        max_length=FILTERS_LIMIT,
        description="lines of terms such as `type=boot.failed severity>=warning`: an event that one of them takes is "
        "sent; without any, all are",
    ),
]
Secret = Annotated[
    str,
    AfterValidator(check_secret),
    Field(
        description="whsec_ and the Base64 of 24 to 64 bytes; unset: one is made",
        json_schema_extra={"pattern": SECRET_PATTERN, "writeOnly": True},
    ),
]


class NewWebhook(Wish):
    name: Name
    url: Url
    filters: Filters = ()
    note: Note = ""
    secret: Secret | None = None


class WebhookChange(Wish):
    """Fields that are left out stay as they are."""

    model_config = SOME_FIELD

    url: Url = ""
    filters: Filters = ()
    note: Note = ""
    enabled: bool = Field(default=True, description="false: it is sent nothing, and what waits for it stays")


class NewSecret(Wish):
    secret: Secret | None = None


class WebhookAnswer(Tagged):
    """A webhook, without its secret: nobody can tell it a second time."""

    name: str
    url: str
    filters: tuple[str, ...]
    note: str
    enabled: bool
    problem: str = Field(description="why it was switched off, or what it answered last that was no success")
    failing_since: datetime | None = Field(description="since when it takes nothing; null while it does")
    delivered: datetime | None = Field(description="when it last took an event")
    waiting: int = Field(description="events that are still to be sent")
    dead: int = Field(description="events that were given up")
    author: str
    created: datetime

    def changeable(self) -> dict[str, Any]:
        return self.model_dump(mode="json", include={"name", "url", "filters", "note", "enabled", "created"})

    @classmethod
    def fields_of(cls, hook: Webhook, counts: Counts) -> dict[str, Any]:
        told = ("name", "url", "note", "enabled", "problem", "failing_since", "delivered", "author", "created")
        fields = {name: getattr(hook, name) for name in told}
        filters = tuple(one.text for one in hook.filters)
        return fields | {"filters": filters, "waiting": counts.waiting, "dead": counts.dead}

    @classmethod
    def of(cls, hook: Webhook, counts: Counts) -> WebhookAnswer:
        return cls(**cls.fields_of(hook, counts))


class MadeWebhook(WebhookAnswer):
    """A webhook, in the answer to its making or to a new secret."""

    secret: str = Field(description="the secret that requests are signed with; it is told this once")


class DeadEvent(Answer):
    """An event that was given up."""

    event_id: str
    event: dict[str, Any] = Field(description="the CloudEvent")
    attempts: int
    problem: str = Field(description="why the last attempt failed")
    queued: datetime
    given_up: datetime

    @classmethod
    def of(cls, delivery: Delivery, event: dict[str, Any]) -> DeadEvent:
        return cls(
            event_id=delivery.event_id,
            event=event,
            attempts=delivery.attempts,
            problem=delivery.problem,
            queued=delivery.queued,
            given_up=delivery.changed,
        )


class Resend(Wish):
    event_id: Annotated[str, Field(max_length=ID_LIMIT, pattern=WITHOUT_NUL)] | None = Field(
        default=None, description="one event; unset: all that were given up"
    )


class Resent(Answer):
    events: int = Field(description="how many are sent again")
