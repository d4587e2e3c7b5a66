"""What `bootlink events` understands by --subject and --since, and what it says of an event."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import typer

from bootlink.commands.events import Wanted, described, filters_of, json_line, parse_since, subject_of
from bootlink_events import ALL_EVENTS, BootFailed, BootId, ImagePublished, LinkChanged, Start
from bootlink_events.cloudevent import CloudEvent

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "subject"),
    [
        (None, "bootlink.v1.>"),
        ("boot", "bootlink.v1.boot.>"),
        ("boot.failed", "bootlink.v1.boot.failed.>"),
        ("boot.failed.52-54-00-12-34-56", "bootlink.v1.boot.failed.52-54-00-12-34-56"),
        ("boot.*.52-54-00-12-34-56", "bootlink.v1.boot.*.52-54-00-12-34-56"),
        ("bootlink.v1.image.>", "bootlink.v1.image.>"),
        ("boot.", "bootlink.v1.boot.>"),
    ],
)
def test_a_subject_is_understood_with_or_without_prefix_and_key(said: str | None, subject: str) -> None:
    assert subject_of(said) == subject


@pytest.mark.parametrize("said", ["a..b", "a b", "boot;x", "."])
def test_what_is_no_subject_is_refused(said: str) -> None:
    with pytest.raises(typer.BadParameter):
        subject_of(said)


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("10m", NOW - timedelta(minutes=10)),
        ("3d", NOW - timedelta(days=3)),
        ("2026-11-23T05:00Z", NOW - timedelta(hours=1)),
        ("2026-11-23T05:00+00:00", NOW - timedelta(hours=1)),
    ],
)
def test_a_time_is_so_long_ago_or_a_date(said: str, moment: datetime) -> None:
    assert parse_since(said, now=NOW) == moment


@pytest.mark.parametrize("said", ["yesterday", "10", "5y", "", "99999999999d"])
def test_what_is_no_time_is_refused(said: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_since(said, now=NOW)


def test_an_event_is_one_line_with_what_it_says() -> None:
    data = ImagePublished(image="win11", version=2, channel="test", at=NOW)
    line = described(CloudEvent.of(data, source="/registry/n1", at=NOW)).plain
    assert "image.published" in line
    assert line.endswith("image=win11  version=2  channel=test")


def test_on_a_terminal_what_does_not_fit_goes_on_below_the_events_name() -> None:
    data = BootFailed(
        mac="52:54:00:12:34:56", client="pc-07", boot_id=BootId.mint(), stage="disk", started=NOW, ended=NOW,
        cause="the image win11 is not what it was: its file was changed after it was published",
        remedy="bootlink image verify win11",
    )  # fmt: skip
    event = CloudEvent.of(data, source="/blockstore/n1", at=NOW)
    lines = described(event, 80).plain.splitlines()
    assert len(lines) > 1
    assert all(len(line) <= 80 for line in lines)
    assert all(line.startswith(" " * 14) and line[14] != " " for line in lines[1:])
    assert " ".join(" ".join(lines).split()) == " ".join(described(event).plain.split())


def test_what_lies_within_is_called_as_filters_call_it_and_nothing_empty_is_told() -> None:
    data = LinkChanged(
        scope="client", name="pc-07", image="", policy="discard", start=Start(mode="local"), at=NOW
    )  # fmt: skip
    line = described(CloudEvent.of(data, source="/registry/n1", at=NOW)).plain
    assert "start.mode=local" in line.split()
    assert "menu" not in line
    assert "{" not in line


def test_a_line_of_json_is_the_event_with_a_sequence_that_sorts_as_the_numbers_do() -> None:
    data = ImagePublished(image="win11", version=2, channel="test", at=NOW)
    event = CloudEvent.of(data, source="/registry/n1", at=NOW)
    told = json.loads(json_line(41, event))
    assert told.pop("sequence") == "0000000000000041"
    assert told == json.loads(event.payload())
    assert json.loads(json_line(9, event))["sequence"] < json.loads(json_line(10, event))["sequence"]


def test_one_filter_of_one_type_is_asked_of_nats_unless_a_subject_is_said() -> None:
    one = filters_of(["type=boot.failed"])
    assert Wanted(ALL_EVENTS, one).subject == "bootlink.v1.boot.failed.>"
    assert Wanted("bootlink.v1.boot.>", one).subject == "bootlink.v1.boot.>"
    assert Wanted(ALL_EVENTS, one + one).subject == ALL_EVENTS
    assert Wanted(ALL_EVENTS, ()).subject == ALL_EVENTS


def test_what_is_no_filter_is_refused_as_an_option() -> None:
    with pytest.raises(typer.BadParameter, match=r"docs/events\.md"):
        filters_of(["type=boot.faild"])
