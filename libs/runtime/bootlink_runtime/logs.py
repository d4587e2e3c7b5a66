"""Structured logs: one event name and its fields per line, for people or as JSON."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog

Logger = structlog.typing.FilteringBoundLogger


def configure(level: str, style: Literal["console", "json"]) -> None:
    """Set up this process's logs: our own by structlog, and the libraries' warnings through the same sink."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any
    if style == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(sort_keys=False, default=str)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=28)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_ToStructlog()], force=True)


class _ToStructlog(logging.Handler):
    """Hands a library's log record to structlog, so that a line of JSON never has plain text in between."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger("library")
        log.log(record.levelno, "library", logger=record.name, message=record.getMessage())


def logger(service: str) -> Logger:
    """The logger of one service."""
    bound: Logger = structlog.get_logger().bind(service=service)
    return bound
