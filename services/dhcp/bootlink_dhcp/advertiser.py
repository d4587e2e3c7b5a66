"""Answers IPv6 router solicitations with "here is no router for you".

Why. iPXE configures IPv6 beside IPv4. On a network where no router answers its solicitations it waits about 13
s, at each stage of a boot, before it goes on (measured; PROTOCOLS section 3.3). One advertisement ends the
wait.

What is sent: router lifetime 0, which means "not a default router" (RFC 4861 section 6.2.5); no prefix, no
DHCPv6 flags. So no station gets an address or a route from it, and no traffic comes to us. It is sent only in
answer; nobody else needs it. `auto` stays silent for as long as another router's own advertisement is good for.

Answers go to all nodes at once and at most every `GAP` seconds; a solicitation inside the gap is answered at
its end. RFC 4861 section 6.2.6 wants 3 s there, which would make a PC of a room that is switched on together
wait for longer than iPXE's own retry; we bend, because these carry nothing that anybody must process again.

IPv6 is a convenience here: whatever fails is said once, in the log and the health report, and DHCP goes on.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final, Literal

from bootlink_dhcp.interface import Card
from bootlink_runtime import Chassis
from bootlink_wire import icmpv6
from bootlink_wire.icmpv6 import Icmpv6Malformed, RouterAdvertisement, RouterSolicitation

GAP: Final = 0.1
HEARD_SECONDS: Final = 1800.0
"""How long a router counts as heard that does not say: three times the longest interval of RFC 4861 section 6.2.1."""
PACKETS_AT_ONCE: Final = 64

_ALL_NODES: Final = "ff02::1"
_ALL_ROUTERS: Final = "ff02::2"
_ICMP6_FILTER: Final = 1  # linux/icmpv6.h
_IPV6_RECVHOPLIMIT: Final = 51  # linux/in6.h, which Python does not name on every platform
_IPV6_HOPLIMIT: Final = 52


class RouterHearing:
    """Whether to answer now. Pure; time is passed in."""

    def __init__(self, mode: Literal["auto", "on"]) -> None:
        self._mode = mode
        self._silent_until = 0.0

    def heard(self, advertisement: RouterAdvertisement, now: float) -> bool:
        """Another router spoke; true if that is news. Lifetime 0 is no router: a second server like us, say."""
        if advertisement.lifetime == 0:
            return False
        news = now >= self._silent_until
        self._silent_until = now + max(advertisement.lifetime, HEARD_SECONDS)
        return news

    def answers(self, now: float) -> bool:
        """True if a solicitation is ours to answer."""
        return self._mode == "on" or now >= self._silent_until


class Advertiser:
    """The responder on one card."""

    def __init__(self, chassis: Chassis, card: Card, mode: Literal["auto", "on"]) -> None:
        """OSError if the card or the privileges do not allow it."""
        self._log, self._health, self._card = chassis.log, chassis.health, card
        self._hearing = RouterHearing(mode)
        self._loop = asyncio.get_running_loop()
        self._message = icmpv6.encode(RouterAdvertisement(source_mac=card.mac))
        self._quiet_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._sock = _open(card)
        self._loop.add_reader(self._sock, self._readable)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _readable(self) -> None:
        for _ in range(PACKETS_AT_ONCE):
            try:
                data, ancillary, _, _ = self._sock.recvmsg(icmpv6.MAX_MESSAGE + 1, 64)
            except BlockingIOError:
                return
            except OSError as error:
                self._log.warning("router solicitations: receiving failed", error=str(error))
                return
            self._received(data, ancillary)

    def _received(self, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        hops = [struct.unpack("=i", value)[0] for level, kind, value in ancillary
                if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_HOPLIMIT)]  # fmt: skip
        try:
            message = icmpv6.decode(data)
            if hops != [icmpv6.HOP_LIMIT]:
                raise Icmpv6Malformed("came through a router")
        except Icmpv6Malformed:
            self._health.count("router_messages_malformed")
            return
        now = self._loop.time()
        if isinstance(message, RouterAdvertisement):
            if self._hearing.heard(message, now):
                self._log.info("another router advertises IPv6 here; it is left to answer")
        elif isinstance(message, RouterSolicitation) and self._hearing.answers(now) and self._timer is None:
            self._timer = self._loop.call_later(max(0.0, self._quiet_until - now), self._advertise)

    def _advertise(self) -> None:
        self._timer = None
        self._quiet_until = self._loop.time() + GAP
        try:
            self._sock.sendto(self._message, (_ALL_NODES, 0, 0, self._card.index))
            self._health.count("router_advertisements")
        except OSError as error:
            # A card that just came up has no link-local address for a second or two; iPXE solicits again.
            self._health.count("router_advertisements_failed")
            self._log.debug("router advertisement not sent", error=str(error))


def _open(card: Card) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, card.name.encode() + b"\0")
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _passing(
            icmpv6.ROUTER_SOLICITATION, icmpv6.ROUTER_ADVERTISEMENT
        ))  # fmt: skip
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVHOPLIMIT, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, card.index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, icmpv6.HOP_LIMIT)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        for group in (_ALL_ROUTERS, _ALL_NODES):
            member = socket.inet_pton(socket.AF_INET6, group) + struct.pack("=I", card.index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
    except OSError:
        sock.close()
        raise
    return sock


def _passing(*types: int) -> bytes:
    """The kernel's filter: a bit per ICMPv6 type, 1 blocks it (RFC 3542 section 3.2)."""
    words = [0xFFFFFFFF] * 8
    for kind in types:
        words[kind >> 5] &= ~(1 << (kind & 31))
    return struct.pack("=8I", *words)
