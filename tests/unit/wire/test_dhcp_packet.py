"""The DHCP codec: whole packets, byte by byte, hostile ones, and real captures."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import DhcpMalformed, DhcpPacket, MessageType
from lab.golden import dhcp_capture

MAC = bytes.fromhex("525400123456")

addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
names = st.binary(max_size=60).filter(lambda b: b"\0" not in b)
# Codes that are in no row of the table may hold anything; 43 and 175 stand for rows that are opaque.
free_codes = st.integers(1, 254).filter(lambda code: code not in opt.OPTIONS or code in (43, 175))
packets = st.builds(
    DhcpPacket,
    op=st.sampled_from((1, 2)),
    xid=st.integers(0, 2**32 - 1),
    chaddr=st.binary(max_size=16),
    htype=st.integers(0, 255),
    hops=st.integers(0, 255),
    secs=st.integers(0, 65535),
    flags=st.integers(0, 65535),
    ciaddr=addresses,
    yiaddr=addresses,
    siaddr=addresses,
    giaddr=addresses,
    sname=names,
    file=names,
    options=st.dictionaries(free_codes, st.binary(max_size=600), max_size=6).map(
        lambda rest: {53: b"\1", **rest}  # 53 comes first on the wire, so it does here
    ),
)


def raw(options: bytes, *, file: bytes = b"", sname: bytes = b"") -> bytes:
    return dhcp.HEADER.pack(1, 1, 6, 0, 7, 0, 0, *[bytes(4)] * 4, MAC, sname, file) + dhcp.MAGIC + options


@given(packets)
def test_a_packet_survives_encoding_and_decoding(packet: DhcpPacket) -> None:
    again = dhcp.decode(dhcp.encode(packet))
    assert again == packet
    assert list(again.options) == list(packet.options)


@given(st.binary(max_size=700))
@example(b"")
def test_arbitrary_bytes_raise_nothing_but_the_typed_error(data: bytes) -> None:
    for candidate in (data, raw(data), raw(b"\x34\x01\x03" + data, file=data[:128], sname=data[:64])):
        try:
            packet = dhcp.decode(candidate)
        except DhcpMalformed:
            continue
        for row in opt.ROWS:
            packet.get(row)
        dhcp.decode(dhcp.encode(packet))


@given(packets, st.data())
def test_a_flipped_byte_raises_nothing_but_the_typed_error(packet: DhcpPacket, data: st.DataObject) -> None:
    wire = bytearray(dhcp.encode(packet))
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DhcpMalformed):
        dhcp.decode(bytes(wire))


def test_a_packet_cut_short_anywhere_before_its_end_option_is_refused_or_loses_whole_options_only() -> None:
    whole = dhcp_capture("ipxe-rom-discover.hex")
    complete = dhcp.decode(whole)
    for cut in range(len(whole)):
        try:
            part = dhcp.decode(whole[:cut])
        except DhcpMalformed:
            continue
        assert cut >= dhcp.OPTIONS_AT
        assert all(complete.options[code] == value for code, value in part.options.items())


def test_a_bootp_packet_without_the_cookie_has_no_options_and_is_answered_without() -> None:
    """RFC 951: zeros, whatever stands behind them."""
    plain = dhcp.decode(raw(b"").replace(dhcp.MAGIC, bytes(4)) + b"\x35\x01\x01\xff" + bytes(56))
    assert (plain.cookie, plain.options, plain.message_type) == (False, {}, None)
    encoded = dhcp.encode(plain)
    assert len(encoded) == dhcp.MIN_REPLY
    assert encoded[dhcp.HEADER.size :] == bytes(dhcp.MIN_REPLY - dhcp.HEADER.size)
    assert dhcp.decode(encoded) == plain
    with pytest.raises(ValueError, match="no options"):
        dhcp.encode(replace(plain, options={1: b"\xff\xff\xff\0"}))


def test_bytes_after_the_end_option_are_padding() -> None:
    whole = dhcp_capture("ovmf-x64-discover.hex")
    assert dhcp.decode(whole + b"\x35\xff\xff") == dhcp.decode(whole)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (raw(b"")[:-1], "239 bytes"),
        (raw(b"") + bytes(dhcp.MAX_PACKET), "bytes, a packet has"),
        (raw(b"").replace(dhcp.MAGIC, b"\0\0\0\1"), "magic cookie"),
        (b"\3" + raw(b"\xff")[1:], "op 3"),
        (raw(b"\xff")[:2] + b"\x11" + raw(b"\xff")[3:], "hardware address of 17 bytes"),
        (raw(b"\x35"), "option 53 has no length"),
        (raw(b"\x35\x02\x01"), "option 53 is 2 bytes long with 1 left"),
        (raw(b"\x35\x00\xff"), "option 53"),
        (raw(b"\x35\x01\x09\xff"), "option 53"),
        (raw(b"\x35\x01\x01\x35\x01\x01\xff"), "option 53"),
        (raw(b"\x32\x03abc\xff"), "option 50"),
        (raw(b"\x5d\x01\0\xff"), "option 93"),
        (raw(b"\x5d\x00\xff"), "option 93"),
        (raw(b"\x39\x01\0\xff"), "option 57"),
        (raw(b"\x34\x01\x04\xff"), "option 52 is 4"),
        (raw(b"\x34\x01\x01\xff", file=b"\x34\x01\x01"), "option 52 inside"),
        (raw(b"\x34\x01\x01\xff", file=b"\x0c\xff" + b"x" * 126), "option 12"),
    ],
)
def test_a_malformed_packet_is_refused_with_its_reason(data: bytes, words: str) -> None:
    with pytest.raises(DhcpMalformed, match=words):
        dhcp.decode(data)


def test_a_split_option_is_joined_in_the_order_options_file_sname() -> None:
    packet = dhcp.decode(
        raw(b"\x0c\x02ab\x34\x01\x03\x0c\x01c\xff", file=b"\x0c\x02de\xff", sname=b"\x0c\x01f")  # RFC 3396 section 5
    )
    assert packet.get(opt.HOST_NAME) == "abcdef"
    assert (packet.file, packet.sname) == (b"", b"")
    assert opt.OVERLOAD.code not in packet.options


def test_an_option_longer_than_255_bytes_is_split_on_the_wire() -> None:
    packet = DhcpPacket(op=2, xid=1, chaddr=MAC, options={175: bytes(range(256)) * 2})
    wire = dhcp.encode(packet)
    assert wire[240:242] == b"\xaf\xff"
    assert dhcp.decode(wire) == packet


def test_the_message_type_goes_first_and_the_relay_agents_option_last() -> None:
    packet = DhcpPacket(op=2, xid=1, chaddr=MAC, options={82: b"\1\1x", 1: bytes(4), 53: b"\2"})
    assert list(dhcp.decode(dhcp.encode(packet)).options) == [53, 1, 82]


def test_a_reply_is_never_shorter_than_bootp_allows() -> None:
    assert len(dhcp.encode(DhcpPacket(op=2, xid=1, chaddr=MAC))) == 300


@pytest.mark.parametrize(
    "change", [{"file": b"x" * 129}, {"sname": b"x" * 65}, {"chaddr": bytes(17)}, {"options": {255: b""}}]
)
def test_what_does_not_fit_is_our_own_error(change: dict[str, object]) -> None:
    packet = replace(DhcpPacket(op=2, xid=1, chaddr=MAC), **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        dhcp.encode(packet)


def test_the_ipxe_rom_of_qemu_is_read_as_it_was_captured() -> None:
    packet = dhcp.decode(dhcp_capture("ipxe-rom-discover.hex"))
    assert packet.message_type is MessageType.DISCOVER
    assert packet.chaddr == MAC
    assert not packet.broadcast
    assert packet.get(opt.MAX_MESSAGE_SIZE) == 1472
    assert packet.get(opt.CLIENT_ARCHITECTURE) == (0,)
    assert packet.get(opt.VENDOR_CLASS) == "PXEClient:Arch:00000:UNDI:002001"
    assert packet.get(opt.USER_CLASS) == b"iPXE"
    assert packet.get(opt.CLIENT_ID) == b"\1" + MAC
    assert packet.get(opt.CLIENT_UUID) == b"\0" + bytes.fromhex("1e2b9d8c4a3f5b4c9d6e7f8091a2b3c4")
    assert opt.IPXE.code in packet.options

    retry = dhcp.decode(dhcp_capture("ipxe-rom-discover-retry.hex"))
    assert (retry.xid, retry.secs) == (packet.xid, 10)

    request = dhcp.decode(dhcp_capture("ipxe-rom-request.hex"))
    assert request.message_type is MessageType.REQUEST
    assert request.xid == packet.xid
    assert request.get(opt.SERVER_ID) == IPv4Address("10.77.0.2")
    assert request.get(opt.REQUESTED_ADDRESS) == IPv4Address("10.77.0.50")


def test_ovmf_is_read_as_it_was_captured() -> None:
    packet = dhcp.decode(dhcp_capture("ovmf-x64-discover.hex"))
    assert packet.message_type is MessageType.DISCOVER
    assert packet.broadcast
    assert packet.get(opt.CLIENT_ARCHITECTURE) == (7,)
    assert packet.get(opt.VENDOR_CLASS) == "PXEClient:Arch:00007:UNDI:003000"
    assert packet.get(opt.USER_CLASS) is None
    assert packet.get(opt.CLIENT_ID) is None
    assert dhcp.decode(dhcp_capture("ovmf-x64-discover-retry.hex")) == replace(packet, secs=28)


@pytest.mark.parametrize("name", ["ipxe-rom-discover.hex", "ipxe-rom-request.hex", "ovmf-x64-discover.hex"])
def test_our_encoder_writes_a_capture_back_byte_for_byte(name: str) -> None:
    wire = dhcp_capture(name)
    assert dhcp.encode(dhcp.decode(wire)).rstrip(b"\0") == wire.rstrip(b"\0")


def test_trailing_nuls_of_a_text_are_dropped_and_what_is_not_printable_becomes_a_question_mark() -> None:
    assert opt.VENDOR_CLASS.decode(b"PXEClient\0\0") == "PXEClient"
    assert opt.HOST_NAME.decode(b"pc\xff\0\x1b[2J\n\x7f~") == "pc???[2J??~"


def test_encapsulated_options_end_with_an_end_option() -> None:
    assert opt.encapsulate([(opt.PXE_DISCOVERY_CONTROL, b"\x08")]) == b"\x06\x01\x08\xff"


@given(st.dictionaries(st.integers(1, 254), st.binary(max_size=255), max_size=5))
def test_options_inside_an_option_are_read_as_they_were_written(found: dict[int, bytes]) -> None:
    assert opt.encapsulated(opt.encapsulate(found.items())) == found
    assert opt.encapsulated(b"\0\0" + opt.encapsulate(found.items()) + b"\x09\x09") == found


@given(st.binary(max_size=60))
def test_any_bytes_are_options_inside_an_option_or_malformed(data: bytes) -> None:
    with contextlib.suppress(DhcpMalformed):
        assert sum(map(len, opt.encapsulated(data).values())) <= len(data)
