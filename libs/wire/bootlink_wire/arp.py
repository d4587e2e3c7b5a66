"""ARP (RFC 826) over Ethernet and IPv4, as far as a probe needs it: is an address in use on this link?"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

ETHERTYPE: Final = 0x0806
_PACKET: Final = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET, _IPV4 = 1, 0x0800
_REQUEST: Final = 1
NOBODY: Final = bytes(4)  # a probe's sender: RFC 5227 section 2.1.1, so that no cache learns a false address
_UNKNOWN: Final = bytes(6)


def probe(own_mac: bytes, address: IPv4Address) -> bytes:
    """The payload of a frame to everybody: who has this address?"""
    return _PACKET.pack(_ETHERNET, _IPV4, 6, 4, _REQUEST, own_mac, NOBODY, _UNKNOWN, address.packed)


def sender(payload: bytes) -> tuple[IPv4Address, bytes] | None:
    """The address and MAC address of whoever sent this packet, request or reply; None if it tells none."""
    if len(payload) < _PACKET.size:
        return None
    hardware, protocol, hardware_size, size, _, mac, address, _, _ = _PACKET.unpack_from(payload)
    if (hardware, protocol, hardware_size, size) != (_ETHERNET, _IPV4, 6, 4) or address == NOBODY:
        return None
    return IPv4Address(address), mac
