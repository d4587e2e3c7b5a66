"""iSCSI PDUs: known bytes, every kind there and back, and a stream cut anywhere."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire.iscsi_codes import RejectReason
from bootlink_wire.iscsi_digest import split
from bootlink_wire.iscsi_inbox import Inbox
from bootlink_wire.iscsi_pdu import PDUS, Pdu, PduError, decode

# A READ(10) of 8 sectors at 0x1000 as iPXE sends it, field by field from RFC 7143, figure 13.
READ_COMMAND = bytes.fromhex(
    "01c1000000000000"  # SCSI command, F R SIMPLE; no AHS, no data
    "0000000000000000"  # LUN 0
    "18ae0013"  # task tag
    "00001000"  # expected 4,096
    "00000003"  # CmdSN
    "00000004"  # ExpStatSN
    "28000000100000000800000000000000"
)
LOGIN = (
    bytes.fromhex(
        "4387000000000017"  # immediate login request, T, operational -> full feature, 23 bytes of text
        "400027231a2b0000"  # ISID (iPXE), TSIH 0
        "18ae000000000000"  # task tag, CID
        "0000000100000000"  # CmdSN, ExpStatSN
        "00000000000000000000000000000000"
    )
    + b"InitiatorName=iqn.x:pc\x00\x00"
)

WIDTHS = {"B": 8, "H": 16, "I": 32, "Q": 64}


def samples(kind: type[Pdu]) -> st.SearchStrategy[Pdu]:
    """PDUs of one kind with any values that its fields can hold."""
    letters = "".join(c for c in kind.LAYOUT.format if c.isalpha() and c != "x")
    values: dict[str, st.SearchStrategy[object]] = {}
    names = [f.name for f in fields(kind) if f.name not in ("immediate", "ahs", "data")]
    for name, letter in zip(names, letters, strict=True):
        if letter == "s":
            size = 6 if name == "isid" else 16
            values[name] = st.binary(min_size=size, max_size=size)
        else:
            values[name] = st.integers(0, (1 << WIDTHS[letter]) - 1)
    values["data"] = st.binary(max_size=40)
    values["ahs"] = st.sampled_from([b"", b"\0\1\0\0", bytes(8)])
    values["immediate"] = st.booleans()
    return st.builds(kind, **values)


ANY_PDU = st.one_of([samples(kind) for kind in PDUS.values()])


def test_a_read_command_is_understood_field_by_field() -> None:
    command = decode(READ_COMMAND)
    assert command == pdu.ScsiCommand(
        flags=0xC1, itt=0x18AE0013, expected=4096, cmdsn=3, expstatsn=4, cdb=READ_COMMAND[32:]
    )
    assert command.encode() == READ_COMMAND


def test_a_login_request_is_understood_with_its_text() -> None:
    (login,), rest = split(LOGIN + b"trailing")
    assert rest == b"trailing"
    assert isinstance(login, pdu.LoginRequest)
    assert (login.isid.hex(), login.itt, login.cmdsn, login.immediate) == ("400027231a2b", 0x18AE0000, 1, True)
    assert login.data == b"InitiatorName=iqn.x:pc\x00"
    assert login.encode() == LOGIN


@pytest.mark.parametrize("kind", PDUS.values(), ids=lambda kind: kind.__name__)
def test_every_header_is_48_bytes(kind: type[Pdu]) -> None:
    assert kind.LAYOUT.size == pdu.BHS


@pytest.mark.parametrize(
    ("whole", "kind"),
    [
        (pdu.SCSI_COMMAND, pdu.ScsiCommand),
        (pdu.DATA_OUT, pdu.DataOut),
        (pdu.SCSI_RESPONSE, pdu.ScsiResponse),
        (pdu.DATA_IN, pdu.DataIn),
        (pdu.R2T, pdu.ReadyToTransfer),
    ],
)
def test_the_short_cut_for_a_hot_header_puts_every_field_where_the_class_does(whole: object, kind: type[Pdu]) -> None:
    header = bytes([kind.OPCODE]) + bytes(range(1, 48))
    header = header[:4] + bytes(4) + header[8:]
    values = whole.unpack(header)  # type: ignore[attr-defined]
    known = decode(header)
    names = [f.name for f in fields(known) if f.name not in ("immediate", "ahs", "data")]
    assert {getattr(known, name) for name in names} <= set(values)


@given(ANY_PDU)
def test_what_is_encoded_is_decoded(sample: Pdu) -> None:
    pdus, rest = split(sample.encode())
    assert pdus == [sample]
    assert rest == b""


@given(st.binary(min_size=48, max_size=48))
def test_any_header_is_a_pdu_or_a_named_error(header: bytes) -> None:
    if header[0] & 0x3F in PDUS:
        assert decode(header).encode()[0] == header[0] & 0x7F
    else:
        with pytest.raises(PduError) as caught:
            decode(header)
        assert caught.value.reason is RejectReason.NOT_SUPPORTED


@given(st.lists(ANY_PDU, min_size=1, max_size=4), st.data())
def test_a_stream_cut_anywhere_is_the_same_stream(pdus: list[Pdu], data: st.DataObject) -> None:
    stream = b"".join(p.encode() for p in pdus)
    inbox, found, at = Inbox(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        piece = inbox.take(stream[at : at + size])
        at += size
        if piece is None:
            continue
        whole, rest = split(piece)
        found += whole
        needed = pdu.BHS if len(rest) < pdu.BHS else pdu.BHS + sum(pdu.lengths(rest)) + (-pdu.lengths(rest)[1] & 3)
        inbox.keep(rest, 0, needed)
    assert found == pdus
    assert inbox.held == 0


def test_the_inbox_joins_a_large_pdu_once() -> None:
    inbox = Inbox()
    inbox.keep(b"", 0, 48)
    first = inbox.take(b"a" * 10)
    assert first == b"a" * 10  # nothing was held, so the chunk is given as it is
    inbox.keep(first, 0, 100)
    assert [inbox.take(b"b" * 30) for _ in range(3)] == [None, None, b"a" * 10 + b"b" * 90]


def test_data_is_padded_to_four_bytes_and_the_length_says_how_much_is_data() -> None:
    encoded = pdu.NopOut(itt=1, data=b"hello").encode()
    assert len(encoded) == 48 + 8
    assert pdu.lengths(encoded) == (0, 5)
    assert encoded[53:] == bytes(3)
