"""Hostile DHCP and TFTP. The one invariant: nothing but a drop, a NAK or an ERROR comes of it, what is held is bounded,
and nobody else's boot is worse for it (see `rigs.dhcp_packets` and `rigs.tftp_packets`)."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_dhcp import machine
from bootlink_dhcp.leases import LeaseTable
from bootlink_tftp.answers import Answers
from bootlink_wire import dhcp
from rigs import dhcp_packets, tftp_packets
from rigs.figures import Violation

SEED = 20261124


@settings(max_examples=40)
@given(st.randoms(use_true_random=False))
def test_no_talk_of_pcs_breaks_the_dhcp_machine(random: Random) -> None:
    dhcp_packets.Case(random).run()


def test_most_that_is_said_to_dhcp_is_understood_and_much_of_it_is_broken(tmp_path: Path) -> None:
    figures = dhcp_packets.run(150, SEED, tmp_path)
    assert int(figures["OFFERs"]) > 1_000
    assert int(figures["ACKs"]) > 500
    assert int(figures["NAKs"]) > 50
    assert int(figures["malformed"]) > 500
    assert int(figures["packets mutated"]) > 1_500


def test_the_rig_finds_an_address_given_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def generous(*_: Any) -> bool:
        return True

    monkeypatch.setattr(LeaseTable, "may_use", generous)
    with pytest.raises(Violation, match=r"is given|given to|is promised"):
        dhcp_packets.run(100, 1, tmp_path)


def test_the_rig_finds_a_dhcp_machine_that_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def bug(*_: object) -> None:
        raise IndexError("planted")

    monkeypatch.setattr(machine.DhcpMachine, "_decline", bug)
    with pytest.raises(Violation, match="planted"):
        dhcp_packets.run(100, 1, tmp_path)


@given(st.binary(max_size=600))
def test_any_options_are_those_of_a_dhcp_packet_or_malformed(options: bytes) -> None:
    try:
        packet = dhcp.decode(bytes((1, 1, 6)).ljust(dhcp.HEADER.size, b"\0") + dhcp.MAGIC + options)
    except dhcp.DhcpMalformed:
        return
    assert dhcp.decode(dhcp.encode(packet)).options == packet.options


@settings(max_examples=300)
@given(st.randoms(use_true_random=False))
def test_a_tftp_datagram_is_read_or_malformed_and_no_error_is_answered(random: Random) -> None:
    tftp_packets.decoded(random)


def test_tftp_serves_a_pc_whatever_others_send(tmp_path: Path) -> None:
    figures = tftp_packets.run(300, SEED, tmp_path)
    assert int(figures["datagrams mutated"]) > 200
    assert int(figures["OACKs"]) > 10
    assert int(figures["blocks"]) > 50
    assert int(figures["ERRORs"]) > 50
    assert int(figures["loaders that a PC fetched meanwhile"]) >= 1


def test_the_rig_finds_a_tftp_service_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = Answers.find

    async def bug(self: Answers, raw: bytes, **more: Any) -> Any:
        if b"%" in raw:
            raise IndexError("planted")
        return await find(self, raw, **more)

    monkeypatch.setattr(Answers, "find", bug)
    with pytest.raises(ExceptionGroup) as caught:
        tftp_packets.run(400, SEED, tmp_path)
    assert caught.group_contains(Violation, match="failed within the service")
