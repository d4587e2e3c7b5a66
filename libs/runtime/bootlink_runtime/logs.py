"""Structured logs: one event name and its fields per line, for people or as JSON.

Many lines are caused by packets, and anybody on the boot LAN can send those. So of one event name a burst is written,
which a room that is switched on at once does not use up, and from then on a few lines a second; the next line that
is written says how many were left out.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from typing import Any, Final, Literal

import structlog

Logger = structlog.typing.FilteringBoundLogger


BURST: Final = 2_000  # lines of one event name at once: 500 PCs that start together make four of one each, at most
PER_SECOND: Final = 5.0  # and afterwards: some 100 MB a day under a lasting flood, which log rotation can take
QUIET_SECONDS: Final = 60.0  # between two lines that a library writes from the same template
TEMPLATES_MAX: Final = 256  # of these that are remembered; some libraries make their words anew each time


class FloodGate:
    """A processor that drops lines of an event name that comes too often. Names come from code: there are few."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: dict[str, tuple[float, float, int]] = {}  # name -> lines it may write, as of when, left out since

    def __call__(self, _: Any, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        name, now = str(line.get("event")), self._now()
        allowed, since, left_out = self._seen.get(name, (float(BURST), now, 0))
        allowed = min(float(BURST), allowed + (now - since) * PER_SECOND)
        if allowed < 1:
            self._seen[name] = (allowed, now, left_out + 1)
            raise structlog.DropEvent
        self._seen[name] = (allowed - 1, now, 0)
        if left_out:
            line["left_out_before"] = left_out
        return line


def configure(level: str, style: Literal["console", "json"]) -> None:
    """Set up this process's logs: our own by structlog, and the libraries' warnings through the same sink."""
    shared: list[Any] = [
        FloodGate(),
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any
    if style == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(sort_keys=False, default=str)
    else:
        # With rich installed structlog would show every local variable, which is long, and may hold a password.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=28, exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[LibraryLog()], force=True)


class LibraryLog(logging.Handler):
    """Hands a library's log record to structlog, so that a line of JSON never has plain text in between.

    A library that fails at the same thing again and again (an exporter whose collector is away) says so once in
    QUIET_SECONDS, and how many times it was left out in between.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._said: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()  # when, and left out since

    def emit(self, record: logging.LogRecord) -> None:
        key, now = (record.name, str(record.msg)), self._now()
        said, left_out = self._said.get(key, (-math.inf, 0))
        if now - said < QUIET_SECONDS:
            self._said[key] = (said, left_out + 1)
            return
        self._said[key] = (now, 0)
        self._said.move_to_end(key)
        if len(self._said) > TEMPLATES_MAX:
            self._said.popitem(last=False)
        more = {"left_out_before": left_out} if left_out else {}
        log = structlog.get_logger("library")
        log.log(record.levelno, "library", logger=record.name, message=record.getMessage(), **more)


def logger(service: str) -> Logger:
    """The logger of one service."""
    bound: Logger = structlog.get_logger().bind(service=service)
    return bound
