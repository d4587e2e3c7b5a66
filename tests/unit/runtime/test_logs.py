"""Logs: what a flood of packets may write."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog

from bootlink_runtime import logs
from bootlink_runtime.logs import BURST, PER_SECOND, QUIET_SECONDS, FloodGate, LibraryLog


class Log:
    """A gate, its clock, and the lines that came through."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.gate = FloodGate(lambda: self.now)

    def write(self, event: str) -> dict[str, Any] | None:
        try:
            return dict(self.gate(None, "info", {"event": event}))
        except structlog.DropEvent:
            return None


def test_a_room_that_starts_at_once_is_logged_whole() -> None:
    log = Log()
    assert all(log.write("addressed") == {"event": "addressed"} for _ in range(1000))


def test_a_flood_is_cut_and_the_next_line_says_how_much_was_left_out() -> None:
    log = Log()
    assert sum(log.write("name refused") is not None for _ in range(BURST + 500)) == BURST
    assert log.write("sent") == {"event": "sent"}  # other events are not touched
    log.now += 1 / PER_SECOND
    assert log.write("name refused") == {"event": "name refused", "left_out_before": 500}
    assert log.write("name refused") is None


def test_a_lasting_flood_writes_a_few_lines_a_second() -> None:
    log = Log()
    written = 0
    for _ in range(10_000):
        log.now += 0.01
        written += log.write("name refused") is not None
    assert written <= BURST + 100 * PER_SECOND


def test_the_gate_is_in_force(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BURST", 3)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("info", "json")
    try:
        for _ in range(10):
            logs.logger("test").warning("name refused")
    finally:
        structlog.reset_defaults()
        root.handlers[:], root.level = handlers, level
    assert capsys.readouterr().err.count("name refused") == 3


def test_a_library_that_fails_at_the_same_thing_says_so_once_in_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    handler = LibraryLog(lambda: now)
    log = logging.getLogger("test.exporter")
    log.addHandler(handler)
    log.propagate = False
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    try:
        for attempt in range(5):
            log.error("collector is away, retrying in %s s", attempt)
        log.error("another thing")
        now += QUIET_SECONDS
        log.error("collector is away, retrying in %s s", 32)
    finally:
        structlog.reset_defaults()
        log.removeHandler(handler)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert "another thing" in said[1]
    assert '"left_out_before": 4' in said[2]
