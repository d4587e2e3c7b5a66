"""Which events somebody wants: a line of terms, the same for `bootlink events --filter` and for a webhook.

    filter   = term *( 1*blank term )            all of them hold
    term     = field operator value *( "," value )    any of these values
    operator = "=" / "!="                        and ">=" for severity
    field    = "type" / "client" / "severity" / "source" / "data." name *( "." name )
    value    = 1*character / DQUOTE *character DQUOTE   quoted where it holds a blank or a comma

`*` in a value stands for any characters. A type stands for all below it: `boot` for `boot.failed`. A client is called
by its name, or by its MAC address in any form. A field of the data that an event does not have is equal to nothing, so
`!=` holds. What is deliberately not there: brackets and "or" between terms (several filters do that), and arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from bootlink_events.cloudevent import CloudEvent
from bootlink_events.names import mac_token, normalise_mac
from bootlink_events.severity import severity_named
from bootlink_events.subjects import ALL_EVENTS, EVENTS, PREFIX

FILTER_LIMIT: Final = 1_000  # characters; kept with a webhook, and read at each event
TERMS_LIMIT: Final = 20  # terms, and values of one; each costs a comparison per event
STARS_LIMIT: Final = 4  # in one value; a pattern's cost grows with its stars

_PART: Final = re.compile(r'(?P<quoted>"[^"]*")|(?P<bare>[^\s",]+)')
_HEAD: Final = re.compile(r"(?P<field>[a-z][A-Za-z0-9_.]*)(?P<operator>!=|>=|=)")
_FIELDS: Final = "type, client, severity, source, or data.NAME such as data.image"


class FilterError(ValueError):
    """A line that is no filter. Says what is wrong and how it is written."""


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison."""

    field: str
    operator: str
    values: tuple[str, ...]
    holds: Callable[[CloudEvent], bool]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """A filter, ready to be asked. `text` is how it was written; without terms it takes every event."""

    text: str
    terms: tuple[Term, ...]

    def takes(self, event: CloudEvent) -> bool:
        """Whether this event is wanted."""
        return all(term.holds(event) for term in self.terms)

    @property
    def subject(self) -> str:
        """A NATS subject that carries all it takes, and as few others as one subject can."""
        for term in self.terms:
            if term.field == "type" and term.operator == "=" and len(term.values) == 1 and "*" not in term.values[0]:
                return f"{PREFIX}.{_short(term.values[0])}.>"
        return ALL_EVENTS


def parse_filter(text: str) -> EventFilter:
    """Read a filter. FilterError if it is none."""
    if len(text) > FILTER_LIMIT:
        raise FilterError(f"the filter is longer than {FILTER_LIMIT} characters")
    terms: list[Term] = []
    at = 0
    while (at := _skip_blanks(text, at)) < len(text):
        term, at = _read_term(text, at)
        terms.append(term)
        if len(terms) > TERMS_LIMIT:
            raise FilterError(f"the filter has more than {TERMS_LIMIT} terms; use two filters")
    return EventFilter(text.strip(), tuple(terms))


def takes_any(filters: Iterable[EventFilter], event: CloudEvent) -> bool:
    """Whether one of these filters takes the event; without any, all are taken."""
    asked = tuple(filters)
    return not asked or any(one.takes(event) for one in asked)


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _read_term(text: str, at: int) -> tuple[Term, int]:
    head = _HEAD.match(text, at)
    if head is None:
        raise FilterError(f"{text[at : at + 40]!r} is no term: write FIELD=VALUE, such as type=boot.failed")
    values: list[str] = []
    at = head.end()
    while True:
        part = _PART.match(text, at)
        if part is None:
            raise FilterError(f"{head[0]} has no value after it: write it like {head[0]}VALUE, or quote it")
        values.append(part["bare"] or part["quoted"][1:-1])
        at = part.end()
        if text[at : at + 1] != ",":
            break
        at += 1
    if at < len(text) and not text[at].isspace():
        raise FilterError(f"{text[at : at + 20]!r} cannot follow a value: put a blank between terms")
    if len(values) > TERMS_LIMIT:
        raise FilterError(f"{head[0]} has more than {TERMS_LIMIT} values")
    return _term(head["field"], head["operator"], tuple(values)), at


def _term(field: str, operator: str, values: tuple[str, ...]) -> Term:
    if operator == ">=" and field != "severity":
        raise FilterError(f"{field} has no order: >= is for severity alone; use = or !=")
    match field:
        case "severity":
            return Term(field, operator, values, _severity(operator, values))
        case "type":
            tests = [_type(value) for value in values]
        case "client":
            tests = [_client(value) for value in values]
        case "source":
            tests = [_of_source(_pattern(value)) for value in values]
        case _ if field.startswith("data.") and all(field.split(".")):
            path = tuple(field.split(".")[1:])
            tests = [_of_data(path, _pattern(value)) for value in values]
        case _:
            raise FilterError(f"there is no field {field!r}: use {_FIELDS}")
    wanted = operator == "="
    return Term(field, operator, values, lambda event: any(test(event) for test in tests) is wanted)


def _severity(operator: str, values: tuple[str, ...]) -> Callable[[CloudEvent], bool]:
    try:
        levels = [severity_named(value) for value in values]
    except ValueError as error:
        raise FilterError(str(error)) from None
    if operator == ">=":
        if len(levels) != 1:
            raise FilterError("severity>= takes one severity, such as severity>=warning")
        return lambda event: event.severity >= levels[0]
    wanted = operator == "="
    return lambda event: (event.severity in levels) is wanted


def _pattern(value: str) -> re.Pattern[str]:
    if value.count("*") > STARS_LIMIT:
        raise FilterError(f"{value!r} has more than {STARS_LIMIT} stars")
    return re.compile(".*".join(re.escape(part) for part in value.split("*")), re.DOTALL)


def _short(value: str) -> str:
    return value.removeprefix(f"{PREFIX}.").strip(".")


def _type(value: str) -> Callable[[CloudEvent], bool]:
    short = _short(value)
    pattern = re.compile(f"{_pattern(short).pattern}(\\..*)?")
    if not any(pattern.fullmatch(kind.what) for kind in EVENTS):
        raise FilterError(f"no event is called {value!r}; docs/events.md lists them, such as boot.failed or image")
    return lambda event: pattern.fullmatch(_short(event.type)) is not None


def _client(value: str) -> Callable[[CloudEvent], bool]:
    try:
        mac = normalise_mac(value)
    except ValueError as error:
        if ":" in value:  # which no name has: a MAC address that was cut short would take nothing, without a word
            raise FilterError(f"{value!r} is no client: write its name, or its MAC address whole") from error
        pattern = _pattern(value)
        return lambda event: pattern.fullmatch(str(event.data.get("client") or "")) is not None
    return lambda event: event.data.get("mac") == mac or event.subject == mac_token(mac)


def _of_source(pattern: re.Pattern[str]) -> Callable[[CloudEvent], bool]:
    return lambda event: pattern.fullmatch(event.source) is not None


def _of_data(path: tuple[str, ...], pattern: re.Pattern[str]) -> Callable[[CloudEvent], bool]:
    def holds(event: CloudEvent) -> bool:
        found: Any = event.data
        for name in path:
            if not isinstance(found, dict) or name not in found:
                return False
            found = found[name]
        return any(pattern.fullmatch(_text(one)) for one in (found if isinstance(found, list) else [found]))

    return holds


def _text(value: Any) -> str:
    """A value of JSON as it is written in a filter: true, false, null, a number, or the text itself."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
