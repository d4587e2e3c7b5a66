"""The I/O around `Probing`: asks by ARP and ICMP who has the addresses that are to be offered next."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address
from itertools import islice
from typing import Final

from bootlink_dhcp.interface import Card, open_arp, open_icmp
from bootlink_dhcp.leases import LeaseTable
from bootlink_dhcp.probing import AHEAD, AT_ONCE, EVERYTHING, PATIENCE, Answering, Probing
from bootlink_dhcp.reports import taken_remedy, taken_report
from bootlink_events import DhcpAddressTaken, EventData
from bootlink_runtime import Allowance, Health, Logger
from bootlink_wire import arp, icmp

BUSY: Final = 0.05  # seconds between looks while answers are awaited
IDLE: Final = 1.0  # and else
READS_AT_ONCE: Final = 256
TOLD_BURST: Final = 64
"""Addresses that are told of at once: some hosts, with all of theirs. Anybody can make them up; each costs an event."""
TOLD_PER_SECOND: Final = 1 / 60
_EVERYBODY: Final = b"\xff" * 6


class Prober:
    """Asks ahead, for all our subnets."""

    def __init__(
        self,
        card: Card,
        tables: Sequence[LeaseTable],
        probing: Probing,
        *,
        emit: Callable[[EventData], None],
        health: Health,
        log: Logger,
    ) -> None:
        """StartupError if the sockets are not permitted."""
        self._card, self._tables, self._probing = card, tables, probing
        self._emit, self._health, self._log = emit, health, log
        self._allowance = Allowance(TOLD_BURST, TOLD_PER_SECOND)
        self._identifier = os.getpid() & 0xFFFF
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._arp = open_arp(card)
        try:
            self._icmp = open_icmp(card) if len(tables) > 1 else None
        except BaseException:
            self._arp.close()
            raise
        self._loop.add_reader(self._arp, self._arp_readable)
        if self._icmp is not None:
            self._loop.add_reader(self._icmp, self._icmp_readable, self._icmp)

    def close(self) -> None:
        for sock in (self._arp, self._icmp):
            if sock is not None:
                self._loop.remove_reader(sock)
                sock.close()

    def clear(self, address: IPv4Address) -> bool:
        """It may be offered at once."""
        self._wake.set()  # one of those ahead goes: the next is to be asked about
        return self._probing.clear(address, time.time())

    async def ask(self, address: IPv4Address, client: str) -> bool:
        """Whether somebody else than the client has the address; an answer in `PATIENCE` seconds."""
        now = time.time()
        for asked in self._probing.wanted((address,), now):
            self._send(asked, now)
        await asyncio.sleep(PATIENCE)
        return self._probing.taken(address, client, time.time())

    async def run(self) -> None:
        """Keep what is offered next probed, for ever."""
        while True:
            now = time.time()
            self._probing.settle(now)
            for table in self._tables:
                ahead = self._probing.wanted(islice(table.ahead(), AHEAD), now)
                for address in list(islice(ahead, AT_ONCE)):
                    self._send(address, now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BUSY if self._probing.waiting else IDLE):
                    await self._wake.wait()
                await asyncio.sleep(BUSY)  # a storm wakes us with each packet
            self._wake.clear()

    def _send(self, address: IPv4Address, now: float) -> None:
        try:
            if address in self._card.own.network:
                self._arp.sendto(arp.probe(self._card.mac, address), (self._card.name, arp.ETHERTYPE, 0, 0, _EVERYBODY))
            elif self._icmp is not None:
                self._icmp.sendto(icmp.echo_request(self._identifier, 1), (str(address), 0))
        except OSError as error:  # the card is down, or there is no way there: nobody answers
            self._log.debug("probe not sent", address=str(address), error=str(error))
        self._probing.asked(address, now)

    def _arp_readable(self) -> None:
        for payload in _packets(self._arp):
            found = arp.sender(payload)
            if found is not None and found[1] != self._card.mac:
                self._heard(found[0], found[1].hex(":"))

    def _icmp_readable(self, sock: socket.socket) -> None:
        for packet in _packets(sock):
            address = icmp.echo_reply(packet, self._identifier)
            if address is not None:
                self._heard(address, "")

    def _heard(self, address: IPv4Address, mac: str) -> None:
        table = next((table for table in self._tables if address in table.subnet.network), None)
        if table is None or not table.spare(address):
            return
        host = self._probing.heard(address, mac, time.time())
        if host is None:
            return
        self._health.count("addresses_taken")
        if host.addresses > EVERYTHING and host.everything:
            return  # told
        if not self._allowance.spend(time.time()):
            self._health.count("events_withheld")
            return
        self._log.warning(
            "a host answers ARP for whatever is asked, so new PCs get no address"
            if host.everything
            else "an address of the pool is in use by somebody whom we gave none",
            address=str(address),
            mac=mac or None,
            remedy=taken_remedy(everything=host.everything),
        )
        self._emit(
            DhcpAddressTaken(
                mac=mac or None,
                address=address,
                addresses=host.addresses,
                everything=host.everything,
                remedy=taken_remedy(everything=host.everything),
                at=datetime.now(UTC),
            )
        )

    def report(self) -> tuple[bool, str]:
        """For the health check: who answers for addresses of a pool that we gave to nobody."""
        found: dict[str, list[IPv4Address]] = {}
        for address, mac in self._probing.answering(time.time()):
            if any(address in table.subnet.network and table.spare(address) for table in self._tables):
                found.setdefault(mac, []).append(address)
        return taken_report([Answering(mac, addresses[0], len(addresses)) for mac, addresses in found.items()])


def _packets(sock: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    with contextlib.suppress(OSError):  # none is left
        while len(found) < READS_AT_ONCE:
            found.append(sock.recv(2048))
    return found
