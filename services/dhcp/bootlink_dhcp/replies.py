"""What is in a reply beside the address and the boot: the subnet's options, lease times, and as much else as fits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from bootlink_dhcp.subnet import Subnet
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import DhcpPacket
from bootlink_wire.dhcp_frame import MAX_PAYLOAD
from bootlink_wire.dhcp_values import encode_domains

RENEW_AT: Final = 0.5  # of the lease time, RFC 2131 section 4.4.5
REBIND_AT: Final = 0.875
ALWAYS_TAKEN: Final = 548
"""Bytes of UDP payload that every client takes: an IP packet of 576 (RFC 2131 section 2)."""
HEADERS: Final = 28  # of IP and UDP, which clients count in option 57


def lease_times(subnet: Subnet) -> list[tuple[int, bytes]]:
    """Options 51, 58 and 59."""
    return [
        opt.LEASE_TIME.encode(subnet.lease_seconds),
        opt.RENEWAL_TIME.encode(int(subnet.lease_seconds * RENEW_AT)),
        opt.REBINDING_TIME.encode(int(subnet.lease_seconds * REBIND_AT)),
    ]


def subnet_options(subnet: Subnet) -> list[tuple[int, bytes]]:
    """What every client in this subnet is told."""
    pairs = [
        opt.SUBNET_MASK.encode(subnet.network.netmask),
        opt.BROADCAST_ADDRESS.encode(subnet.network.broadcast_address),
    ]
    if subnet.router is not None:
        pairs.append(opt.ROUTER.encode((subnet.router,)))
    if subnet.dns:
        pairs.append(opt.DNS.encode(subnet.dns))
    if subnet.ntp:
        pairs.append(opt.NTP_SERVERS.encode(subnet.ntp))
    if subnet.domain:
        pairs.append(opt.DOMAIN_NAME.encode(subnet.domain))
    if subnet.search:
        pairs.append((opt.DOMAIN_SEARCH.code, encode_domains(list(subnet.search))))
    return pairs


def size_limit(request: DhcpPacket) -> int:
    """Bytes of UDP payload that this client takes."""
    said = (request.get(opt.MAX_MESSAGE_SIZE) or 0) - HEADERS
    return min(max(said, ALWAYS_TAKEN), MAX_PAYLOAD)


def fit(options: dict[int, bytes], optional: Sequence[tuple[int, bytes]], *, keep: Collection[int], most: int) -> None:
    """Add those of `optional` that fit, in their order; each takes the place of one of its code, but not of those in
    `keep`. Nothing is sent in part."""
    size = _size(options)
    for code, value in optional:
        if code in keep:
            continue
        grown = size - _part(options.get(code)) + _part(value)
        if grown <= most:
            options[code] = value
            size = grown


def _size(options: dict[int, bytes]) -> int:
    return dhcp.OPTIONS_AT + 1 + sum(map(_part, options.values()))


def _part(value: bytes | None) -> int:
    """Bytes that an option takes, with a head for each 255 (RFC 3396)."""
    return 0 if value is None else len(value) + 2 * max(1, -(-len(value) // opt.OPTION_SIZE))
