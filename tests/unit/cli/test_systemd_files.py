"""What `bootlink install` writes: settings are changed where asked for and otherwise left; words are quoted."""

from __future__ import annotations

from pathlib import Path

from bootlink.systemd.files import Unit, unit_text, with_settings

SETTINGS = Path("/etc/bootlink/bootlink.env")


def test_a_new_settings_file_has_what_was_asked_for() -> None:
    text = with_settings("", {"BOOTLINK_DATA": "/srv/boot link", "BOOTLINK_DHCP_INTERFACE": "eth1"})
    assert text.splitlines()[1:] == ['BOOTLINK_DATA="/srv/boot link"', "BOOTLINK_DHCP_INTERFACE=eth1"]


def test_what_the_user_wrote_stays_where_it_is() -> None:
    old = "# mine\nBOOTLINK_DHCP_INTERFACE=eth0\n\n  BOOTLINK_LOG_LEVEL=debug\n# BOOTLINK_DATA=/no\n"
    new = with_settings(old, {"BOOTLINK_DHCP_INTERFACE": "eth1", "BOOTLINK_DATA": "/srv"})
    assert new == (
        "# mine\nBOOTLINK_DHCP_INTERFACE=eth1\n\n  BOOTLINK_LOG_LEVEL=debug\n# BOOTLINK_DATA=/no\nBOOTLINK_DATA=/srv\n"
    )
    assert with_settings(new, {"BOOTLINK_DATA": "/srv"}) == new


def test_a_path_is_one_word_and_nothing_in_it_is_looked_up() -> None:
    text = unit_text(Unit(("/opt/a b/py$thon%1", "-m", "bootlink", "up"), "bootlink", SETTINGS))
    assert 'ExecStart="/opt/a b/py$$thon%%1" -m bootlink up\n' in text


def test_a_user_of_its_own_has_two_capabilities_and_root_needs_none_named() -> None:
    command = ("/opt/bootlink/python", "-m", "bootlink", "up")
    own = unit_text(Unit(command, "bootlink", SETTINGS)).splitlines()
    assert "CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_NET_RAW" in own
    assert "User=bootlink" in own
    root = unit_text(Unit(command, "root", SETTINGS))
    assert "User=" not in root
    assert "Capabilit" not in root
