"""The IPv4 packet that carries an answer to a client without an address."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire.dhcp_frame import MAX_PAYLOAD, Heard, heard, internet_checksum, udp_datagram

ETHERNET = b"\xff" * 6 + b"\x52\x54\x00\x12\x34\x56" + b"\x08\x00"
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


@given(st.binary(max_size=MAX_PAYLOAD), st.binary(max_size=50))
def test_a_frame_is_read_as_it_was_made_whatever_pads_it(payload: bytes, padding: bytes) -> None:
    frame = ETHERNET + udp_datagram(SERVER, 67, CLIENT, 68, payload) + padding
    assert heard(frame) == Heard(ETHERNET[6:12], SERVER, 67, 68, payload)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_datagram_or_none(data: bytes) -> None:
    assert heard(data) is None or len(data) >= 42
    read = heard(ETHERNET + data)
    assert read is None or len(read.payload) <= len(data) - 28


def test_a_frame_that_was_cut_off_or_holds_something_else_is_not_read() -> None:
    frame = ETHERNET + udp_datagram(SERVER, 67, CLIENT, 68, b"hello")
    for size in range(len(frame)):
        assert heard(frame[:size]) is None
    for at, value in ((12, 0x86), (14, 0x65), (14, 0x44), (23, 6), (21, 1), (39, 3), (39, 200)):
        assert heard(frame[:at] + bytes((value,)) + frame[at + 1 :]) is None, at
