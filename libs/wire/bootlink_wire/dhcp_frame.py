"""The IPv4 packet around a DHCP answer, for a client that has no address yet and answers no ARP.

RFC 2131 section 4.1 wants such an answer sent to the client's MAC address and its future IP address. The kernel
would first ask by ARP who has that address, and nobody answers: so we build the IP and UDP headers and hand the kernel
a frame with the MAC address filled in.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

_IP: Final = struct.Struct("!BBHHHBBH4s4s")  # RFC 791 section 3.1, no options
_UDP: Final = struct.Struct("!HHHH")  # RFC 768
_UDP_PROTOCOL: Final = 17
_TTL: Final = 64
_DONT_FRAGMENT: Final = 0x4000
MAX_PAYLOAD: Final = 1500 - _IP.size - _UDP.size  # one Ethernet frame; PXE firmware reassembles nothing


def udp_datagram(
    source: IPv4Address, source_port: int, destination: IPv4Address, destination_port: int, payload: bytes
) -> bytes:
    """A whole IPv4 packet with checksums. ValueError if it would not fit one Ethernet frame (our own mistake)."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"{len(payload)} bytes do not fit one Ethernet frame")
    length = _UDP.size + len(payload)
    pseudo = source.packed + destination.packed + struct.pack("!BBH", 0, _UDP_PROTOCOL, length)
    bare = _UDP.pack(source_port, destination_port, length, 0) + payload
    # 0 means "no checksum" in UDP, so a sum of 0 is sent as its other form (RFC 768).
    udp = _UDP.pack(source_port, destination_port, length, internet_checksum(pseudo + bare) or 0xFFFF) + payload
    header = (0x45, 0, _IP.size + length, 0, _DONT_FRAGMENT, _TTL, _UDP_PROTOCOL)
    addresses = (source.packed, destination.packed)
    checksum = internet_checksum(_IP.pack(*header, 0, *addresses))
    return _IP.pack(*header, checksum, *addresses) + udp


def internet_checksum(data: bytes) -> int:
    """RFC 1071: the one's complement of the one's complement sum of 16-bit words."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
