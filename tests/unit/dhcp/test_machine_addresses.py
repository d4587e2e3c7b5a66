"""The decision machine: who gets an address at all, BOOTP clients and made-up ones among them."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from bootlink_dhcp.decision import Decision, Via
from bootlink_dhcp.machine import BOOTP_SECONDS
from bootlink_events import LoaderRule
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, MessageType
from lab.dhcp_client import discover, message, request, with_options
from lab.dhcp_machine import FIRST, KNOWN, PC, SERVER, Lab, bootp, kind


def test_a_bootp_client_with_a_reservation_gets_it_in_one_answer_without_a_lease_time() -> None:
    lab = Lab()
    decision = lab.handle(bootp(KNOWN))
    assert (decision.count, decision.durable) == ("bootp", True)
    assert decision.reply is not None
    packet = decision.reply.packet
    assert (packet.yiaddr, decision.reply.via) == (IPv4Address("10.77.0.20"), Via.FRAME)
    assert packet.get(opt.SUBNET_MASK) == lab.subnet.network.netmask
    assert packet.get(opt.HOST_NAME) == "pc-007"
    assert not {51, 53, 54, 58, 59} & set(packet.options)
    assert len(dhcp.encode(packet)) >= 300
    assert lab.handle(bootp(PC)) == Decision("dropped_bootp")
    assert lab.handle(bootp(KNOWN, sname=b"another")).count == "dropped_bootp_for_another_server"
    assert lab.handle(bootp(KNOWN, sname=b"10.77.0.1")).count == "bootp"


def test_bootp_clients_without_a_reservation_are_answered_where_that_is_wanted() -> None:
    lab = Lab(bootp="dynamic", pool_size=2)
    first = lab.handle(bootp(PC, flags=dhcp.BROADCAST_FLAG)).reply
    assert first is not None
    assert (first.packet.yiaddr, first.via) == (FIRST, Via.BROADCAST)
    lab.now += BOOTP_SECONDS - 1
    again = lab.handle(bootp(PC)).reply
    assert again is not None
    assert again.packet.yiaddr == FIRST
    relayed_reply = lab.handle(bootp("52:54:00:00:00:99", giaddr=SERVER + 5)).reply
    assert relayed_reply is not None
    assert (relayed_reply.via, relayed_reply.packet.yiaddr) == (Via.RELAY, FIRST + 1)
    assert lab.handle(bootp("52:54:00:00:00:98")).count == "pool_exhausted"
    assert Lab(bootp="off").handle(bootp(KNOWN)).count == "dropped_bootp"


def test_a_bootp_client_is_told_a_loader_and_where_it_is_and_no_boot_begins() -> None:
    """A printer asks in the same way. What the loader asks for afterwards begins the boot."""
    lab = Lab(loaders=("undionly.kpxe", "ipxe.pxe"))
    decision = lab.handle(bootp(KNOWN))
    assert decision.reply is not None
    packet = decision.reply.packet
    assert (packet.file, packet.siaddr, packet.sname) == (b"undionly.kpxe", SERVER, b"10.77.0.1")
    assert (packet.get(opt.BOOT_FILE_NAME), packet.get(opt.TFTP_SERVER_NAME)) == ("undionly.kpxe", "10.77.0.1")
    assert decision.events == ()
    assert lab.tracker.current(KNOWN) is None
    for asked, file in ((b"ipxe.pxe", b"ipxe.pxe"), (b"unix", b"undionly.kpxe")):
        named = lab.handle(bootp(KNOWN, file=asked)).reply
        assert named is not None
        assert named.packet.file == file
    lab.rules[KNOWN] = (LoaderRule(arch="bios", loaders=("ipxe.pxe",)),)
    ruled = lab.handle(bootp(KNOWN)).reply
    assert ruled is not None
    assert ruled.packet.file == b"ipxe.pxe"
    for other in (Lab(loaders=()), Lab(port=6969)):  # nothing to send, and a port that no such client asks at
        bare = other.handle(bootp(KNOWN)).reply
        assert bare is not None
        assert (bare.packet.file, bare.packet.siaddr, bare.packet.sname) == (b"", NO_ADDRESS, b"")
        assert not {66, 67} & set(bare.packet.options)


def test_a_bootp_client_of_before_options_is_answered_without_any() -> None:
    lab = Lab()
    lab.group_options = ((17, b"/root"),)
    reply = lab.handle(bootp(KNOWN, cookie=False)).reply
    assert reply is not None
    assert (reply.packet.cookie, reply.packet.options) == (False, {})
    assert (reply.packet.yiaddr, reply.packet.file) == (IPv4Address("10.77.0.20"), b"undionly.kpxe")
    assert dhcp.decode(dhcp.encode(reply.packet)) == reply.packet


def test_thousands_of_made_up_clients_take_nothing_from_those_we_know() -> None:
    lab = Lab(pool_size=50)
    known = [f"52:54:00:00:01:{n:02x}" for n in range(20)]
    for n, mac in enumerate(known):
        lab.exchange("os", mac, n)
    had = {mac: lease.address for mac in known if (lease := lab.leases.of_client(mac, lab.now))}
    for n in range(5_000):
        asked = discover("os", f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}", n)
        offer = lab.machine.handle(asked, lab.now)
        if offer.reply is not None and n % 2:
            lab.machine.handle(request(offer.reply.packet, asked), lab.now)
        lab.now += 0.05
    assert lab.handle(discover("os", "02:ff:00:00:00:01", 9)).count == "pool_exhausted"
    for mac in known:  # in the middle of their leases, and as they boot anew
        renewed = lab.handle(message(MessageType.REQUEST, mac, ciaddr=had[mac]))
        assert kind(renewed) is MessageType.ACK
        _, ack = lab.exchange("ovmf", mac, 7)
        assert ack.reply is not None
        assert ack.reply.packet.yiaddr == had[mac]
    _, ack = lab.exchange("ovmf", KNOWN, 8)
    assert ack.reply is not None
    assert ack.reply.packet.yiaddr == IPv4Address("10.77.0.20")

    newcomer = "52:54:00:00:02:01"
    lab.names[newcomer] = "pc-1"  # the registry has learned of it
    _, ack = lab.exchange("ovmf", newcomer, 9)
    assert kind(ack) is MessageType.ACK


@pytest.mark.parametrize("way", ["wanted", "selecting", "renewing"])
def test_made_up_clients_that_ask_for_addresses_by_name_take_nothing_from_those_we_know(way: str) -> None:
    lab = Lab(pool_size=16)
    lab.names[PC] = "pc-1"
    _, ack = lab.exchange("os", PC, 1)
    lab.now += 2 * 3600  # its lease has run out
    assert ack.reply is not None
    for n, address in enumerate(lab.subnet.pool):
        mac = f"02:00:00:00:00:{n:02x}"
        if way == "wanted":
            offer = lab.handle(with_options(discover("os", mac, n), opt.REQUESTED_ADDRESS.encode(address)))
            if offer.reply is not None:
                lab.handle(request(offer.reply.packet, discover("os", mac, n)))
        elif way == "selecting":
            lab.handle(message(MessageType.REQUEST, mac, wanted=address, server=SERVER))
        else:
            lab.handle(message(MessageType.REQUEST, mac, ciaddr=address))
    _, again = lab.exchange("os", PC, 2)
    assert again.reply is not None
    assert again.reply.packet.yiaddr == ack.reply.packet.yiaddr
    newcomer = "52:54:00:00:02:01"
    lab.names[newcomer] = "pc-2"
    _, first = lab.exchange("os", newcomer, 3)
    assert kind(first) is MessageType.ACK


def test_an_address_that_was_anothers_is_probed_before_it_is_offered() -> None:
    lab = Lab(pool_size=1)
    first = lab.handle(discover("os", PC, 1))
    assert first.fresh is not None
    lab.exchange("os", PC, 1)
    lab.now += 2 * 3600  # its lease has run out, but does its system know?
    back = lab.handle(discover("os", PC, 2))
    assert back.fresh is None  # its own
    lab.now += 2 * 3600
    other = lab.handle(discover("os", "52:54:00:00:00:02", 3))
    assert other.reply is not None
    assert other.fresh is not None
    assert other.fresh.address == FIRST


def test_a_stranger_gets_no_address_that_a_known_client_may_come_back_for() -> None:
    lab = Lab(pool_size=1)
    lab.names[PC] = "pc-1"
    _, ack = lab.exchange("os", PC, 1)
    lab.now += 2 * 3600  # its lease has run out
    assert lab.handle(discover("os", "02:00:00:00:00:01", 2)).count == "pool_exhausted"
    other = "52:54:00:00:00:02"
    lab.names[other] = "pc-2"
    _, taken = lab.exchange("os", other, 3)  # another that belongs here may have it
    assert ack.reply is not None
    assert taken.reply is not None
    assert taken.reply.packet.yiaddr == ack.reply.packet.yiaddr
