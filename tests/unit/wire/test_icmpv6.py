"""Router solicitations and advertisements."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire import icmpv6
from bootlink_wire.icmpv6 import Icmpv6Malformed, RouterAdvertisement, RouterSolicitation

MAC = bytes.fromhex("525400123456")
macs = st.none() | st.binary(min_size=6, max_size=6)


@given(st.builds(RouterSolicitation, macs) | st.builds(
    RouterAdvertisement, st.integers(0, 9000), st.booleans(), st.booleans(), macs
))  # fmt: skip
def test_a_message_survives_encoding_and_decoding(message: RouterSolicitation | RouterAdvertisement) -> None:
    assert icmpv6.decode(icmpv6.encode(message)) == message


@given(st.binary(max_size=100), st.sampled_from((b"", b"\x85\0", b"\x86\0", b"\x85\0\0\0\0\0\0\0")))
def test_arbitrary_bytes_raise_nothing_but_the_typed_error(data: bytes, head: bytes) -> None:
    with contextlib.suppress(Icmpv6Malformed):
        icmpv6.decode(head + data)


def test_an_advertisement_that_routes_nothing_is_these_bytes() -> None:
    assert (
        icmpv6.encode(RouterAdvertisement(source_mac=MAC)).hex()
        == "86000000" + "00000000" + "00" * 8 + "0101525400123456"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(1501),
        b"\x85\0\0\0",
        b"\x85\1" + bytes(6),
        b"\x85\0" + bytes(6) + b"\1\0",
        b"\x86\0" + bytes(14) + b"\1\2" + bytes(6),
    ],
    ids=["empty", "too long", "cut", "code", "option of no length", "option past the end"],
)
def test_a_broken_message_is_refused(data: bytes) -> None:
    with pytest.raises(Icmpv6Malformed):
        icmpv6.decode(data)


def test_other_types_are_nobodys_error() -> None:
    assert icmpv6.decode(b"\x80\0\0\0") is None
