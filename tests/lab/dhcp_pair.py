"""Two dhcp servers on one link, each a process with a card of its own, and a room of PCs that asks them both.

The servers and a nats-server share the namespace `server`; their cards are ports of a bridge in the namespace `client`,
where the PCs are.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path

from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import DhcpPacket, MessageType
from bootlink_wire.dhcp_frame import udp_datagram
from lab.chassis import bus_on
from lab.dhcp_client import discover, message, request
from lab.dhcp_process import DhcpProcess
from lab.nats import LabEngine
from lab.netns import Cable, entered
from lab.process import Process

FIRST, SECOND = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")
BRIDGE = "br0"
EVERYBODY = b"\xff" * 6
ETHERTYPE_ALL = 3
ARP_REQUEST, ARP_REPLY = b"\x00\x01\x08\x00\x06\x04\x00\x01", b"\x00\x01\x08\x00\x06\x04\x00\x02"  # RFC 826
TRIES = 6
PATIENCE = 1.0  # seconds between a PC's tries; firmware waits longer


class PairCable(Cable):
    """Two cards in `server`, `lan0` and `lan1`, on one link with the bridge of `client`."""

    def __enter__(self) -> PairCable:
        super().__enter__()
        inside = [
            ("-n", self.client, "link", "add", BRIDGE, "type", "bridge"),
            ("-n", self.client, "link", "set", self.client_card, "master", BRIDGE),
            ("link", "add", "lan1", "netns", self.server, "type", "veth", "peer", "name", "pc1", "netns", self.client),
            ("-n", self.client, "link", "set", "pc1", "master", BRIDGE),
            ("-n", self.server, "addr", "add", f"{SECOND}/24", "dev", "lan1"),
            ("-n", self.server, "link", "set", "lan1", "up"),
            ("-n", self.client, "link", "set", "pc1", "up"),
            ("-n", self.client, "link", "set", BRIDGE, "up", "promisc", "on"),  # it hears what is sent to any PC
        ]
        for arguments in inside:
            self._ip(*arguments)
        return self


class Pair:
    """Both servers, and the NATS between them."""

    def __init__(self, cable: PairCable, folder: Path, *, pool: str, **settings: str) -> None:
        self.cable = cable
        self._engine = LabEngine(folder / "nats")
        self._engine.prepare()
        self._nats = Process(Cable.inside(cable.server, *self._engine.command), log=folder / "nats.log")
        self.servers = []
        for name, card, address in (("one", "lan0", FIRST), ("two", "lan1", SECOND)):
            (folder / name).mkdir()
            server = DhcpProcess(
                cable, folder / name, interface=card, server_address=str(address), pool=pool, **settings
            )
            server.env |= {"BOOTLINK_NATS_URL": self._engine.url, "BOOTLINK_NODE": name}
            self.servers.append(server)

    async def start_nats(self) -> None:
        with entered(self.cable.server):
            self._nats.start(self._engine.answers)
            async with bus_on(self._engine.url):
                pass

    def cut_nats(self) -> None:
        self._nats.kill()

    def stop(self) -> None:
        for server in self.servers:
            server.kill()
        self._nats.kill()

    def counters(self, number: int) -> str:
        """What a server has logged, for messages of failed tests."""
        return self.servers[number].log.read_text()[-2000:]


@dataclass
class _Pc:
    mac: str
    offers: dict[IPv4Address, DhcpPacket] = field(default_factory=dict)  # by server
    answer: asyncio.Future[DhcpPacket] | None = None
    xid: int = 0


class Crowd:
    """Many PCs behind one socket. `given` holds every address that any of them was ever promised, by whom."""

    def __init__(self, cable: Cable, seed: int) -> None:
        self._random = random.Random(seed)
        self._pcs: dict[int, _Pc] = {}  # by transaction
        self.given: dict[IPv4Address, set[str]] = {}
        self.by_server: dict[IPv4Address, int] = {}
        self.addresses: dict[str, IPv4Address] = {}  # where each PC is now
        self.silent: set[str] = set()  # those that are off, and answer no ARP
        with entered(cable.client):
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            self._sock.bind((BRIDGE, ETHERTYPE_ALL))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        asyncio.get_running_loop().add_reader(self._sock, self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def _send(self, packet: DhcpPacket) -> None:
        broadcast = replace(packet, flags=dhcp.BROADCAST_FLAG)
        datagram = udp_datagram(IPv4Address(0), 68, IPv4Address("255.255.255.255"), 67, dhcp.encode(broadcast))
        self._sock.send(EVERYBODY + packet.chaddr + b"\x08\x00" + datagram)

    def _readable(self) -> None:
        while True:
            try:
                frame = self._sock.recv(65535)
            except BlockingIOError:
                return
            if frame[12:14] == b"\x08\x06":
                self._arp(frame)
            elif frame[12:14] == b"\x08\x00" and frame[23] == 17 and int.from_bytes(frame[36:38]) == 68:
                self._heard(dhcp.decode(frame[42 : 34 + int.from_bytes(frame[38:40])]))

    def _arp(self, frame: bytes) -> None:
        """Whoever has the address that is asked for says so; a renewal's answer is sent to it as to any host."""
        if frame[14:22] != ARP_REQUEST:
            return
        asker, asked = frame[22:32], frame[38:42]
        mac = next((mac for mac, address in self.addresses.items() if address.packed == asked), None)
        if mac is not None and mac not in self.silent:
            own = bytes.fromhex(mac.replace(":", ""))
            self._sock.send(asker[:6] + own + b"\x08\x06" + ARP_REPLY + own + asked + asker)

    def _heard(self, packet: DhcpPacket) -> None:
        pc = self._pcs.get(packet.xid)
        if pc is None:
            return
        server = packet.get(opt.SERVER_ID)
        assert server is not None
        if packet.message_type is MessageType.OFFER:
            pc.offers[server] = packet
        else:
            if packet.message_type is MessageType.ACK:
                self.given.setdefault(packet.yiaddr, set()).add(pc.mac)
                self.addresses[pc.mac] = packet.yiaddr
                self.by_server[server] = self.by_server.get(server, 0) + 1
            if pc.answer is not None and not pc.answer.done():
                pc.answer.set_result(packet)

    async def offers(self, mac: str) -> set[IPv4Address]:
        """Which servers offer something."""
        pc = self._begin(mac)
        self._send(discover("os", mac, pc.xid))
        await asyncio.sleep(PATIENCE / 2)
        return set(pc.offers)

    async def boot(self, mac: str) -> IPv4Address | None:
        """DISCOVER to ACK at whichever server, as firmware does it; None if none ever promises an address."""
        for _ in range(TRIES):
            pc = self._begin(mac)
            asked = discover("os", mac, pc.xid)
            self._send(asked)
            await asyncio.sleep(PATIENCE * (0.5 + self._random.random()))
            if not pc.offers:
                continue
            offer = self._random.choice(list(pc.offers.values()))
            ack = await self._ask(pc, request(offer, asked))
            if ack is not None and ack.message_type is MessageType.ACK:
                return ack.yiaddr
        return None

    async def rebind(self, mac: str, *, tries: int = 3) -> MessageType | None:
        """What the first server to answer a REBINDING client says; None if none does."""
        for _ in range(tries):
            pc = self._begin(mac)
            asked = replace(message(MessageType.REQUEST, mac, ciaddr=self.addresses[mac]), xid=pc.xid)
            answer = await self._ask(pc, asked)
            if answer is not None:
                return answer.message_type
        return None

    async def _ask(self, pc: _Pc, packet: DhcpPacket) -> DhcpPacket | None:
        pc.answer = asyncio.get_running_loop().create_future()
        self._send(packet)
        try:
            return await asyncio.wait_for(pc.answer, PATIENCE * 2)
        except TimeoutError:
            return None

    def _begin(self, mac: str) -> _Pc:
        xid = self._random.getrandbits(32)
        self._pcs[xid] = pc = _Pc(mac, xid=xid)
        return pc

    def twice(self) -> dict[IPv4Address, set[str]]:
        """Addresses that were promised to more than one PC."""
        return {address: macs for address, macs in self.given.items() if len(macs) > 1}


def macs(start: int, count: int) -> Iterator[str]:
    return (f"52:54:00:00:{n >> 8:02x}:{n & 255:02x}" for n in range(start, start + count))
