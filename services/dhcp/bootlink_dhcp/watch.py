"""The watch for other servers: hears their answers as they pass our card, and asks now and then who would answer.

A raw socket with a filter in the kernel hears what DHCP and PXE servers send, and nothing that we send ourselves.
Most of it is broadcast; where it is not, the clients' own requests tell whom they chose, and `DhcpServer` hands those
over. And every `probe_seconds` two DISCOVERs go out, a plain one and one of a PXE client, under a MAC address that no
PC has: nobody has to boot for a rogue server to be noticed. No offer is ever taken up.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
from ipaddress import IPv4Address
from typing import Final

from bootlink_dhcp.bootfiles import PROBE_PREFIX
from bootlink_dhcp.foreign import ForeignServer, ForeignServers
from bootlink_dhcp.interface import Card, open_taps
from bootlink_runtime import Allowance, Chassis, listening
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import DhcpMalformed, DhcpPacket, MessageType
from bootlink_wire.dhcp_frame import MAX_PAYLOAD, heard, udp_datagram

PACKETS_AT_ONCE: Final = 64  # as on port 67
FRAME_MAX: Final = MAX_PAYLOAD + 14 + 60 + 8  # Ethernet, IP with all its options, UDP
LOOKS: Final = (0.0, 1.0, 3.0)  # seconds after the start: when `auto` asks, as one packet may be lost
LOOK_SECONDS: Final = 4.5
"""How long `auto` listens: dnsmasq pings an address for up to 3 s before it offers it, ISC's server for 1 s."""
TOLD_BURST: Final = 16
"""Servers that are told at once. There are never so many; anybody can make them up, and each costs an event."""
TOLD_PER_SECOND: Final = 1 / 60
PXE_PROBE_CLASS: Final = "PXEClient:Arch:00000:UNDI:002001"
_EVERYBODY: Final = b"\xff" * 6
_BROADCAST: Final = IPv4Address("255.255.255.255")
_NOBODY: Final = IPv4Address(0)
_ETHERTYPE_IPV4: Final = b"\x08\x00"


class Watch:
    """On one card."""

    def __init__(self, chassis: Chassis, card: Card, servers: ForeignServers) -> None:
        """Opens the socket: StartupError if it cannot be had."""
        self._bus, self._log, self._health, self._spawn = chassis.bus, chassis.log, chassis.health, chassis.spawn
        self._card, self._servers = card, servers
        self._allowance = Allowance(TOLD_BURST, TOLD_PER_SECOND)
        self._probed = False
        self._loop = asyncio.get_running_loop()
        self._sock = open_taps(card)
        self._loop.add_reader(self._sock, self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()

    async def look(self) -> bool:
        """Ask who is there, for `auto`. Whether another server gives out addresses here."""
        began = self._loop.time()
        for at in LOOKS:
            await asyncio.sleep(began + at - self._loop.time())
            self._probe()
        await asyncio.sleep(began + LOOK_SECONDS - self._loop.time())
        self._probed = True
        await self._ask_relatives()
        servers = self._servers.current(time.time())
        return any(server.gives_addresses and server.address not in self._servers.relatives for server in servers)

    async def keep_looking(self, seconds: int) -> None:
        """For ever: ask every so many seconds."""
        while True:
            await self._ask_relatives()
            self._probe()
            await asyncio.sleep(min(LOOK_SECONDS, seconds))
            self._probed = True
            await asyncio.sleep(max(0.0, seconds - LOOK_SECONDS))

    def chosen(self, packet: DhcpPacket, now: float) -> None:
        """A client asked a server for its address."""
        self._tell(self._servers.chosen(packet, now))

    def report(self) -> tuple[bool, str]:
        """For the health check."""
        servers = self._servers.current(time.time())
        strangers = [server for server in servers if not self._servers.belongs(server)]
        if strangers:
            return False, "; ".join(f"{_describe(server)}: {self._servers.remedy(server)}" for server in strangers)
        if self._servers.proxy and self._probed and not any(server.gives_addresses for server in servers):
            return (
                False,
                "no DHCP server answers, so PCs get no address: start it, or set BOOTLINK_DHCP_MODE=server",
            )
        return True, "; ".join(_describe(server) for server in servers) or "none was heard"

    def _readable(self) -> None:
        for _ in range(PACKETS_AT_ONCE):
            try:
                frame = self._sock.recv(FRAME_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                self._log.warning("watching for other servers: receiving failed", error=str(error))
                return
            datagram = heard(frame)
            if datagram is None:
                continue
            try:
                packet = dhcp.decode(datagram.payload)
            except DhcpMalformed:
                self._health.count("foreign_answers_malformed")
                continue
            if packet.op == dhcp.BOOTREPLY:
                mac = datagram.source_mac.hex(":")
                self._tell(self._servers.answered(packet, datagram.source, mac, time.time()))

    def _tell(self, server: ForeignServer | None) -> None:
        if server is None:
            return
        self._health.count("foreign_servers_heard")
        if not self._allowance.spend(server.seen):
            self._health.count("events_withheld")
            return
        self._spawn(self._tell_of(server), name="another server")

    async def _tell_of(self, server: ForeignServer) -> None:
        if not self._servers.belongs(server):
            await self._ask_relatives()
        if self._servers.belongs(server):
            self._log.info("another server", what=_describe(server))
        else:
            self._log.warning("another server", what=_describe(server), remedy=self._servers.remedy(server))
        self._bus.emit(self._servers.event(server, self._card.name))

    async def _ask_relatives(self) -> None:
        """Ask over NATS where the dhcp services of this Bootlink are. While it is away, they are where they were."""
        found = await listening(self._bus, "dhcp", "dhcp")
        if found:
            read = (_host(address) for address in found)
            self._servers.relatives = frozenset(host for host in read if host is not None)

    def _probe(self) -> None:
        address = PROBE_PREFIX + self._card.mac[3:]
        for vendor_class in (None, PXE_PROBE_CLASS):
            packet = DhcpPacket(
                op=dhcp.BOOTREQUEST,
                xid=random.getrandbits(32),
                chaddr=address,
                flags=dhcp.BROADCAST_FLAG,  # so that the answers come to us all
                options=dhcp.options(
                    opt.MESSAGE_TYPE.encode(MessageType.DISCOVER),
                    opt.VENDOR_CLASS.encode(vendor_class) if vendor_class else None,
                    opt.CLIENT_ARCHITECTURE.encode((0,)) if vendor_class else None,
                    opt.CLIENT_INTERFACE.encode(b"\x01\x02\x01") if vendor_class else None,
                    opt.PARAMETER_LIST.encode(struct.pack("6B", 1, 3, 43, 60, 66, 67)),
                ),
            )
            datagram = udp_datagram(_NOBODY, 68, _BROADCAST, 67, dhcp.encode(packet))
            try:
                self._sock.send(_EVERYBODY + self._card.mac + _ETHERTYPE_IPV4 + datagram)
            except OSError as error:  # the card is down, or has no link
                self._log.debug("probe not sent", error=str(error))


def _host(address: str) -> IPv4Address | None:
    """Of host:port, as a service tells it; None for what is no such thing."""
    try:
        return IPv4Address(address.rpartition(":")[0])
    except ValueError:
        return None


def _describe(server: ForeignServer) -> str:
    what = ("gives out addresses" * server.gives_addresses, "tells PCs what to boot" * server.gives_boot)
    gives = " and ".join(filter(None, what))
    at = f" ({server.mac})" if server.mac else ""
    file = f", such as {server.boot_file}" if server.boot_file else ""
    return f"{server.address}{at} {gives}{file}"
