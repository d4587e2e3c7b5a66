"""Every captured packet of tests/golden: read whole, cut off anywhere, and with more behind it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bootlink_wire import dhcp, tftp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import DhcpMalformed, MessageType
from bootlink_wire.tftp import TftpMalformed
from lab.golden import GOLDEN, dhcp_capture, tftp_capture

DHCP = sorted(path.name for path in (GOLDEN / "dhcp").iterdir())
TFTP = sorted(path.name for path in (GOLDEN / "tftp").iterdir())
KINDS = {"discover": MessageType.DISCOVER, "request": MessageType.REQUEST, "binl": MessageType.REQUEST}


@pytest.mark.parametrize("name", DHCP)
def test_a_dhcp_capture_is_what_its_name_says_and_survives_a_round_trip(name: str) -> None:
    packet = dhcp.decode(dhcp_capture(name))
    (kind,) = {message for word, message in KINDS.items() if word in Path(name).stem.split("-")}
    assert packet.message_type is kind
    assert (packet.get(opt.VENDOR_CLASS) or "").startswith("HTTPClient" if "http" in name else "PXEClient")
    assert (opt.USER_CLASS.code in packet.options) is not name.startswith("ovmf")
    assert dhcp.decode(dhcp.encode(packet)) == packet


@pytest.mark.parametrize("name", DHCP)
def test_a_dhcp_capture_cut_off_anywhere_is_malformed_or_a_packet_and_more_behind_it_is_ignored(name: str) -> None:
    whole = dhcp_capture(name)
    for length in range(len(whole)):
        try:
            dhcp.decode(whole[:length])
        except DhcpMalformed:
            continue
        assert length >= dhcp.OPTIONS_AT, "only options may be missing"
    assert dhcp.decode(whole + bytes(60)) == dhcp.decode(whole)


@pytest.mark.parametrize("name", TFTP)
def test_a_tftp_capture_is_read_and_written_as_it_was(name: str) -> None:
    whole = tftp_capture(name)
    assert tftp.encode(tftp.decode(whole)) == whole
    for length in range(len(whole)):
        try:
            tftp.decode(whole[:length])
        except TftpMalformed:
            continue


def test_what_the_walkthrough_quotes_is_there_as_it_was_captured() -> None:
    walkthrough = (GOLDEN.parents[1] / "docs" / "boot-walkthrough.md").read_text()
    named = set(re.findall(r"`([\w-]+\.hex)`", walkthrough))
    kept = {path.name: path for path in GOLDEN.rglob("*.hex")}
    assert named <= kept.keys()
    of_firmware = {name for name in kept if name.startswith("ovmf")}
    assert of_firmware <= named, "each packet of OVMF has its place there"
