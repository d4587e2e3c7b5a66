"""The IPv4 packet that carries an answer to a client without an address."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire.dhcp_frame import MAX_PAYLOAD, internet_checksum, udp_datagram

SERVER, CLIENT = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.50")


@given(st.binary(max_size=MAX_PAYLOAD))
def test_both_checksums_verify(payload: bytes) -> None:
    packet = udp_datagram(SERVER, 67, CLIENT, 68, payload)
    assert internet_checksum(packet[:20]) == 0
    pseudo = SERVER.packed + CLIENT.packed + struct.pack("!BBH", 0, 17, len(packet) - 20)
    assert internet_checksum(pseudo + packet[20:]) == 0
    assert packet[26:28] != b"\0\0"  # 0 would say that there is no checksum


def test_lengths_ports_and_addresses_are_where_rfc_791_and_768_put_them() -> None:
    packet = udp_datagram(SERVER, 67, CLIENT, 68, b"hello")
    assert packet[0] == 0x45
    assert struct.unpack("!H", packet[2:4]) == (33,)
    assert packet[12:20] == SERVER.packed + CLIENT.packed
    assert struct.unpack("!HHH", packet[20:26]) == (67, 68, 13)
    assert packet[28:] == b"hello"


def test_what_does_not_fit_one_frame_is_our_own_error() -> None:
    with pytest.raises(ValueError):
        udp_datagram(SERVER, 67, CLIENT, 68, bytes(MAX_PAYLOAD + 1))


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF
