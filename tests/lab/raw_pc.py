"""A PC that boots, on the wire: DHCP through a raw socket, and no answer to ARP, as of firmware."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from ipaddress import IPv4Address
from typing import Protocol

from bootlink_wire import dhcp
from bootlink_wire.dhcp import DhcpPacket
from bootlink_wire.dhcp_frame import udp_datagram
from lab.dhcp_client import Firmware, discover, request
from lab.netns import entered

ETHERTYPE_ALL = 3
BROADCAST = b"\xff" * 6
EVERYONE = IPv4Address("255.255.255.255")


class Plug(Protocol):
    """Where a PC is plugged in: a namespace, and the card in it."""

    @property
    def client(self) -> str: ...
    @property
    def client_card(self) -> str: ...


class RawPc:
    """One PC on the client end of the cable, known by its MAC address."""

    def __init__(self, cable: Plug, mac: str) -> None:
        self.mac = mac
        self._address = bytes.fromhex(mac.replace(":", ""))
        self._random = random.Random(mac)
        with entered(cable.client):
            self._sock = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETHERTYPE_ALL)
            )
            self._sock.bind((cable.client_card, 0))

    def __enter__(self) -> RawPc:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def send(self, payload: bytes) -> None:
        """A UDP payload from 0.0.0.0:68 to everybody's port 67."""
        self._broadcast(udp_datagram(IPv4Address(0), 68, EVERYONE, 67, payload))

    def answer(self, packet: DhcpPacket, server: IPv4Address) -> None:
        """What a DHCP server on this PC, with this address, tells everybody."""
        self._broadcast(udp_datagram(server, 67, EVERYONE, 68, dhcp.encode(packet)))

    def _broadcast(self, packet: bytes) -> None:
        self._sock.send(BROADCAST + self._address + b"\x08\x00" + packet)

    async def ask(self, packet: DhcpPacket, *, seconds: float = 2.0) -> DhcpPacket | None:
        """Send, and wait for the answer to this transaction; None if there is none in time."""
        self.send(dhcp.encode(packet))
        try:
            async with asyncio.timeout(seconds):
                while True:
                    reply = await self._receive()
                    if reply is not None and reply.xid == packet.xid:
                        return reply
        except TimeoutError:
            return None

    async def answers(self, packet: DhcpPacket, *, count: int, seconds: float = 10.0) -> list[DhcpPacket]:
        """Send, and wait; what was answered, by whomever, until there are so many or the time is over."""
        self.send(dhcp.encode(packet))
        found: list[DhcpPacket] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(found) < count:
                    reply = await self._receive()
                    if reply is not None and reply.xid == packet.xid and reply.op == dhcp.BOOTREPLY:
                        found.append(reply)
        return found

    async def _receive(self) -> DhcpPacket | None:
        frame = await asyncio.get_running_loop().sock_recv(self._sock, 65535)
        if frame[:6] not in (self._address, BROADCAST) or frame[12:14] != b"\x08\x00" or frame[23] != 17:
            return None
        if int.from_bytes(frame[36:38]) != 68:
            return None
        return dhcp.decode(frame[42 : 34 + int.from_bytes(frame[38:40])])

    async def frame(self, *, seconds: float = 2.0) -> bytes:
        """The next Ethernet frame that reaches its card. TimeoutError if none does."""
        async with asyncio.timeout(seconds):
            return await asyncio.get_running_loop().sock_recv(self._sock, 65535)

    async def boot_pass(self, firmware: Firmware) -> DhcpPacket:
        """DISCOVER, OFFER, REQUEST, ACK with a transaction id of its own; returns the ACK."""
        asked = discover(firmware, self.mac, self._random.getrandbits(32))
        offer = await self.ask(asked)
        assert offer is not None, f"no OFFER for {firmware}"
        ack = await self.ask(request(offer, asked))
        assert ack is not None, f"no ACK for {firmware}"
        return ack
