"""Port 4011: where firmware that has its address from another server asks us what to boot (PXE 2.1 section 2.2.4).

It is a socket of its own, since the answer must come from the port that was asked, and goes back to the port that
asked: iPXE asks from 68, EDK2 from 4011 (both measured).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from bootlink_dhcp.decision import Decision
from bootlink_dhcp.interface import Card, open_udp, packet_info
from bootlink_dhcp.proxy import ProxyMachine
from bootlink_runtime import Health, Logger
from bootlink_wire import dhcp
from bootlink_wire.dhcp import DhcpMalformed

BINL_PORT: Final = 4011  # PXE 2.1 section 2.2.4
PACKETS_AT_ONCE: Final = 64  # as on port 67


class BinlEndpoint:
    """The port on one card."""

    def __init__(
        self, card: Card, machine: ProxyMachine, told: Callable[[Decision], None], *, health: Health, log: Logger
    ) -> None:
        """Opens the port: StartupError if it cannot be had. `told` is handed what is to be told, without the reply."""
        self._machine, self._told, self._health, self._log = machine, told, health, log
        self._packet_info = packet_info(card)
        self._loop = asyncio.get_running_loop()
        self._udp = open_udp(card, BINL_PORT)
        self._loop.add_reader(self._udp, self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._udp)
        self._udp.close()

    def _readable(self) -> None:
        for _ in range(PACKETS_AT_ONCE):
            try:
                data, source = self._udp.recvfrom(dhcp.MAX_PACKET + 1)
            except BlockingIOError:
                return
            except OSError as error:
                self._log.warning("port 4011: receiving failed", error=str(error))
                return
            self._received(data, source, time.time())

    def _received(self, data: bytes, source: tuple[str, int], now: float) -> None:
        try:
            packet = dhcp.decode(data)
        except DhcpMalformed as error:
            self._health.count("dropped_malformed")
            self._log.debug("packet dropped", reason=str(error))
            return
        decision = self._machine.asked(packet, IPv4Address(source[0]), now)
        self._health.count(decision.count)
        if decision.reply is not None:
            try:
                self._udp.sendmsg([dhcp.encode(decision.reply.packet)], self._packet_info, socket.MSG_DONTWAIT, source)
            except (OSError, ValueError) as error:  # the card is down, its queue is full, or the packet is too long
                self._health.count("replies_not_sent")
                self._log.warning("reply not sent", to=packet.chaddr.hex(":"), via="port 4011", error=str(error))
        self._told(replace(decision, reply=None))
