"""The IPv4 packet around a DHCP answer, for a client that has no address yet and answers no ARP.

RFC 2131 section 4.1 wants such an answer sent to the client's MAC address and its future IP address. The kernel
would first ask by ARP who has that address, and nobody answers: so we build the IP and UDP headers and hand the kernel
a frame with the MAC address filled in.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

_IP: Final = struct.Struct("!BBHHHBBH4s4s")  # RFC 791 section 3.1, no options
_UDP: Final = struct.Struct("!HHHH")  # RFC 768
_ETHERNET: Final = 14  # bytes: destination, source, type
_ETHERTYPE_IPV4: Final = b"\x08\x00"
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


@dataclass(frozen=True, slots=True)
class Heard:
    """A UDP datagram in an Ethernet frame that passed by."""

    source_mac: bytes
    source: IPv4Address
    source_port: int
    destination_port: int
    payload: bytes


def heard(frame: bytes) -> Heard | None:
    """Read an Ethernet frame; None if it carries no whole UDP datagram over IPv4. What is cut off is not read."""
    if len(frame) < _ETHERNET + _IP.size or frame[12:14] != _ETHERTYPE_IPV4:
        return None
    first, _, length, _, fragment, _, protocol, _, source, _ = _IP.unpack_from(frame, _ETHERNET)
    size = (first & 0x0F) * 4
    at = _ETHERNET + size
    if first >> 4 != 4 or protocol != _UDP_PROTOCOL or fragment & ~_DONT_FRAGMENT or len(frame) < _ETHERNET + length:
        return None
    if size < _IP.size or length < size + _UDP.size:
        return None
    source_port, destination_port, udp_length, _ = _UDP.unpack_from(frame, at)
    if not _UDP.size <= udp_length <= length - size:
        return None
    payload = frame[at + _UDP.size : at + udp_length]
    return Heard(frame[6:12], IPv4Address(source), source_port, destination_port, payload)


def internet_checksum(data: bytes) -> int:
    """RFC 1071: the one's complement of the one's complement sum of 16-bit words."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
