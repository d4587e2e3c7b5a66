"""How much an event matters: CloudEvents' severity extension, with the numbers of OpenTelemetry's log data model."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Severity(IntEnum):
    """`severitynumber` of an event; its name is `severitytext`. OpenTelemetry's range is 1 to 24."""

    INFO = 9
    WARN = 13
    ERROR = 17


LOWEST: Final = 1
HIGHEST: Final = 24
_SAID: Final = {"info": Severity.INFO, "warn": Severity.WARN, "warning": Severity.WARN, "error": Severity.ERROR}


def severity_named(text: str) -> Severity:
    """The severity that a person calls so. ValueError for any other word."""
    try:
        return _SAID[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is no severity: say info, warning or error") from None
