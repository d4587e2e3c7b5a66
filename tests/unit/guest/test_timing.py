"""Whose the seconds of a boot are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from guest.timing import lines, ours, steps

POWER_ON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def record(kind: str, started: float, ended: float, **data: Any) -> dict[str, Any]:
    return {
        "kind": f"bootlink.v1.boot.{kind}",
        "started": at(started),
        "ended": at(ended),
        "data": data,
    }


def at(seconds: float) -> str:
    return (POWER_ON + timedelta(seconds=seconds)).isoformat()


BOOT = [
    record("started", 2.0, 2.0),
    record("addressed", 2.0, 2.1, **{"pass": "firmware"}),
    record("loader_sent", 2.2, 2.3),
    record("addressed", 5.3, 5.4, **{"pass": "ipxe"}),
    record("script_served", 5.5, 5.6),
    record("disk_attached", 5.7, 5.8, initiator="firmware"),
    record("disk_attached", 20.0, 20.1, initiator="os"),
    record("disk_detached", 5.8, 9.0, first_read=at(6.0)),
    record("disk_detached", 20.0, 30.0, first_read=at(21.0)),
]


def test_the_parts_of_a_boot_reach_from_power_on_to_the_first_read() -> None:
    parts = steps(POWER_ON, BOOT)
    assert [round(part.seconds, 3) for part in parts] == [2.0, 0.1, 0.2, 3.0, 0.1, 0.2, 0.2, 0.2]


def test_neither_the_firmware_nor_the_start_of_the_loader_is_of_our_making() -> None:
    assert ours(steps(POWER_ON, BOOT)) == pytest.approx(1.0)


def test_every_part_is_told_and_ours_are_marked() -> None:
    told = lines(steps(POWER_ON, BOOT))
    assert sum(line.endswith("*") for line in told) == 6
    assert told[-1] == "6.0 s in all; * of our making: 1.0 s, where 5 s are the aim"
    assert all(len(line) < 80 for line in told)


@pytest.mark.parametrize("kind", ["started", "addressed", "loader_sent", "script_served", "disk_attached"])
def test_a_boot_without_one_of_its_stages_is_not_told(kind: str) -> None:
    with pytest.raises(ValueError, match=f"no {kind}"):
        steps(POWER_ON, [one for one in BOOT if not one["kind"].endswith(kind)])


def test_a_boot_that_read_nothing_is_not_told() -> None:
    with pytest.raises(ValueError, match="nothing was read"):
        steps(POWER_ON, BOOT[:7])
