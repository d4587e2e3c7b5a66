"""The waterfall of a boot: rows in order of time, gaps between them, and a bar that tells the truth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink.waterfall import Stage, lay_out, lines, stage_of, stages_of, styled

ZERO = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    return (ZERO + timedelta(seconds=seconds)).isoformat()


def record(event: str, source: str, start: float, end: float, /, **data: Any) -> dict[str, Any]:
    """A stage as GET /v1/boots/{id} gives it."""
    return {"kind": event, "source": f"/{source}/n1", "started": at(start), "ended": at(end), "data": data}


DISK: dict[str, Any] = {"image": "debian", "version": 1, "policy": "discard"}
BOOT = [
    record("boot.started", "dhcp", 0, 0, arch="bios", firmware="PXE"),
    record("boot.addressed", "dhcp", 0, 1.022, **{"pass": "firmware", "address": "10.77.0.50"}),
    record("boot.loader_sent", "tftp", 1.03, 1.45, file="boot/0199/undionly.kpxe", bytes=72_011),
    record("boot.addressed", "dhcp", 3.1, 5.2, **{"pass": "ipxe", "address": "10.77.0.50"}),
    record("boot.script_served", "tftp", 5.21, 5.213, kind="sanboot"),
    record("boot.disk_attached", "blockstore", 5.3, 5.33, initiator="firmware", session="1", **DISK),
    record(
        "boot.disk_detached",
        "blockstore",
        5.3,
        19.1,
        initiator="firmware",
        session="1",
        reason="a newer login took over",
        reads=812,
        bytes_read=24_536_000,
        writes=0,
        bytes_written=0,
        first_read=at(5.4),
        last_io=at(9.3),
    ),
    record("boot.disk_attached", "blockstore", 19.1, 19.13, initiator="os", session="2", **DISK),
]
RUNNING_FOR_DAYS = record(
    "boot.disk_detached",
    "blockstore",
    19.1,
    200_000,
    initiator="os",
    session="2",
    reason="logout",
    reads=9,
    bytes_read=4096,
    writes=3,
    bytes_written=4096,
    first_read=at(19.2),
    last_io=at(199_999),
)


def test_a_boot_reads_from_the_first_question_to_the_systems_login_at_100_columns() -> None:
    expected = """\
    start       took  who         stage                                 0 s                 19.130 s
   +0.000      0.000  dhcp        PXE asks (bios)                       █
   +0.000      1.022  dhcp        address 10.77.0.50 to firmware        █
   +1.030      0.420  tftp        loader undionly.kpxe, 70.3 KiB         █
   +1.450      1.650              idle: no request from the PC            ···
   +3.100      2.100  dhcp        address 10.77.0.50 to iPXE                ████
   +5.210      0.003  tftp        script: boot the disk                        █
   +5.300      0.030  blockstore  firmware's login: debian v1, discard         █
   +5.300     13.800  blockstore  firmware's disk session                      ▓▓▓▓▓▓▓━━━━━━━━━━━━━━
                                  812 reads, 23.4 MiB; first read 0.100 s after login; ended: a
                                  newer login took over
   +9.300      9.800              idle: no request from the PC                       ···············
  +19.100      0.030  blockstore  system's login: debian v1, discard                               █
  +19.100             blockstore  system's disk session, open                                      ▶
19.130 s to the operating system's login; 11.450 s of it idle"""
    assert lines(lay_out(stages_of(BOOT))) == expected.splitlines()


def test_time_that_passes_elsewhere_is_a_gap_also_while_a_disk_session_is_open() -> None:
    gaps = [row.span for row in lay_out(stages_of(BOOT)).rows if row.kind == "gap"]
    assert [(round(gap.start, 3), round(gap.end, 3)) for gap in gaps] == [(1.45, 3.1), (9.3, 19.1)]


def test_a_system_that_ran_for_days_does_not_squeeze_its_boot() -> None:
    waterfall = lay_out(stages_of([*BOOT, RUNNING_FOR_DAYS]))
    assert waterfall.axis == pytest.approx(1.5 * 19.13)
    assert waterfall.total == pytest.approx(19.13)
    session = waterfall.rows[-1]
    assert session.goes_on
    drawn = lines(waterfall)
    assert any("55h33m" in line and line.endswith("▶") for line in drawn)


def test_a_failed_boot_names_stage_cause_and_remedy() -> None:
    failed = record("boot.failed", "tftp", 2, 2.1, stage="script", cause="no image link", remedy="link set pc-1 IMAGE")
    drawn = lines(lay_out(stages_of([*BOOT[:3], failed])))
    text = " ".join(" ".join(drawn).split())
    assert "FAILED (script)" in text
    assert "no image link; what to do: link set pc-1 IMAGE" in text
    assert drawn[-1] == "2.100 s until it failed; 0.550 s of it idle"


def test_an_event_that_this_version_does_not_know_is_shown_by_its_name() -> None:
    stage = stage_of(record("boot.greeting", "agent", 20, 20.5, anything=1))
    assert (stage.who, stage.what, stage.kind) == ("agent", "boot.greeting", "stage")


