"""The chronicle: what is told of a boot, to whom it belongs, and that nothing is told twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bootlink_events import BootFailed, BootId, BootLoaderSent, BootScriptServed
from bootlink_tftp import chronicle as module
from bootlink_tftp.chronicle import SAME_BOOT_SECONDS, STRANGERS_BURST, TRANSIENT_SHOWN
from bootlink_tftp.names import ScriptName
from bootlink_tftp.scripts import Script
from bootlink_wire.tftp_transfer import Outcome
from lab.boot_plans import BOOT_ID, MAC, plan
from lab.chronicle import ChronicleRig

T0 = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SANBOOT = Script("#!ipxe\n", "sanboot")
NO_LINK = Script("#!ipxe\n", "screen", "no_link", "No link names an image.", "Link one.")
UNKNOWN = Script("#!ipxe\n", "screen", "unknown_client", "Not known.", "Wait.")


@pytest.fixture
def rig() -> ChronicleRig:
    return ChronicleRig()


def send_loader(rig: ChronicleRig) -> None:
    rig.chronicle.loader_sent(BOOT_ID, "undionly.kpxe", 74_213, "10.77.0.50", T0, T0 + SECOND)


def test_a_neighbours_loader_is_told_at_once(rig: ChronicleRig) -> None:
    rig.neighbours["10.77.0.50"] = MAC
    rig.plans[MAC] = plan()
    send_loader(rig)
    (event,) = rig.events
    assert isinstance(event, BootLoaderSent)
    assert (event.mac, event.client, event.boot_id, event.bytes) == (MAC, "pc-001", BOOT_ID, 74_213)
    assert (event.started, event.ended) == (T0, T0 + SECOND)


def test_behind_a_relay_the_loader_is_told_once_the_script_names_the_pc(rig: ChronicleRig) -> None:
    send_loader(rig)
    assert rig.events == []
    rig.chronicle.script_asked(ScriptName(MAC, BOOT_ID), BOOT_ID, "10.77.0.50")
    assert rig.kinds() == ["BootLoaderSent"]
    rig.chronicle.script_asked(ScriptName(MAC, BOOT_ID), BOOT_ID, "10.77.0.50")
    assert rig.kinds() == ["BootLoaderSent"]


def test_findings_that_wait_for_a_mac_address_are_bounded(rig: ChronicleRig) -> None:
    for _ in range(100):
        send_loader(rig)
    rig.chronicle.script_asked(ScriptName(MAC, BOOT_ID), BOOT_ID, "10.77.0.50")
    assert len(rig.events) == module.WAITING_MAX


def test_a_boot_begins_here_when_our_dhcp_was_not_asked(rig: ChronicleRig) -> None:
    boot_id = rig.chronicle.begin(MAC, "10.77.0.50", T0)
    assert rig.kinds() == ["BootStarted", "ClientSeen"]
    assert all(getattr(event, "boot_id", None) == boot_id for event in rig.events)
    assert boot_id.timestamp_ms == int(T0.timestamp() * 1000)


def test_a_known_client_is_not_reported_as_a_stranger(rig: ChronicleRig) -> None:
    rig.plans[MAC] = plan()
    rig.chronicle.begin(MAC, "10.77.0.50", T0)
    assert rig.kinds() == ["BootStarted"]


def test_a_repeated_request_is_the_same_boot_and_a_later_one_a_newer(rig: ChronicleRig) -> None:
    first = rig.chronicle.begin(MAC, "10.77.0.50", T0)
    assert rig.chronicle.begin(MAC, "10.77.0.50", T0 + SECOND) == first
    later = rig.chronicle.begin(MAC, "10.77.0.50", T0 + (SAME_BOOT_SECONDS + 1) * SECOND)
    assert later > first
    assert rig.chronicle.begin(MAC, "10.77.0.50", T0 - 3600 * SECOND) > later, "though the clock went back"


def serve(rig: ChronicleRig, script: Script) -> None:
    rig.chronicle.script_served(MAC, BOOT_ID, script, "10.77.0.50", T0, T0 + SECOND)


def test_a_screen_is_told_once_however_often_it_is_shown(rig: ChronicleRig) -> None:
    for _ in range(5):
        serve(rig, NO_LINK)
    assert rig.kinds() == ["BootScriptServed", "BootFailed"]
    served, failed = rig.events
    assert isinstance(served, BootScriptServed)
    assert isinstance(failed, BootFailed)
    assert (served.kind, served.cause) == ("screen", "no_link")
    assert (failed.stage, failed.cause, failed.remedy) == ("script", "No link names an image.", "Link one.")
    assert rig.health.counters["scripts_served_again"] == 4


def test_the_script_after_the_link_was_set_is_told(rig: ChronicleRig) -> None:
    serve(rig, NO_LINK)
    serve(rig, SANBOOT)
    assert rig.kinds() == ["BootScriptServed", "BootFailed", "BootScriptServed"]


def test_a_new_pc_has_not_failed_while_it_is_being_enrolled(rig: ChronicleRig) -> None:
    for _ in range(TRANSIENT_SHOWN - 1):
        serve(rig, UNKNOWN)
    assert rig.kinds() == ["BootScriptServed"]
    serve(rig, UNKNOWN)
    assert rig.kinds() == ["BootScriptServed", "BootFailed"]


@pytest.mark.parametrize(("failure", "words"), [("attach", "could not log in"), ("start", "win11 was attached")])
def test_what_ipxe_failed_at_is_told_from_the_scripts_name(rig: ChronicleRig, failure: str, words: str) -> None:
    rig.plans[MAC] = plan()
    for _ in range(3):
        rig.chronicle.script_asked(ScriptName(MAC, BOOT_ID, failure), BOOT_ID, "10.77.0.50")
    (event,) = rig.events
    assert isinstance(event, BootFailed)
    assert event.stage == "disk"
    assert words in event.cause
    assert "above" not in event.cause


def test_an_invented_failure_is_not_told(rig: ChronicleRig) -> None:
    rig.chronicle.script_asked(ScriptName(MAC, BOOT_ID, "nonsense"), BOOT_ID, "10.77.0.50")
    assert rig.events == []


def test_a_loader_that_the_client_gave_up_on_is_a_failed_boot(rig: ChronicleRig) -> None:
    rig.neighbours["10.77.0.50"] = MAC
    outcome = Outcome("lost", "the client stopped acknowledging")
    rig.chronicle.not_delivered(BOOT_ID, "loader", "undionly.kpxe", outcome, peer="10.77.0.50", elapsed=10 * SECOND)
    (event,) = rig.events
    assert isinstance(event, BootFailed)
    assert (event.stage, event.cause) == ("loader", "undionly.kpxe: the client stopped acknowledging")
    assert event.duration >= 10 * SECOND


def test_the_boots_remembered_are_bounded(rig: ChronicleRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BOOTS_MAX", 10)
    for _ in range(50):
        rig.chronicle.failed(BootId.mint(), "script", "c", "r", peer="10.0.0.1", mac=MAC)
    assert len(rig.chronicle._boots) == 10


def test_the_failures_told_of_one_boot_are_bounded(rig: ChronicleRig) -> None:
    for index in range(100):
        rig.chronicle.failed(BOOT_ID, "loader", f"the loader {index} is missing", "r", peer="10.0.0.1", mac=MAC)
    assert len(rig.events) == module.TOLD_MAX


def test_made_up_mac_addresses_cannot_drown_the_events_of_a_known_pc(
    rig: ChronicleRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootlink_tftp.chronicle.time.monotonic", lambda: 1000.0)
    for n in range(2 * STRANGERS_BURST):
        rig.chronicle.begin(f"52:54:01:00:{n >> 8:02x}:{n & 255:02x}", "10.77.0.66", T0)
    assert len(rig.events) == STRANGERS_BURST
    assert rig.health.counters["events_withheld"] == 3 * STRANGERS_BURST  # each boot that begins has two
    rig.plans[MAC] = plan()
    rig.chronicle.script_served(MAC, BOOT_ID, SANBOOT, "10.77.0.50", T0, T0 + SECOND)
    assert rig.kinds()[STRANGERS_BURST:] == ["BootScriptServed"]
    monkeypatch.setattr("bootlink_tftp.chronicle.time.monotonic", lambda: 1001.0)
    rig.chronicle.begin("52:54:02:00:00:01", "10.77.0.66", T0)
    assert rig.kinds()[STRANGERS_BURST + 1 :] == ["BootStarted", "ClientSeen"]
