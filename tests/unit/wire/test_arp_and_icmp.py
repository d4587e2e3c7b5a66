"""ARP and ICMP echo: what a probe says, and whose answer counts. Parsers take any bytes."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire import arp, icmp
from bootlink_wire.dhcp_frame import internet_checksum

MAC, HOST = bytes.fromhex("525400000001"), bytes.fromhex("525400000002")
A = IPv4Address("10.77.0.20")


def test_an_arp_probe_names_no_sender_and_an_answer_does() -> None:
    probe = arp.probe(MAC, A)
    assert probe.hex() == "0001080006040001" + MAC.hex() + "00000000" + "000000000000" + "0a4d0014"
    assert arp.sender(probe) is None  # another's probe says nothing of who has the address
    answer = bytes.fromhex("0001080006040002") + HOST + A.packed + MAC + bytes(4)
    for padded in (answer, answer + bytes(18)):  # an Ethernet frame has 60 bytes at least
        assert arp.sender(padded) == (A, HOST)
    for size in range(len(answer)):
        assert arp.sender(answer[:size]) is None
    assert arp.sender(b"\0\6" + answer[2:]) is None  # not Ethernet


def test_an_echo_reply_counts_for_the_request_of_its_identifier() -> None:
    request = icmp.echo_request(0x1234, 1)
    assert internet_checksum(request) == 0
    header = bytes.fromhex("45000000000000004001") + bytes(2) + A.packed + bytes(4)
    reply = header + b"\0" + request[1:]
    assert icmp.echo_reply(reply, 0x1234) == A
    assert icmp.echo_reply(reply, 0x1235) is None
    assert icmp.echo_reply(header + request, 0x1234) is None  # another's request
    longer = b"\x46" + header[1:] + bytes(4) + b"\0" + request[1:]  # with an IP option
    assert icmp.echo_reply(longer, 0x1234) == A
    for size in range(len(reply)):
        assert icmp.echo_reply(reply[:size], 0x1234) is None


@given(st.binary(max_size=80))
def test_no_bytes_raise(data: bytes) -> None:
    arp.sender(data)
    icmp.echo_reply(data, 1)
