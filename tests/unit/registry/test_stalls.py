"""A boot that fell silent gets a cause and a remedy; one that got its disk is left alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

import pytest

from bootlink_events import (
    BootAddressed,
    BootDiskAttached,
    BootFailed,
    BootId,
    BootLoaderSent,
    BootScriptServed,
    BootStarted,
    Stage,
)
from bootlink_registry.stalls import DIAGNOSES, Step, diagnose

ZERO = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
NOW = ZERO + timedelta(minutes=5)
BOOT = BootId.mint(now_ms=int(ZERO.timestamp() * 1000))


def at(second: float) -> dict[str, Any]:
    when = ZERO + timedelta(seconds=second)
    return {"mac": "52:54:00:12:34:56", "client": "pc-07", "boot_id": BOOT, "started": when, "ended": when}


STARTED = BootStarted(**at(0), arch="bios", firmware="PXE")
ADDRESSED = BootAddressed(**at(1), pass_="firmware", address=IPv4Address("10.77.0.9"), boot_file="undionly.kpxe")
LOADED = BootLoaderSent(**at(2), file="undionly.kpxe", bytes=72_011, peer="10.77.0.9")
AGAIN = BootAddressed(**at(3), pass_="ipxe", address=IPv4Address("10.77.0.9"), boot_file="pc.ipxe")
SCRIPTED = BootScriptServed(**at(4), kind="sanboot", peer="10.77.0.9")
MENU = SCRIPTED.model_copy(update={"menu": True})
SCREEN = BootScriptServed(**at(4), kind="screen", cause="no_link", peer="10.77.0.9")
ATTACHED = BootDiskAttached(
    **at(5), initiator="firmware", lun=0, image="win11", version=1, policy="discard", session="1", peer="10.77.0.9:1"
)
FAILED = BootFailed(**at(5), stage="script", cause="no image link", remedy="set one")


@pytest.mark.parametrize(
    ("stages", "step"),
    [
        ([STARTED], "started"),
        ([STARTED, ADDRESSED], "addressed"),
        ([STARTED, ADDRESSED, LOADED], "loaded"),
        ([STARTED.model_copy(update={"arch": "uefi-x64"}), ADDRESSED, LOADED], "loaded by UEFI"),
        ([STARTED.model_copy(update={"arch": "http-x64"}), ADDRESSED, LOADED], "loaded by UEFI"),
        ([STARTED, ADDRESSED, LOADED, AGAIN], "addressed again"),
        ([STARTED, AGAIN], "addressed again"),
        ([STARTED, ADDRESSED, LOADED, AGAIN, SCRIPTED], "scripted"),
        ([STARTED, ADDRESSED, LOADED, AGAIN, SCREEN, SCRIPTED.model_copy(update=at(9))], "scripted"),
    ],
)
def test_the_step_that_did_not_come_is_named_in_whatever_order_the_others_were_heard(
    stages: list[Stage], step: Step
) -> None:
    for order in (stages, stages[::-1]):
        found = diagnose(order, now=NOW)
        assert found is not None
        assert (found.stage, found.cause, found.remedy) == (
            DIAGNOSES[step].stage,
            DIAGNOSES[step].cause,
            DIAGNOSES[step].remedy,
        )
        assert (found.boot_id, found.client) == (BOOT, "pc-07")
        assert found.started == max(stage.ended for stage in stages)
        assert found.ended == NOW


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [STARTED, ADDRESSED, LOADED, AGAIN, SCRIPTED, ATTACHED],
        [STARTED, ADDRESSED, LOADED, AGAIN, SCREEN],
        [STARTED, ADDRESSED, LOADED, AGAIN, MENU],
        [STARTED, ADDRESSED, FAILED],
        [LOADED.model_copy(update={"boot_id": BOOT}), ATTACHED],
    ],
)
def test_a_boot_that_got_its_disk_or_a_screen_or_a_cause_is_left_alone(stages: list[Stage]) -> None:
    assert diagnose(stages, now=NOW) is None


def test_a_clock_that_went_back_gives_no_failure_that_ends_before_it_starts() -> None:
    found = diagnose([STARTED], now=ZERO - timedelta(hours=1))
    assert found is not None
    assert found.started <= found.ended
