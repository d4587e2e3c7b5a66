"""A boot told from its stages: every order of arrival tells the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_events import (
    BootAddressed,
    BootDiskAttached,
    BootDiskDetached,
    BootFailed,
    BootId,
    BootLoaderSent,
    BootScriptServed,
    BootStarted,
    Stage,
)
from bootlink_registry.boots import State, summarise

T0 = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
BOOT = BootId.mint()
MAC = "52:54:00:12:34:56"


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def told(start: float, end: float | None = None, client: str | None = "pc-07") -> dict[str, Any]:
    return {
        "mac": MAC,
        "client": client,
        "boot_id": BOOT,
        "started": at(start),
        "ended": at(start if end is None else end),
    }


STARTED = BootStarted(**told(0, client=None), arch="bios", firmware="PXE")
ADDRESSED = BootAddressed(**told(0, 2), pass_="firmware", address=IPv4Address("10.77.0.9"), boot_file="f")
LOADER = BootLoaderSent(**told(2, 3), file="f", bytes=70_000, peer="10.77.0.9")
SCRIPT = BootScriptServed(**told(4), kind="sanboot", peer="10.77.0.9")


def attached(
    start: float, session: str, initiator: Literal["firmware", "os"] = "os", *, policy: Literal["discard"] = "discard"
) -> BootDiskAttached:
    return BootDiskAttached(
        **told(start, start + 0.1),
        initiator=initiator,
        lun=0,
        image="demo",
        version=3,
        policy=policy,
        session=session,
        peer="p",
    )


def detached(start: float, end: float, session: str, initiator: Literal["firmware", "os"] = "os") -> BootDiskDetached:
    return BootDiskDetached(
        **told(start, end),
        initiator=initiator,
        lun=0,
        session=session,
        reason="logout",
        reads=1,
        bytes_read=512,
        writes=0,
        bytes_written=0,
    )


def failed(when: float) -> BootFailed:
    return BootFailed(**told(when), stage="script", cause="no link", remedy="set one")


FIRMWARE = (attached(5, "f1", "firmware"), detached(5, 9, "f1", "firmware"))
PATH = (STARTED, ADDRESSED, LOADER, SCRIPT, *FIRMWARE)


@pytest.mark.parametrize(
    ("stages", "state", "ended"),
    [
        ((STARTED,), "booting", None),
        (PATH, "booting", None),
        ((*PATH, attached(10, "o1")), "running", None),
        ((*PATH, attached(10, "o1"), detached(10, 60, "o1")), "ended", 60),
        ((*PATH, detached(10, 60, "o1")), "ended", 60),  # its login was never told
        ((*PATH, attached(10, "o1"), detached(10, 60, "o1"), attached(61, "o2")), "running", None),
        ((*PATH, detached(10, 60, "o1"), attached(61, "o2"), detached(61, 90, "o2")), "ended", 90),
        ((*PATH, attached(10, "o1"), attached(11, "o2"), detached(10, 60, "o1")), "running", None),
        ((STARTED, ADDRESSED, failed(3)), "failed", 3),
        ((STARTED, failed(3), BootScriptServed(**told(3.5), kind="screen", cause="no link", peer="p")), "failed", 3),
        ((STARTED, failed(3), failed(8)), "failed", 8),
        ((STARTED, failed(3), BootScriptServed(**told(9), kind="sanboot", peer="p")), "booting", None),
        ((STARTED, failed(3), attached(10, "o1")), "running", None),
    ],
)
def test_what_became_of_a_boot(stages: tuple[Stage, ...], state: State, ended: float | None) -> None:
    summary = summarise(stages)
    assert (summary.state, summary.ended) == (state, None if ended is None else at(ended))
    assert summary.over == (ended is not None)


def test_a_boot_is_told_with_all_that_is_known() -> None:
    summary = summarise((*PATH, attached(10, "o1")))
    assert (summary.started, summary.client, summary.arch, summary.firmware) == (T0, "pc-07", "bios", "PXE")
    assert (summary.address, summary.image, summary.version, summary.policy) == ("10.77.0.9", "demo", 3, "discard")
    assert summary.os_attached == at(10.1)
    assert summary.stages == 7


def test_a_newer_boot_ends_one_whose_end_nobody_saw() -> None:
    for stages in (PATH, (*PATH, attached(10, "o1"))):
        summary = summarise(stages, newer=at(300))
        assert (summary.state, summary.ended) == ("superseded", at(300))


def test_a_newer_boot_does_not_change_how_a_boot_ended() -> None:
    assert summarise((*PATH, detached(10, 60, "o1")), newer=at(300)).ended == at(60)
    assert summarise((STARTED, failed(3)), newer=at(300)).state == "failed"


def test_a_boot_never_ends_before_it_began() -> None:
    assert summarise((attached(10, "o1"),), newer=at(1)).ended == at(10)


def test_a_failure_that_was_overcome_is_not_told_as_the_outcome() -> None:
    assert summarise((STARTED, failed(3))).failure is not None
    assert summarise((STARTED, failed(3), attached(10, "o1"))).failure is None


ALL = (*PATH, failed(3), attached(10, "o1"), detached(10, 60, "o1"), attached(61, "o2"), detached(61, 90, "o2"))


def test_a_boot_is_told_by_the_disk_that_it_booted_and_not_by_its_further_ones() -> None:
    games = attached(5, "s").model_copy(update={"lun": 1, "image": "games", "version": 9})
    for stages in ([attached(5, "s"), games], [games, attached(5, "s")]):
        summary = summarise([STARTED, *stages])
        assert (summary.image, summary.version) == ("demo", 3)


@given(st.permutations(ALL))
def test_any_order_of_arrival_tells_the_same(stages: list[Stage]) -> None:
    assert summarise(stages) == summarise(ALL)


@given(st.permutations(ALL), st.integers(1, len(ALL)))
def test_any_part_of_a_boot_can_be_told(stages: list[Stage], count: int) -> None:
    summary = summarise(stages[:count])
    assert summary.stages == count
    assert summary.ended is None or summary.ended >= summary.started
