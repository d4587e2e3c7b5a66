"""In which subnet is the client that a packet comes from? RFC 2131 section 4.3.1, and what relay agents add to it.

The first of these that a packet has decides; where it names a subnet that we do not serve, the packet is not for us:

    82.5    link selection (RFC 3527): a relay agent whose own address lies elsewhere names the client's subnet
    118     subnet selection (RFC 3011): the same, from a client that asks for others
    giaddr  the relay agent's address on the client's link
    ciaddr  of a client that renews: it writes to us directly, through its router
    none    the client is on our own link

A client on our own link that claims (ciaddr) an address of a relayed subnet is thus taken for one there. It was moved
between two links without losing either; it keeps its lease until that ends, or until it looks anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

from bootlink_dhcp.leases import LeaseTable
from bootlink_dhcp.replies import lease_times, subnet_options
from bootlink_dhcp.subnet import Subnet
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, DhcpPacket, MessageType


class Scope:
    """One subnet, its leases, and what every client in it is told."""

    def __init__(self, subnet: Subnet, leases: LeaseTable) -> None:
        self.subnet = subnet
        self.leases = leases
        self.first, self.last = int(subnet.network.network_address), int(subnet.network.broadcast_address)
        self.options = dict(subnet_options(subnet))
        self.answers = {
            # The message type goes first, where sloppy firmware looks for it.
            message: dict([opt.MESSAGE_TYPE.encode(message), opt.SERVER_ID.encode(subnet.server)])
            | dict(lease_times(subnet))
            | self.options
            for message in (MessageType.OFFER, MessageType.ACK)
        }
        """What begins each answer that gives an address, encoded once."""

    def usable(self, address: IPv4Address) -> bool:
        """A client in this subnet could have this address."""
        return self.first < int(address) < self.last


class Topology:
    """Our own subnet, and those behind relay agents."""

    def __init__(self, own: Scope, relayed: Sequence[Scope] = ()) -> None:
        self._own = own
        self._all = (own, *relayed)

    def of(self, packet: DhcpPacket) -> Scope | None:
        """Where this packet's client is; None if that is no subnet of ours."""
        named = _address(relayed_by(packet, opt.RELAY_LINK)) or packet.get(opt.SUBNET_SELECTION)
        if named is None and packet.giaddr is not NO_ADDRESS:
            named = packet.giaddr
        if named is not None:
            return self._around(named)
        return self._own if packet.ciaddr is NO_ADDRESS else self._around(packet.ciaddr) or self._own

    def _around(self, address: IPv4Address) -> Scope | None:
        number = int(address)
        for scope in self._all:
            if scope.first <= number <= scope.last:
                return scope
        return None


def server_id(packet: DhcpPacket) -> IPv4Address | None:
    """What the relay agent wants us to call ourselves (RFC 5107), so that the client's renewals pass through it."""
    return _address(relayed_by(packet, opt.RELAY_SERVER_ID))


def relayed_by(packet: DhcpPacket, code: int) -> bytes | None:
    """A sub-option of option 82, where a relay agent put one in; a client cannot, without giaddr."""
    relay = packet.get(opt.RELAY_AGENT)
    if relay is None or packet.giaddr is NO_ADDRESS:
        return None
    return opt.sub_option(relay, code)


def _address(value: bytes | None) -> IPv4Address | None:
    return IPv4Address(value) if value is not None and len(value) == 4 else None
