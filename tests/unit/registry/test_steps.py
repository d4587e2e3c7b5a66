"""The steps of a boot, and the boots that they are compared with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_events import (
    BootAddressed,
    BootDiskAttached,
    BootDiskDetached,
    BootDiskUsed,
    BootHello,
    BootId,
    BootLoaderSent,
    BootScriptServed,
    BootStarted,
    Stage,
)
from bootlink_registry.boots import summarise
from bootlink_registry.steps import WHOLE, compared, durations, milestones

T0 = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
BOOT = BootId.mint()


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def told(start: float, end: float) -> dict[str, Any]:
    mac = "52:54:00:12:34:56"
    return {"mac": mac, "client": "pc-07", "boot_id": BOOT, "started": at(start), "ended": at(end)}


ADDRESS = IPv4Address("10.77.0.9")
DISK: dict[str, Any] = {"image": "demo", "version": 1, "policy": "discard", "peer": "10.77.0.9:1024", "lun": 0}
IO: dict[str, Any] = {"lun": 0, "reads": 9, "bytes_read": 4096, "writes": 0, "bytes_written": 0}
STAGES: list[Stage] = [
    BootStarted(**told(0, 0), arch="bios", firmware="PXE"),
    BootAddressed(**told(0, 1), pass_="firmware", address=ADDRESS, boot_file="f"),
    BootLoaderSent(**told(1, 1.5), file="shim.efi", bytes=1, peer="10.77.0.9"),
    BootLoaderSent(**told(1.5, 2), file="ipxe.efi", bytes=1, peer="10.77.0.9"),
    BootAddressed(**told(3, 4), pass_="ipxe", address=ADDRESS, boot_file="f"),
    BootScriptServed(**told(4, 4.25), kind="screen", cause="unknown_client", peer="10.77.0.9"),
    BootScriptServed(**told(5, 5.25), kind="sanboot", peer="10.77.0.9"),
    BootLoaderSent(**told(5.3, 5.4), file="wimboot", bytes=1, peer="10.77.0.9"),
    BootDiskAttached(**told(5.5, 5.75), initiator="firmware", session="1", **DISK),
    BootDiskUsed(**told(5.5, 12), initiator="firmware", session="1", first_read=at(6), last_io=at(10), **IO),
    BootDiskDetached(
        **told(5.5, 99), initiator="firmware", session="1", reason="", first_read=at(6), last_io=at(10), **IO
    ),
    BootDiskAttached(**told(18, 18.5), initiator="os", session="2", **DISK),
    BootDiskDetached(**told(18, 20), initiator="os", session="2", reason="", first_read=at(19), last_io=at(20), **IO),
    BootDiskAttached(**told(20, 20.5), initiator="os", session="3", **DISK),
    BootDiskUsed(**told(20, 42), initiator="os", session="3", first_read=at(19), last_io=at(40), **IO),
    BootHello(**told(15, 39), system="Debian", peer="10.77.0.9"),
]
REACHED = {
    "address": 1.0,
    "loader": 2.0,
    "ipxe_address": 4.0,
    "script": 5.25,
    "login": 5.75,
    "first_read": 6.0,
    "system": 18.5,
    "hello": 39.0,
    "idle": 40.0,
}


def test_each_milestone_is_the_first_of_its_kind_but_the_loader_which_is_the_last_before_the_script() -> None:
    assert milestones(STAGES) == REACHED
    assert list(milestones(STAGES)) == list(REACHED), "in the order of time"
    assert milestones([]) == {}


@given(st.permutations(STAGES))
def test_the_order_of_arrival_does_not_matter(stages: list[Stage]) -> None:
    assert milestones(stages) == REACHED


def test_steps_add_up_to_the_whole() -> None:
    took = durations(REACHED)
    assert (took["address"], took["first_read"], took["system"]) == (1.0, 0.25, 12.5)
    assert sum(took.values()) == REACHED["idle"]


def test_a_boot_is_compared_with_the_one_before_it_and_with_the_middle_of_its_peers() -> None:
    last = {"address": 0.5, "login": 5.0, "system": 15.0}
    peers = [{"address": seconds, "system": 10 * seconds} for seconds in (1.0, 2.0, 90.0)]
    steps = {step.step: step for step in compared(REACHED, last, peers)}
    assert (steps["address"].last, steps["address"].peers) == (0.5, 2.0)
    assert (steps["login"].last, steps["login"].peers) == (4.5, None)
    assert (steps["loader"].last, steps["loader"].peers) == (None, None)
    assert steps[WHOLE].took == 18.5
    assert (steps[WHOLE].last, steps[WHOLE].peers) == (15.0, 20.0)


def test_a_first_boot_that_failed_early_has_nothing_to_be_compared_with() -> None:
    (only,) = compared({"address": 1.0}, None, [])
    assert (only.step, only.at, only.took, only.last, only.peers) == ("address", 1.0, 1.0, None, None)


@pytest.mark.parametrize(("count", "arrived"), [(14, False), (15, True), (16, True)])
def test_a_boot_has_arrived_when_its_system_was_idle_or_says_hello(count: int, arrived: bool) -> None:
    assert summarise(STAGES[:count]).arrived == arrived
    assert summarise([*STAGES[:14], STAGES[15]]).arrived
    assert not summarise(STAGES).over, "it runs on"
