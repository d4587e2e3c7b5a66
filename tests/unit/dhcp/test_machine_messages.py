"""The decision machine: what each message of RFC 2131 is answered, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_dhcp.decision import Via
from bootlink_dhcp.subnet import Pool
from bootlink_events import DhcpAddressTaken
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, DhcpPacket, MessageType
from lab.dhcp_client import discover, message, with_options
from lab.dhcp_machine import FIRST, PC, SERVER, T0, Lab, kind


def test_renewing_is_answered_by_unicast_and_prolongs_the_lease() -> None:
    lab = Lab()
    lab.exchange("os", PC, 1)
    lab.now += 1800
    decision = lab.handle(message(MessageType.REQUEST, PC, ciaddr=FIRST))
    assert kind(decision) is MessageType.ACK
    assert decision.reply is not None
    assert (decision.reply.via, decision.reply.address) == (Via.UNICAST, FIRST)
    assert decision.reply.packet.ciaddr == FIRST
    assert lab.leases.of_client(PC, lab.now).expires == lab.now + 3600  # type: ignore[union-attr]


def test_a_renewal_is_granted_although_the_lease_file_was_lost() -> None:
    lab = Lab()
    decision = lab.handle(message(MessageType.REQUEST, PC, ciaddr=FIRST))
    assert kind(decision) is MessageType.ACK


@pytest.mark.parametrize(
    ("case", "packet"),
    [
        ("renewing another client's", message(MessageType.REQUEST, PC, ciaddr=FIRST)),
        ("renewing outside the pool", message(MessageType.REQUEST, PC, ciaddr=IPv4Address("10.77.0.30"))),
        ("renewing our own address", message(MessageType.REQUEST, PC, ciaddr=SERVER)),
        ("renewing in another subnet", message(MessageType.REQUEST, PC, ciaddr=IPv4Address("192.168.1.5"))),
        ("rebooting in another subnet", message(MessageType.REQUEST, PC, wanted=IPv4Address("192.168.1.5"))),
        ("rebooting without a lease", message(MessageType.REQUEST, PC, wanted=FIRST + 1)),
        ("rebooting with another's", message(MessageType.REQUEST, PC, wanted=FIRST)),
        ("selecting what was not offered", message(MessageType.REQUEST, PC, wanted=FIRST, server=SERVER)),
    ],
)
def test_an_address_that_is_not_the_clients_is_refused_by_broadcast(case: str, packet: DhcpPacket) -> None:
    lab = Lab()
    lab.exchange("os", "52:54:00:00:00:01", 1)
    decision = lab.handle(packet)
    assert kind(decision) is MessageType.NAK, case
    assert decision.reply is not None
    assert (decision.reply.via, str(decision.reply.address)) == (Via.BROADCAST, "255.255.255.255")
    assert decision.reply.packet.yiaddr == NO_ADDRESS
    assert decision.reply.packet.get(opt.SERVER_ID) == SERVER
    assert decision.reply.packet.get(opt.MESSAGE_TEXT)


@pytest.mark.parametrize("state", ["ciaddr", "wanted"], ids=["renewing", "rebooting"])
def test_beside_a_server_that_belongs_here_its_clients_are_left_to_it_and_ours_are_refused(state: str) -> None:
    lab = Lab(beside_others=True)
    for address, answer in (
        (IPv4Address("10.77.0.30"), None),  # of no pool of ours: the other's, as far as we know
        (IPv4Address("10.77.0.20"), MessageType.NAK),  # reserved for another client
        (FIRST, MessageType.NAK),
        (IPv4Address("192.168.1.5"), MessageType.NAK),  # in another subnet, which is nobody's here
    ):
        lab.exchange("os", "52:54:00:00:00:01", 1)
        assert kind(lab.handle(message(MessageType.REQUEST, PC, **{state: address}))) is answer, address
    offered = message(MessageType.REQUEST, PC, wanted=IPv4Address("10.77.0.30"), server=SERVER)
    assert kind(lab.handle(offered)) is MessageType.NAK, "we were asked"
    lab.restart(Pool(FIRST + 50, FIRST + 60))
    mine = message(MessageType.REQUEST, "52:54:00:00:00:01", ciaddr=FIRST)
    assert kind(lab.handle(mine)) is MessageType.NAK, "it was ours before the pool changed"


def test_init_reboot_with_the_leased_address_is_confirmed() -> None:
    lab = Lab()
    lab.exchange("os", PC, 1)
    assert kind(lab.handle(message(MessageType.REQUEST, PC, wanted=FIRST))) is MessageType.ACK


def test_a_request_to_another_server_is_left_alone_and_frees_our_offer() -> None:
    lab = Lab()
    lab.handle(discover("os", PC, 1))
    decision = lab.handle(message(MessageType.REQUEST, PC, wanted=FIRST, server=SERVER + 5))
    assert decision.reply is None
    assert lab.leases.counts(lab.now)["offered"] == 0


def test_decline_release_and_inform() -> None:
    lab = Lab()
    lab.exchange("os", PC, 1)
    decline = message(MessageType.DECLINE, PC, wanted=FIRST, server=SERVER)
    decision = lab.handle(decline)
    assert decision.reply is None
    (told,) = decision.events
    assert isinstance(told, DhcpAddressTaken)
    assert (told.address, told.mac, told.everything) == (FIRST, None, False)
    assert "BOOTLINK_DHCP_POOL" in told.remedy
    assert lab.handle(decline).events == ()
    assert lab.leases.counts(lab.now)["declined"] == 1
    lab.exchange("os", PC, 2)
    assert lab.handle(message(MessageType.RELEASE, PC, ciaddr=FIRST + 1, server=SERVER)).count == "release"
    assert lab.handle(message(MessageType.RELEASE, PC, ciaddr=FIRST + 1, server=SERVER)).count == "dropped_release"
    decision = lab.handle(message(MessageType.INFORM, PC, ciaddr=IPv4Address("10.77.0.9")))
    assert decision.reply is not None
    packet = decision.reply.packet
    assert (packet.yiaddr, packet.get(opt.LEASE_TIME), packet.get(opt.DNS)) == (NO_ADDRESS, None, (SERVER, SERVER + 1))
    assert str(decision.reply.address) == "10.77.0.9"


def test_a_relay_is_answered_at_its_address_with_its_option_echoed_last() -> None:
    lab = Lab()
    relay = IPv4Address("10.77.0.2")
    asked = with_options(replace(discover("os", PC, 1), giaddr=relay), (82, b"\1\4port"))
    reply = lab.handle(asked).reply
    assert reply is not None
    assert (reply.via, reply.address) == (Via.RELAY, relay)
    assert list(reply.packet.options)[-1] == 82
    assert reply.packet.get(opt.RELAY_AGENT) == b"\1\4port"
    nak = lab.handle(replace(message(MessageType.REQUEST, PC, wanted=SERVER), giaddr=relay)).reply
    assert nak is not None
    assert nak.via is Via.RELAY
    assert nak.packet.broadcast


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({"op": 2}, "dropped_not_a_request"),
        ({"chaddr": b""}, "dropped_not_ethernet"),
        ({"htype": 6}, "dropped_not_ethernet"),
        ({"chaddr": b"\xff" * 6}, "dropped_impossible_mac"),
        ({"chaddr": bytes(6)}, "dropped_impossible_mac"),
        ({"giaddr": IPv4Address("192.168.9.1")}, "dropped_relay_of_another_subnet"),
        ({"options": {}}, "dropped_bootp"),
        ({"options": {53: b"\2"}}, "dropped_not_a_request"),
        ({"options": {53: b"\3"}}, "dropped_request_without_address"),
        ({"options": {53: b"\4"}}, "dropped_decline"),
        ({"options": {53: b"\7"}}, "dropped_release"),
        ({"options": {53: b"\x08"}}, "dropped_inform"),
    ],
)
def test_what_is_not_for_us_is_dropped_and_counted(change: dict[str, Any], count: str) -> None:
    packet = replace(discover("os", PC, 1), **change)
    decision = Lab().machine.handle(packet, T0)
    assert (decision.count, decision.reply) == (count, None)


ips = st.sampled_from(("0.0.0.0", "10.77.0.1", "10.77.0.101", "10.77.0.255", "192.168.1.1")).map(IPv4Address)
hostile = st.builds(
    DhcpPacket,
    op=st.just(1),
    xid=st.integers(0, 3),
    chaddr=st.sampled_from((b"RT\0\0\0\1", b"RT\0\0\0\2", b"")),
    flags=st.sampled_from((0, 0x8000)),
    ciaddr=ips,
    giaddr=ips,
    options=st.fixed_dictionaries(
        {53: st.integers(1, 8).map(lambda n: bytes((n,)))},
        optional={
            50: ips.map(lambda a: a.packed),
            54: ips.map(lambda a: a.packed),
            60: st.sampled_from((b"PXEClient:Arch:00007", b"HTTPClient", b"MSFT 5.0", b"\xff\xfe")),
            77: st.sampled_from((b"iPXE", b"\4iPXE", b"")),
            82: st.binary(max_size=255),
            93: st.sampled_from((b"\0\0", b"\0\7", b"\xff\xff\0\7", b"\0\7" * 127)),
            94: st.binary(max_size=255),
            97: st.binary(max_size=255),
        },
    ),
)


@given(st.lists(hostile, max_size=15))
def test_the_machine_raises_nothing_for_any_sequence_of_packets_and_its_replies_fit_a_frame(
    packets: list[DhcpPacket],
) -> None:
    lab = Lab()
    for packet in packets:
        decision = lab.machine.handle(packet, lab.now)
        lab.now += 1
        if decision.reply is not None:
            assert len(dhcp.encode(decision.reply.packet)) <= 1472
