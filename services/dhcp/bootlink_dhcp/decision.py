"""What is decided about a packet: what to send and how, and what to tell. Shared by all machines of this service.

Several of these are made for each packet, and a frozen dataclass takes four times as long to make: so two are tuples,
and a `Decision` is not frozen. Treat it as immutable.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Final, NamedTuple, Protocol

from bootlink_dhcp.tracker import BootPass
from bootlink_events import EventData
from bootlink_wire.dhcp import DhcpPacket

LIMITED_BROADCAST: Final = IPv4Address("255.255.255.255")


class Via(StrEnum):
    """How a reply reaches its client, RFC 2131 section 4.1."""

    RELAY = "relay"  # to the relay agent's server port
    UNICAST = "unicast"  # to an address that answers ARP
    FRAME = "frame"  # to the client's MAC address: it has no address yet
    BROADCAST = "broadcast"


class Reply(NamedTuple):
    """A packet to send, how, and to which address."""

    packet: DhcpPacket
    via: Via
    address: IPv4Address


class Promise(NamedTuple):
    """A lease."""

    address: IPv4Address
    client: str
    until: float  # seconds since the epoch


@dataclass(slots=True)
class Decision:
    """What to do about a packet."""

    count: str  # what it was, for the counters
    reply: Reply | None = None
    durable: bool = False  # do not send before everything recorded so far is on disk
    promised: Promise | None = None  # the lease that the reply promises
    fresh: Promise | None = None  # what is offered to a new client, if nobody else has that address
    events: tuple[EventData, ...] = ()
    begun: BootPass | None = None  # the boot of which this answers a pass's first DISCOVER
    withheld: int = 0  # events of an unknown client that went beyond the allowance


class Machine(Protocol):
    """What decides about the packets of port 67."""

    def handle(self, packet: DhcpPacket, now: float) -> Decision: ...
