"""Filters of events: what each term takes, what is none, and that no line of text breaks the reader."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_events import (
    ALL_EVENTS,
    BootFailed,
    BootId,
    CloudEvent,
    DhcpForeignServer,
    FilterError,
    JobChanged,
    LinkChanged,
    Severity,
    parse_filter,
    takes_any,
)
from bootlink_events.filters import FILTER_LIMIT, STARS_LIMIT, TERMS_LIMIT

NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
FAILED = CloudEvent.of(
    BootFailed(
        mac="52:54:00:12:34:56",
        client="pc-07",
        boot_id=BootId.mint(),
        started=NOW,
        ended=NOW,
        stage="disk",
        cause="no block store",
        remedy="start one",
    ),
    source="/blockstore/node-1",
)
LINK = CloudEvent.of(
    LinkChanged(scope="group", name="row-2", image="win11", policy="discard", menu=("win11", "debian"), at=NOW),
    source="/registry/node-2",
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type=boot.failed",
        "type=boot",
        "type=bootlink.v1.boot.failed",
        "type=*.failed",
        "type=link,boot",
        "type!=link",
        "client=pc-07",
        "client=pc-*",
        "client=pc-06,pc-07",
        "client=52:54:00:12:34:56",
        "client=5254.0012.3456",
        "client!=pc-08",
        "severity=error",
        "severity>=warning",
        "severity>=error",
        "severity!=info",
        "source=/blockstore/*",
        "data.stage=disk",
        'data.cause="no block store"',
        "data.cause=*block*",
        "data.image!=win11",
        "  type=boot   client=pc-07\tseverity>=info ",
    ],
)
def test_a_filter_takes_what_it_names(text: str) -> None:
    assert parse_filter(text).takes(FAILED)


@pytest.mark.parametrize(
    "text",
    [
        "type=boot.started",
        "type=link.changed",
        "type!=boot",
        "client=pc-0",
        "client=pc-08",
        "client=52:54:00:12:34:57",
        "severity=info,warn",
        "source=/blockstore",
        "data.image=*",
        "data.stage=dis",
        "data.stage.deeper=disk",
        "type=boot client=pc-08",
    ],
)
def test_a_filter_takes_nothing_else(text: str) -> None:
    assert not parse_filter(text).takes(FAILED)


def test_values_of_the_data_are_written_as_json_writes_them_and_one_of_a_list_is_enough() -> None:
    for text in ("data.removed=false", "data.lun=0", "data.channel=null", "data.menu=debian", "client!=pc-07"):
        assert parse_filter(text).takes(LINK), text
    assert not parse_filter("data.menu=suse").takes(LINK)


def test_of_several_filters_any_takes_an_event_and_without_one_all_are_taken() -> None:
    filters = [parse_filter("type=link"), parse_filter("severity=error")]
    assert takes_any(filters, FAILED)
    assert takes_any(filters, LINK)
    assert not takes_any(filters[:1], FAILED)
    assert takes_any([], FAILED)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("boot.failed", "write FIELD=VALUE"),
        ("type", "write FIELD=VALUE"),
        ("type=", "has no value"),
        ("type=boot,", "has no value"),
        ('client="pc', "has no value"),
        ("type=boot.faild", "docs/events.md"),
        ("colour=blue", "use type, client"),
        ("data.=x", "use type, client"),
        ("data..a=x", "use type, client"),
        ("client>=pc-07", "severity alone"),
        ("severity=loud", "say info, warning or error"),
        ("client=52:54:00:12:34", "its MAC address whole"),
        ("severity>=info,error", "takes one"),
        ('client="a"b', "put a blank"),
        ("client=" + "*" * (STARS_LIMIT + 1), "stars"),
        ("client=" + ",".join(["x"] * (TERMS_LIMIT + 1)), "values"),
        ("client=x " * (TERMS_LIMIT + 1), "use two filters"),
        ("client=" + "x" * FILTER_LIMIT, "longer than"),
    ],
)
def test_what_is_no_filter_is_refused_with_what_to_do(text: str, why: str) -> None:
    with pytest.raises(FilterError, match=why):
        parse_filter(text)


@given(st.text(alphabet=st.sampled_from('type=client!>,"*. \n\tdataseverity\x00é'), max_size=80))
def test_any_text_is_a_filter_that_can_be_asked_or_no_filter(text: str) -> None:
    """The one invariant: FilterError or an answer, and what was read reads the same again."""
    try:
        found = parse_filter(text)
    except FilterError:
        return
    assert parse_filter(found.text).takes(FAILED) == found.takes(FAILED)


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("type=boot", "bootlink.v1.boot.>"),
        ("client=pc-07 type=boot.failed", "bootlink.v1.boot.failed.>"),
        ("type=boot,link", ALL_EVENTS),
        ("type!=boot", ALL_EVENTS),
        ("type=*.failed", ALL_EVENTS),
        ("", ALL_EVENTS),
    ],
)
def test_a_filter_of_one_type_asks_nats_for_that_alone(text: str, subject: str) -> None:
    assert parse_filter(text).subject == subject


def test_the_severity_is_that_of_the_table_and_may_depend_on_what_happened() -> None:
    assert (FAILED.severitytext, FAILED.severitynumber) == ("ERROR", 17)
    assert LINK.severity == Severity.INFO

    def foreign(*, expected: bool) -> int:
        heard = {"server": "10.0.0.1", "interface": "eth1", "addresses": True, "boot_files": False, "at": NOW}
        return CloudEvent.of(DhcpForeignServer(**heard, expected=expected), source="/dhcp/a").severity

    def job(state: str) -> int:
        return CloudEvent.of(
            JobChanged.model_validate({"id": BootId.mint(), "kind": "x", "subject": "y", "state": state, "at": NOW}),
            source="/registry/a",
        ).severity

    assert (foreign(expected=False), foreign(expected=True)) == (Severity.WARN, Severity.INFO)
    assert (job("failed"), job("done")) == (Severity.ERROR, Severity.INFO)
    without = FAILED.model_copy(update={"severitynumber": None, "severitytext": None})
    assert without.severity == Severity.INFO
