"""A child's output becomes log lines, whole or byte by byte, and never without a bound."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink.supervisor.lines import LINE_LIMIT, LineSplitter, parse

OUTPUT = b'{"event": "ready"}\nplain \xc3\xa9\n\nlast'


def test_lines_come_out_the_same_whole_and_byte_by_byte() -> None:
    whole, bytewise = LineSplitter(), LineSplitter()
    expected = whole.feed(OUTPUT) + whole.end()
    found = [line for i in range(len(OUTPUT)) for line in bytewise.feed(OUTPUT[i : i + 1])] + bytewise.end()
    assert found == expected == ['{"event": "ready"}', "plain é", "last"]


@given(st.lists(st.binary(max_size=60), max_size=40))
def test_no_line_and_no_held_rest_is_longer_than_the_limit(parts: list[bytes]) -> None:
    splitter = LineSplitter(limit=32)
    lines = [line for part in parts for line in splitter.feed(part)] + splitter.end()
    assert all(len(line) <= 32 + len(" … (cut)") for line in lines)


def test_an_endless_line_is_cut_and_the_next_line_is_whole() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"x" * (10 * LINE_LIMIT)) == []
    cut, after = splitter.feed(b"yyy\nnext\n")
    assert cut == "x" * LINE_LIMIT + " … (cut)"
    assert after == "next"


def test_a_json_line_gives_event_level_and_fields() -> None:
    line = parse(json.dumps({"event": "ready", "level": "warning", "service": "tftp", "timestamp": "x", "port": 69}))
    assert (line.event, line.level, line.fields) == ("ready", "warning", {"port": 69})


@pytest.mark.parametrize(
    ("text", "event", "level"),
    [
        ("[12] 2026/11/23 06:00:00.123456 [ERR] JetStream: no space", "JetStream: no space", "error"),
        ("[12] 2026/11/23 06:00:00.123456 [INF] Server is ready", "Server is ready", "debug"),
        ("2026-11-23 06:00:00.1 UTC [77] FATAL:  lock file exists", "lock file exists", "error"),
        ("2026-11-23 06:00:00.1 UTC [77] LOG:  starting", "starting", "debug"),
        ('{"event": broken', '{"event": broken', "info"),
        ("[1, 2]", "[1, 2]", "info"),
        ("Traceback (most recent call last):", "Traceback (most recent call last):", "info"),
    ],
)
def test_any_other_line_is_an_event_of_its_own_with_the_engines_level(text: str, event: str, level: str) -> None:
    assert (parse(text).event, parse(text).level) == (event, level)
