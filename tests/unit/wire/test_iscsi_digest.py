"""Digests: the RFC's vectors, what they cover, and PDUs in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire.iscsi_digest import NONE, Buffer, Digests, crc32c, split
from bootlink_wire.iscsi_pdu import PduError

ALL = [Digests(), Digests(header=True), Digests(data=True), Digests(header=True, data=True)]
BOTH = ALL[-1]


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (bytes(32), "aa36918a"),
        (b"\xff" * 32, "43aba862"),
        (bytes(range(32)), "4e79dd46"),
        (bytes(range(31, -1, -1)), "5cdb3f11"),
        (
            bytes.fromhex(
                "01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000"
            ),
            "563a96d9",  # a READ(10) command
        ),
    ],
    ids=["zeros", "ones", "rising", "falling", "read command"],
)
def test_rule_10_the_vectors_of_the_rfc(data: bytes, digest: str) -> None:
    """RFC 3720, appendix B.4."""
    assert crc32c(data).hex() == digest
    assert crc32c(data[:5], memoryview(data)[5:]).hex() == digest


def test_rule_10_each_digest_covers_its_segment_with_the_padding() -> None:
    nop = pdu.NopOut(itt=1, ahs=b"\0\1\0\0", data=b"hello")
    plain = nop.encode()
    head, data = plain[:52], plain[52:]
    assert data == b"hello\0\0\0"
    assert b"".join(BOTH.seal([plain])) == head + crc32c(head) + data + crc32c(data)
    assert b"".join(BOTH.seal([pdu.NopOut(itt=1).encode()])) == pdu.NopOut(itt=1).encode() + crc32c(
        pdu.NopOut(itt=1).encode()
    ), "where there is no data there is no data digest"


def test_login_pdus_have_no_digests() -> None:
    login = pdu.LoginRequest(flags=0, isid=bytes(6), itt=1, data=b"a=b\0")
    assert BOTH.seal([login.encode()]) == [login.encode()]
    assert split(login.encode(), BOTH) == ([login], b"")


SAMPLES = st.builds(
    lambda itt, data, ahs: pdu.NopOut(itt=itt, data=data, ahs=ahs),
    st.integers(0, 99),
    st.binary(max_size=40),
    st.sampled_from([b"", bytes(4), bytes(8)]),
)


@given(st.lists(SAMPLES, max_size=5), st.sampled_from(ALL), st.data())
def test_what_is_sealed_in_pieces_is_opened_whole(
    pdus: list[pdu.NopOut], digests: Digests, data: st.DataObject
) -> None:
    buffers: list[Buffer] = []
    for one in pdus:
        whole = one.encode()
        start = pdu.BHS + len(one.ahs)
        buffers.append(whole[:start])
        while start < len(whole):
            stop = data.draw(st.integers(start + 1, len(whole)))
            buffers.append(memoryview(whole)[start:stop])
            start = stop
    stream = b"".join(digests.seal(buffers))
    assert split(stream, digests) == (pdus, b"")
    assert split(stream[:-1], digests)[0] == pdus[:-1]


@given(SAMPLES, st.integers(0))
def test_any_bit_that_flips_is_seen(sample: pdu.NopOut, bit: int) -> None:
    """Any but those of the lengths, which say where the digests are: there, other bytes than a digest are compared."""
    stream = bytearray(b"".join(BOTH.seal([sample.encode()])))
    at = bit % (8 * len(stream))
    if 4 <= at // 8 < 8 or at // 8 == 0:
        return
    stream[at // 8] ^= 1 << at % 8
    with pytest.raises(PduError, match="digest"):
        split(bytes(stream), BOTH)


def test_no_digests_change_nothing() -> None:
    assert not NONE
    assert b"".join(NONE.seal([bytes(48), b"\1" + bytes(47)])) == bytes(48) + b"\1" + bytes(47)
