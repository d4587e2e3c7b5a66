"""A child's output as log lines.

Services write one JSON object per line (`BOOTLINK_LOG_FORMAT=json`); engines write text. A line longer than
LINE_LIMIT is cut there and its rest is dropped, so that a child that never ends its line costs no memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

LINE_LIMIT: Final = 16 * 1024  # bytes; a traceback in JSON is some 8 KiB
_CUT: Final = " … (cut)"

# nats-server: "[pid] 2026/11/23 06:00:00.1 [WRN] text". PostgreSQL: "2026-11-23 06:00:00.1 UTC [pid] FATAL:  text".
_NATS: Final = re.compile(r"\[(TRC|DBG|INF|WRN|ERR|FTL)\] ")
_POSTGRES: Final = re.compile(r"\] (?:DEBUG\d?|INFO|NOTICE|LOG|HINT|DETAIL|STATEMENT|WARNING|ERROR|FATAL|PANIC): ")
_LEVELS: Final = {
    "TRC": "debug",
    "DBG": "debug",
    "INF": "debug",  # an engine's everyday talk; people watch the services
    "WRN": "warning",
    "ERR": "error",
    "FTL": "error",
    "WARNING": "warning",
    "ERROR": "error",
    "FATAL": "error",
    "PANIC": "error",
}


class LineSplitter:
    """Bytes in, whole lines out."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._held = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        lines = []
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._hold(part)
            lines.append(self._take())
        self._hold(rest)
        return [line for line in lines if line]

    def end(self) -> list[str]:
        """The last line, if the output ended without a newline."""
        line = self._take()
        return [line] if line else []

    def _hold(self, part: bytes) -> None:
        room = self._limit - len(self._held)
        self._held += part[:room]
        self._overlong = self._overlong or len(part) > room

    def _take(self) -> str:
        line = self._held.decode(errors="replace").rstrip() + (_CUT if self._overlong else "")
        self._held.clear()
        self._overlong = False
        return line


@dataclass(frozen=True, slots=True)
class LogLine:
    """One log line: what happened, how bad it is, and its fields."""

    event: str
    level: str = "info"
    fields: Mapping[str, Any] = field(default_factory=dict)


_NOT_FIELDS: Final = ("event", "level", "timestamp", "service")


def parse(line: str) -> LogLine:
    """Read a line of a service or of an engine. Whatever it is, it makes a LogLine."""
    if line.startswith("{"):
        try:
            record = json.loads(line)
        except ValueError:
            return LogLine(line)
        fields = {key: value for key, value in record.items() if key not in _NOT_FIELDS}
        return LogLine(str(record.get("event", "")), str(record.get("level", "info")), fields)
    if match := _NATS.search(line):
        return LogLine(line[match.end() :], _LEVELS[match[1]])
    if match := _POSTGRES.search(line):
        severity = match[0].strip("] :")
        return LogLine(line[match.end() :].strip(), _LEVELS.get(severity, "debug"))
    return LogLine(line)
