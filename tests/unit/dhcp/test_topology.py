"""Relay agents and several subnets: which subnet a packet's client is in, and what its relay agent must get back."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from bootlink_dhcp.bootfiles import BootFiles
from bootlink_dhcp.boots import Boots
from bootlink_dhcp.decision import Decision, Via
from bootlink_dhcp.firmware import FirmwareMemory
from bootlink_dhcp.leases import LeaseTable, restore
from bootlink_dhcp.machine import DhcpMachine
from bootlink_dhcp.reservations import Reservations
from bootlink_dhcp.subnet import Pool, Subnet
from bootlink_dhcp.topology import Scope, Topology
from bootlink_dhcp.tracker import BootTracker
from bootlink_events import LoaderRule
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, DhcpPacket, MessageType
from lab.dhcp_client import discover, message, request, with_options
from lab.loaders import AtHand

T0 = 1_800_000_000.0
PC, KNOWN = "52:54:00:12:34:56", "52:54:00:00:00:07"
SERVER, RELAY = IPv4Address("10.77.0.1"), IPv4Address("10.78.0.1")
ELSEWHERE = IPv4Address("172.16.0.9")  # the relay agent's address on the way to us
OWN, FAR = IPv4Network("10.77.0.0/24"), IPv4Network("10.78.0.0/24")
RESERVED = IPv4Address("10.78.0.20")
# 82.1 circuit, 82.2 remote, each of a relay agent's own making.
CIRCUIT = b"\1\4port\2\2sw"


class Lab:
    """Our own subnet and one behind a relay agent; KNOWN has a reservation there. The relayed clock begins at T0."""

    def __init__(self) -> None:
        own = Subnet(OWN, SERVER, Pool(SERVER + 100, SERVER + 109), 3600, SERVER + 253)
        far = Subnet(FAR, SERVER, Pool(RELAY + 100, RELAY + 109), 600, RELAY, domain="far.example")
        reservations = Reservations(own, far)
        assert reservations.set(KNOWN, RESERVED) is None
        self.disk: dict[object, object] = {}
        self.scopes = [
            Scope(subnet, LeaseTable(subnet, reservations.owner, self.disk.__setitem__)) for subnet in (own, far)
        ]
        self.reserved = reservations.of
        files = BootFiles(SERVER, 69, AtHand("snponly.efi"))
        record = self.disk.__setitem__
        boots = Boots(BootTracker(record), files, FirmwareMemory(record), self)
        self.machine = DhcpMachine(Topology(self.scopes[0], self.scopes[1:]), boots, self)

    def name(self, mac: str) -> str | None:
        return None

    def options(self, mac: str) -> tuple[tuple[int, bytes], ...]:
        return ()

    def loader_rules(self, mac: str) -> tuple[LoaderRule, ...]:
        return ()

    def handle(self, packet: DhcpPacket) -> Decision:
        return self.machine.handle(dhcp.decode(dhcp.encode(packet)), T0)


def relayed(packet: DhcpPacket, giaddr: IPv4Address = RELAY, more: bytes = b"") -> DhcpPacket:
    return with_options(replace(packet, giaddr=giaddr, hops=1), opt.RELAY_AGENT.encode(CIRCUIT + more))


def reply_of(decision: Decision) -> DhcpPacket:
    assert decision.reply is not None, decision.count
    return decision.reply.packet


def test_a_relayed_client_gets_an_address_of_its_own_subnet_and_the_relay_agent_its_option_back() -> None:
    lab = Lab()
    asked = relayed(discover("ovmf", PC, 1))
    offer = lab.handle(asked)
    ack = lab.handle(relayed(request(reply_of(offer), discover("ovmf", PC, 1))))
    for decision in (offer, ack):
        reply = reply_of(decision)
        assert reply.yiaddr == RELAY + 100
        assert (reply.giaddr, reply.get(opt.SERVER_ID)) == (RELAY, SERVER)
        assert reply.get(opt.ROUTER) == (RELAY,)
        assert (reply.get(opt.LEASE_TIME), reply.get(opt.DOMAIN_NAME)) == (600, "far.example")
        assert reply.get(opt.SUBNET_MASK) == FAR.netmask
        assert reply.get(opt.RELAY_AGENT) == CIRCUIT
        assert list(dhcp.decode(dhcp.encode(reply)).options)[-1] == opt.RELAY_AGENT.code
        assert decision.reply is not None
        assert (decision.reply.via, decision.reply.address) == (Via.RELAY, RELAY)
        assert reply.file


@pytest.mark.parametrize(
    ("packet", "network"),
    [
        (discover("os", PC, 1), OWN),
        (relayed(discover("os", PC, 1)), FAR),
        (relayed(discover("os", PC, 1), SERVER + 5), OWN),  # a relay agent on our own link
        (relayed(discover("os", PC, 1), ELSEWHERE, b"\5\4" + RELAY.packed), FAR),
        (relayed(discover("os", PC, 1), SERVER + 5, b"\5\4" + RELAY.packed), FAR),  # link selection comes first
        (with_options(discover("os", PC, 1), opt.SUBNET_SELECTION.encode(RELAY)), FAR),
        (with_options(relayed(discover("os", PC, 1)), opt.SUBNET_SELECTION.encode(SERVER)), OWN),
        # Without giaddr nobody relayed this: whoever made up option 82 does not choose the subnet by it.
        (with_options(discover("os", PC, 1), opt.RELAY_AGENT.encode(b"\5\4" + RELAY.packed)), OWN),
        (relayed(discover("os", PC, 1), more=b"\5\3\1\2\3"), FAR),  # no address: as if it were not there
        (relayed(discover("os", PC, 1), more=b"\5\xff\1"), FAR),  # torn
    ],
)
def test_the_subnet_follows_from_the_packet(packet: DhcpPacket, network: IPv4Network) -> None:
    reply = reply_of(Lab().handle(packet))
    assert reply.yiaddr in network
    selection = packet.get(opt.SUBNET_SELECTION)
    assert reply.get(opt.SUBNET_SELECTION) == selection  # RFC 3011: given back where it was heeded


@pytest.mark.parametrize(
    "packet",
    [
        relayed(discover("os", PC, 1), ELSEWHERE),
        relayed(discover("os", PC, 1), RELAY, b"\5\4" + ELSEWHERE.packed),
        with_options(discover("os", PC, 1), opt.SUBNET_SELECTION.encode(ELSEWHERE)),
    ],
)
def test_a_subnet_that_is_not_ours_is_not_answered(packet: DhcpPacket) -> None:
    assert Lab().handle(packet) == Decision("dropped_relay_of_another_subnet")


def test_a_server_id_that_the_relay_agent_wants_is_ours_from_then_on() -> None:
    lab = Lab()
    override = b"\x0b\4" + RELAY.packed
    asked = discover("os", PC, 1)
    offer = reply_of(lab.handle(relayed(asked, more=override)))
    assert offer.get(opt.SERVER_ID) == RELAY
    ack = reply_of(lab.handle(relayed(request(offer, asked), more=override)))
    assert (ack.message_type, ack.get(opt.SERVER_ID)) == (MessageType.ACK, RELAY)
    release = message(MessageType.RELEASE, PC, ciaddr=ack.yiaddr, server=RELAY)
    assert lab.handle(relayed(release, more=override)).count == "release"
    assert lab.handle(relayed(request(offer, asked))).count == "request_for_another_server"


def test_a_relayed_client_renews_directly_and_is_refused_in_the_wrong_subnet() -> None:
    lab = Lab()
    asked = discover("os", PC, 1)
    address = reply_of(lab.handle(relayed(request(reply_of(lab.handle(relayed(asked))), asked)))).yiaddr
    renewed = lab.handle(message(MessageType.REQUEST, PC, ciaddr=address))
    assert renewed.reply is not None
    assert (renewed.reply.packet.message_type, renewed.reply.via) == (MessageType.ACK, Via.UNICAST)
    assert (renewed.reply.address, renewed.reply.packet.giaddr) == (address, NO_ADDRESS)
    # Carried to our own link, it asks for its former address; and the other way round.
    assert lab.handle(message(MessageType.REQUEST, PC, wanted=address)).count == "nak"
    nak = lab.handle(relayed(message(MessageType.REQUEST, PC, wanted=SERVER + 100)))
    assert nak.count == "nak"
    assert reply_of(nak).broadcast  # so that the relay agent broadcasts it
    informed = lab.handle(relayed(message(MessageType.INFORM, PC, ciaddr=address)))
    assert informed.reply is not None
    assert (informed.reply.address, informed.reply.packet.get(opt.LEASE_TIME)) == (address, None)
    assert informed.reply.packet.get(opt.DOMAIN_NAME) == "far.example"


def test_a_reservation_holds_in_its_own_subnet_alone() -> None:
    lab = Lab()
    assert reply_of(lab.handle(relayed(discover("os", KNOWN, 1)))).yiaddr == RESERVED
    assert reply_of(lab.handle(discover("os", KNOWN, 2))).yiaddr == SERVER + 100


def test_records_go_to_the_table_of_their_subnet() -> None:
    lab = Lab()
    value = {"client": PC, "state": "bound", "expires": T0 + 60}
    records = [("10.78.0.101", value), ("10.77.0.101", value), ("10.99.0.1", value), ("no address", value)]
    assert restore([scope.leases for scope in lab.scopes], records, T0) == 2
    held = [scope.leases.of_client(PC, T0) for scope in lab.scopes]
    assert [str(lease.address) for lease in held if lease is not None] == ["10.77.0.101", "10.78.0.101"]