def test_a_session_that_was_never_seen_to_end_is_shown_as_open_to_the_end_of_the_axis() -> None:
    drawn = lines(lay_out(stages_of([*BOOT[:6], BOOT[7]])))
    firmware = next(line for line in drawn if "firmware's disk session, open" in line)
    assert firmware.endswith("▶")


def test_what_an_open_session_did_is_no_idle_time() -> None:
    did = {name: BOOT[6]["data"][name] for name in ("reads", "bytes_read", "writes", "bytes_written", "first_read")}
    used = record(
        "boot.disk_used", "blockstore", 5.3, 14, initiator="firmware", session="1", last_io=at(9.3), lun=0, **did
    )
    rows = lay_out(stages_of([*BOOT[:6], used, BOOT[7]])).rows
    (session,) = [row for row in rows if row.what == "firmware's disk session, open"]
    assert session.still_open
    assert session.note == "812 reads, 23.4 MiB; first read 0.100 s after login"
    gaps = [row.span for row in rows if row.kind == "gap"]
    assert [(round(gap.start, 3), round(gap.end, 3)) for gap in gaps] == [(1.45, 3.1), (9.3, 19.1)]
    assert len(stages_of([*BOOT[:7], used])) == len(stages_of(BOOT[:7])), "once it has ended, its end tells more"


def test_a_boot_of_which_nothing_was_recorded_is_still_drawn() -> None:
    assert lines(lay_out([]))[-1] == "0.000 s nothing was recorded"


def test_a_single_instant_has_a_bar_and_an_axis() -> None:
    drawn = lines(lay_out(stages_of(BOOT[:1])))
    assert "█" in drawn[1]


def test_colour_adds_nothing_that_plain_text_does_not_say() -> None:
    waterfall = lay_out(stages_of([*BOOT, RUNNING_FOR_DAYS]))
    assert [text.plain.rstrip() for text in styled(waterfall, width=120)] == lines(waterfall, width=120)


seconds = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@st.composite
def some_stage(draw: st.DrawFn) -> Stage:
    start = draw(seconds)
    end = start + draw(seconds)
    kind: Any = draw(st.sampled_from(("stage", "session", "failure")))
    busy = None
    if kind == "session" and draw(st.booleans()):
        first = start + draw(seconds)
        busy = (ZERO + timedelta(seconds=first), ZERO + timedelta(seconds=first + draw(seconds)))
    return Stage(
        who=draw(st.text(max_size=20)),
        what=draw(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=80)),
        started=ZERO + timedelta(seconds=start),
        ended=ZERO + timedelta(seconds=end),
        kind=kind,
        busy=busy,
        note=draw(st.text(alphabet="ab ", max_size=200)),
        still_open=kind == "session" and draw(st.booleans()),
        reaches_system=draw(st.booleans()),
    )


@given(st.lists(some_stage(), max_size=12), st.integers(min_value=72, max_value=200))
def test_whatever_was_recorded_no_line_is_wider_than_asked_and_no_row_is_lost(stages: list[Stage], width: int) -> None:
    waterfall = lay_out(stages)
    assert sum(row.kind != "gap" for row in waterfall.rows) == len(stages)
    assert 0 <= waterfall.idle <= waterfall.total + 1e-6
    assert all(len(line) <= width for line in lines(waterfall, width=width))
    assert [row.span.start for row in waterfall.rows] == sorted(row.span.start for row in waterfall.rows)


@given(st.lists(some_stage(), max_size=8), st.randoms())
def test_the_order_in_which_stages_arrive_does_not_matter(stages: list[Stage], random: Any) -> None:
    shuffled = list(stages)
    random.shuffle(shuffled)
    first, second = lay_out(stages), lay_out(shuffled)
    assert (first.axis, first.total, first.idle) == (second.axis, second.total, second.idle)
    assert sorted(map(repr, first.rows)) == sorted(map(repr, second.rows))


def test_a_hello_is_a_moment_and_fills_no_gap() -> None:
    hello = record("boot.hello", "tftp", 12, 18, system="Debian GNU/Linux 12")
    rows = lay_out(stages_of([*BOOT[:7], hello])).rows
    (row,) = [row for row in rows if row.what == "the system says hello"]
    assert (row.span.start, row.span.seconds) == (18, 0)
    assert row.note == "Debian GNU/Linux 12; its kernel began 6.000 s before"
    assert [(round(gap.span.start, 3), round(gap.span.end, 3)) for gap in rows if gap.kind == "gap"][-1] == (9.3, 18.0)


@pytest.mark.parametrize(
    ("kind", "words"), [("sanboot", "boot the disk"), ("local", "boot its own disk"), ("kernel", "boot a kernel")]
)
def test_a_script_says_what_it_starts(kind: str, words: str) -> None:
    assert stage_of(record("boot.script_served", "tftp", 1, 1, kind=kind)).what == f"script: {words}"
