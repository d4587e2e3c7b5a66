"""The magic packet of Wake-on-LAN."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire import wake
from bootlink_wire.wake import WakeMalformed

MAC = bytes.fromhex("525400123456")


def test_it_is_six_octets_of_ones_and_the_address_sixteen_times() -> None:
    assert wake.encode(MAC) == bytes.fromhex("ffffffffffff" + "525400123456" * 16)


@given(st.binary(max_size=20), st.binary(min_size=6, max_size=6), st.binary(max_size=20))
def test_it_is_found_anywhere_in_a_frame(before: bytes, mac: bytes, behind: bytes) -> None:
    found = wake.decode(before + wake.encode(mac) + behind)
    # An address of ones reads as more of the ones before it; no card has that one.
    assert found == mac or mac[0] == 0xFF or before.endswith(b"\xff")


@given(st.binary(max_size=120))
def test_arbitrary_bytes_raise_nothing_but_the_typed_error(data: bytes) -> None:
    with contextlib.suppress(WakeMalformed):
        wake.decode(data)


@pytest.mark.parametrize("size", [0, 5, 7])
def test_what_is_no_address_is_refused(size: int) -> None:
    with pytest.raises(WakeMalformed):
        wake.encode(bytes(size))


def test_a_packet_that_is_cut_short_wakes_nobody() -> None:
    packet = wake.encode(MAC)
    for length in range(len(packet)):
        with pytest.raises(WakeMalformed):
            wake.decode(packet[:length])
