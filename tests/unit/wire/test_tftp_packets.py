"""The TFTP codec. Invariant: any bytes whatever decode to a packet or raise TftpMalformed, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire import tftp
from bootlink_wire.tftp import Ack, Data, Error, OptionAck, ReadRequest, TftpMalformed, WriteRequest
from lab.golden import tftp_capture

NAME = b"boot/0192f3c4-0000-7000-8000-000000000001/undionly.kpxe"
# As PROTOCOLS section 3.1 recorded them.
OVMF_PROBE = b"\0\1" + NAME + b"\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0"
IPXE = b"\0\1" + NAME + b"\0octet\0blksize\x001432\0tsize\x000\0"

PACKETS = [
    (ReadRequest(NAME), b"\0\1" + NAME + b"\0octet\0"),
    (ReadRequest(NAME, "octet", (("blksize", "1432"), ("tsize", "0"))), IPXE),
    (ReadRequest(NAME, "octet", (("tsize", "0"), ("blksize", "1468"), ("windowsize", "4"))), OVMF_PROBE),
    (WriteRequest(b"x", "netascii"), b"\0\2x\0netascii\0"),
    (Data(65535, b"\xff\0"), b"\0\3\xff\xff\xff\0"),
    (Data(1, b""), b"\0\3\0\1"),
    (Ack(0), b"\0\4\0\0"),
    (Error(1, "File not found"), b"\0\5\0\1File not found\0"),
    (OptionAck((("tsize", "74213"),)), b"\0\6tsize\x0074213\0"),
]


@pytest.mark.parametrize(("packet", "wire"), PACKETS)
def test_a_packet_is_the_same_after_a_round_trip(packet: tftp.Packet, wire: bytes) -> None:
    assert tftp.encode(packet) == wire
    assert tftp.decode(wire) == packet


@pytest.mark.parametrize(
    ("capture", "options"),
    [
        ("curl-rrq.hex", (("tsize", "0"), ("blksize", "512"), ("timeout", "6"))),
        ("busybox-rrq.hex", (("blksize", "1428"), ("tsize", "0"))),
        ("atftp-rrq.hex", (("blksize", "1428"), ("windowsize", "16"))),
        ("hpa-rrq.hex", ()),
        ("ipxe-rrq.hex", (("blksize", "1432"), ("tsize", "0"))),
    ],
)
def test_a_real_clients_request_is_read(capture: str, options: tftp.Options) -> None:
    wire = tftp_capture(capture)
    packet = tftp.decode(wire)
    assert isinstance(packet, ReadRequest)
    assert packet.filename.endswith((b"undionly.kpxe", b"52-54-00-12-34-56.ipxe"))
    assert (packet.mode, packet.options) == ("octet", options)
    assert tftp.encode(packet) == wire


@pytest.mark.parametrize("wire", [OVMF_PROBE, IPXE])
def test_a_request_cut_short_anywhere_is_a_shorter_request_or_malformed(wire: bytes) -> None:
    for length in range(len(wire)):
        try:
            packet = tftp.decode(wire[:length])
        except TftpMalformed:
            continue
        assert isinstance(packet, ReadRequest)
        assert packet.filename == NAME


def test_mode_and_option_names_are_the_same_in_upper_and_lower_case() -> None:
    assert tftp.decode(b"\0\1f\0OcTeT\0BLKSIZE\x001024\0") == ReadRequest(b"f", "octet", (("blksize", "1024"),))


def test_a_request_filled_up_with_nuls_is_read() -> None:
    assert tftp.decode(IPXE + bytes(100)) == tftp.decode(IPXE)


def test_of_a_repeated_option_the_first_holds() -> None:
    packet = tftp.decode(b"\0\1f\0octet\0blksize\x001024\0BlkSize\x008\0")
    assert packet == ReadRequest(b"f", "octet", (("blksize", "1024"),))


def test_an_error_without_its_nul_and_an_ack_with_trailing_bytes_are_read() -> None:
    assert tftp.decode(b"\0\5\0\0User aborted") == Error(0, "User aborted")
    assert tftp.decode(b"\0\4\0\7\0\0\0") == Ack(7)


def test_text_from_the_wire_is_fit_for_a_log() -> None:
    assert tftp.decode(b"\0\5\0\0a\n\x1b[2J\xff\0") == Error(0, "a??[2J?")


@pytest.mark.parametrize(
    "wire",
    [
        b"\0\1",
        b"\0\1\0octet\0",
        b"\0\1name\0",
        b"\0\1name\0octet",
        b"\0\1name\0binary\0",
        b"\0\1name\0octet\0blksize\0",
        b"\0\1name\0octet\0blksize\x00512",
        b"\0\1name\0octet\0\x00512\0",
        b"\0\1" + b"a" * 600 + b"\0octet\0",
        b"\0\3\0",
        b"\0\4\1",
        b"\0\0\0\0",
        b"\0\7\0\0",
        b"\xff\xff\xff\xff",
    ],
)
def test_a_malformed_packet_carries_the_error_to_answer_with(wire: bytes) -> None:
    with pytest.raises(TftpMalformed) as caught:
        tftp.decode(wire)
    assert caught.value.answer is not None
    assert caught.value.answer.code == tftp.ErrorCode.ILLEGAL_OPERATION
    assert isinstance(tftp.decode(tftp.encode(caught.value.answer)), Error)


@pytest.mark.parametrize("wire", [b"", b"\0", b"\0\5", b"\0\5\0"])
def test_an_error_and_a_scrap_are_never_answered_with_an_error(wire: bytes) -> None:
    with pytest.raises(TftpMalformed) as caught:
        tftp.decode(wire)
    assert caught.value.answer is None


@given(st.binary(max_size=700))
def test_any_bytes_are_a_packet_or_malformed(wire: bytes) -> None:
    try:
        packet = tftp.decode(wire)
    except TftpMalformed:
        return
    assert tftp.decode(tftp.encode(packet)) == packet


@given(st.integers(1, 6), st.lists(st.binary(max_size=40), max_size=12), st.booleans())
def test_any_strings_are_a_packet_or_malformed(opcode: int, strings: list[bytes], ended: bool) -> None:
    wire = opcode.to_bytes(2, "big") + b"\0".join(strings) + (b"\0" if ended else b"")
    try:
        packet = tftp.decode(wire)
    except TftpMalformed:
        return
    assert tftp.decode(tftp.encode(packet)) == packet
