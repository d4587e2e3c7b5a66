"""ICMP echo (RFC 792), as far as a probe needs it: does an address answer?"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

from bootlink_wire.dhcp_frame import internet_checksum

_ECHO: Final = struct.Struct("!BBHHH")
_ECHO_REQUEST: Final = 8
_ECHO_REPLY: Final = 0
_IP_MINIMUM: Final = 20


def echo_request(identifier: int, sequence: int) -> bytes:
    """The payload of an IP packet of protocol 1."""
    bare = _ECHO.pack(_ECHO_REQUEST, 0, 0, identifier, sequence)
    return _ECHO.pack(_ECHO_REQUEST, 0, internet_checksum(bare), identifier, sequence)


def echo_reply(packet: bytes, identifier: int) -> IPv4Address | None:
    """Who answers, where this IP packet is the answer to a request with this identifier."""
    if len(packet) < _IP_MINIMUM:
        return None
    header = (packet[0] & 0x0F) * 4  # RFC 791 section 3.1
    if header < _IP_MINIMUM or len(packet) < header + _ECHO.size:
        return None
    kind, _, _, found, _ = _ECHO.unpack_from(packet, header)
    if kind != _ECHO_REPLY or found != identifier:
        return None
    return IPv4Address(packet[12:16])
