"""Router solicitations and advertisements (RFC 4861), as much of them as silences a waiting iPXE.

The kernel writes and checks the ICMPv6 checksum of a raw ICMPv6 socket (RFC 3542 section 3.1), so the checksum field is
written as 0 and is not looked at.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

ROUTER_SOLICITATION: Final = 133
ROUTER_ADVERTISEMENT: Final = 134
HOP_LIMIT: Final = 255  # RFC 4861 section 6.1: whatever arrives with less came through a router, and is ignored

_SOLICITATION: Final = struct.Struct("!BBHI")
_ADVERTISEMENT: Final = struct.Struct("!BBHBBHII")
_SOURCE_LINK_LAYER: Final = 1  # option type, RFC 4861 section 4.6.1
MAX_MESSAGE: Final = 1500  # an Ethernet frame


class Icmpv6Malformed(Exception):
    """The peer's message breaks RFC 4861 sections 4.1, 4.2 or 6.1. It is dropped and counted."""


@dataclass(frozen=True, slots=True)
class RouterSolicitation:
    """Somebody asks for routers. `source_mac` is None from a station that has no address yet."""

    source_mac: bytes | None = None


@dataclass(frozen=True, slots=True)
class RouterAdvertisement:
    """A router speaks. Lifetime 0 says: do not use me as a default router (RFC 4861 section 4.2)."""

    lifetime: int = 0  # seconds
    managed: bool = False  # ask DHCPv6 for addresses
    other: bool = False  # ask DHCPv6 for the rest
    source_mac: bytes | None = None


def decode(data: bytes) -> RouterSolicitation | RouterAdvertisement | None:
    """Read one ICMPv6 message, without its IP header. None if it is another type; Icmpv6Malformed if it is broken."""
    if not data or len(data) > MAX_MESSAGE:
        raise Icmpv6Malformed(f"{len(data)} bytes")
    if data[0] not in (ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT):
        return None
    head = _SOLICITATION if data[0] == ROUTER_SOLICITATION else _ADVERTISEMENT
    if len(data) < head.size:
        raise Icmpv6Malformed(f"{len(data)} bytes, the header alone has {head.size}")
    if data[1] != 0:
        raise Icmpv6Malformed(f"code {data[1]}")
    source_mac = _source_mac(data[head.size :])
    if data[0] == ROUTER_SOLICITATION:
        return RouterSolicitation(source_mac)
    _, _, _, _, flags, lifetime, _, _ = _ADVERTISEMENT.unpack_from(data)
    return RouterAdvertisement(lifetime, bool(flags & 0x80), bool(flags & 0x40), source_mac)


def _source_mac(options: bytes) -> bytes | None:
    found: bytes | None = None
    at = 0
    while at < len(options):
        if at + 2 > len(options):
            raise Icmpv6Malformed("half an option")
        size = options[at + 1] * 8
        if size == 0 or at + size > len(options):
            raise Icmpv6Malformed(f"an option of {size} bytes with {len(options) - at} left")
        if options[at] == _SOURCE_LINK_LAYER and size == 8:
            found = options[at + 2 : at + 8]
        at += size
    return found


def encode(message: RouterSolicitation | RouterAdvertisement) -> bytes:
    """The message, with a checksum of 0 for the kernel to fill in."""
    if isinstance(message, RouterSolicitation):
        head = _SOLICITATION.pack(ROUTER_SOLICITATION, 0, 0, 0)
    else:
        flags = 0x80 * message.managed | 0x40 * message.other
        head = _ADVERTISEMENT.pack(ROUTER_ADVERTISEMENT, 0, 0, 0, flags, message.lifetime, 0, 0)
    if message.source_mac is None:
        return head
    return head + bytes((_SOURCE_LINK_LAYER, 1)) + message.source_mac
