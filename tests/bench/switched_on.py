"""`python -m bench.switched_on CARD SERVER COUNT`: a room of PCs without disks is switched on at one moment.

Runs at the PCs' end of the cable. Each PC has a MAC address of its own and behaves as the iPXE ROM of a network card,
as captured: DISCOVER, REQUEST, the loader over TFTP, and then, as the loader, both again and its script. DHCP goes
through one raw socket; for TFTP each PC uses the address that it was given.

Prints a line of JSON for each PC: the seconds until its loader was there, and until its script was; the longest that it
waited for one answer; how often it had to ask again; and what went wrong, if anything did.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from typing import Final

import uvloop

from bootlink_wire import dhcp, tftp
from bootlink_wire.dhcp import DhcpPacket
from bootlink_wire.dhcp_frame import udp_datagram
from lab.dhcp_client import FIRMWARE_PATIENCE, FIRMWARE_TRIES, discover, request
from lab.raw_pc import BROADCAST, EVERYONE
from lab.tftp import Address

BLOCK: Final = 1432  # what iPXE asks for
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_SO_ATTACH_FILTER: Final = 26
_ETHERTYPE_IPV4: Final = 0x0800
_FOR_PCS: Final = (
    # A classic BPF program (linux/filter.h): code, jump if true, jump if false, operand. UDP to port 68, in IP without
    # options, as our servers send it. All else is none of DHCP, and 32,000 frames of TFTP would fill the socket.
    (0x30, 0, 0, 23),
    (0x15, 0, 3, socket.IPPROTO_UDP),
    (0x28, 0, 0, 36),
    (0x15, 0, 1, 68),
    (0x06, 0, 0, 0x40000),  # pass
    (0x06, 0, 0, 0),
)
RECEIVE_BUFFER: Final = 8 << 20  # octets: a room's answers all come to one socket here


class Failed(Exception):
    """This PC does not boot."""


@dataclass
class Boot:
    """One PC's way to its script. Seconds since the switch was thrown."""

    mac: str
    loader: float = 0.0
    script: float = 0.0
    longest_wait: float = 0.0
    asked_again: int = 0
    problem: str = ""

    def waited(self, since: float) -> None:
        self.longest_wait = max(self.longest_wait, time.monotonic() - since)


class Lan:
    """The PCs' end of the cable: who waits for which transaction."""

    def __init__(self, card: str) -> None:
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in _FOR_PCS))
        filter_ = struct.pack("HL", len(_FOR_PCS), ctypes.addressof(program))
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
        self._sock.bind((card, _ETHERTYPE_IPV4))
        self._taken: set[IPv4Address] = set()
        self._routes = subprocess.Popen(["ip", "-batch", "-"], stdin=subprocess.PIPE)
        self._waiting: dict[int, asyncio.Future[DhcpPacket]] = {}
        asyncio.get_running_loop().add_reader(self._sock, self._readable)

    def send(self, mac: bytes, packet: DhcpPacket) -> asyncio.Future[DhcpPacket]:
        """Broadcast it; the future is its answer."""
        answer = self._waiting[packet.xid] = asyncio.get_running_loop().create_future()
        datagram = udp_datagram(IPv4Address(0), 68, EVERYONE, 67, dhcp.encode(packet))
        self._sock.send(BROADCAST + mac + b"\x08\x00" + datagram)
        return answer

    async def take(self, sock: socket.socket, address: IPv4Address) -> None:
        """Bind to a PC's address, once it is this end's. Not sooner: the server looks whether it is free."""
        if address not in self._taken:
            self._taken.add(address)
            assert self._routes.stdin is not None
            self._routes.stdin.write(f"route add local {address} dev lo\n".encode())
            self._routes.stdin.flush()
        async with asyncio.timeout(FIRMWARE_PATIENCE):
            while True:
                try:
                    return sock.bind((str(address), 0))
                except OSError:  # `ip` has not come to it yet
                    await asyncio.sleep(0.002)

    def _readable(self) -> None:
        for _ in range(64):
            try:
                frame = self._sock.recv(2048)
            except BlockingIOError:
                return
            answer = self._waiting.pop(int.from_bytes(frame[46:50]), None)
            if answer is not None and not answer.done():
                answer.set_result(dhcp.decode(frame[42 : 34 + int.from_bytes(frame[38:40])]))


class Pc:
    """One PC."""

    def __init__(self, lan: Lan, server: str, number: int) -> None:
        self.boot = Boot(f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}")
        self._mac = bytes.fromhex(self.boot.mac.replace(":", ""))
        self._lan, self._server, self._number = lan, server, number

    async def switch_on(self) -> None:
        began = time.monotonic()
        try:
            ack = await self._addressed(2 * self._number)
            loader = await self._fetched(ack.file.decode(), ack.yiaddr)
            if len(loader) < BLOCK:
                raise Failed(f"a loader of {len(loader)} octets")
            self.boot.loader = time.monotonic() - began
            ack = await self._addressed(2 * self._number + 1)
            script = await self._fetched(ack.file.decode().removeprefix(f"tftp://{self._server}/"), ack.yiaddr)
            if not script.startswith(b"#!ipxe") or b"sanboot" not in script:
                raise Failed(f"a script that starts no disk: {script[:200]!r}")
            self.boot.script = time.monotonic() - began
        except (Failed, OSError, tftp.TftpMalformed) as error:
            self.boot.problem = repr(error)

    async def _addressed(self, number: int) -> DhcpPacket:
        """Four packets; the last of them."""
        asked = discover("ipxe", self.boot.mac, 0x1000_0000 + 2 * number)
        offer = await self._exchanged(asked)
        return await self._exchanged(request(offer, asked))

    async def _exchanged(self, packet: DhcpPacket) -> DhcpPacket:
        for _ in range(FIRMWARE_TRIES):
            asked = time.monotonic()
            try:
                async with asyncio.timeout(FIRMWARE_PATIENCE):
                    return await self._lan.send(self._mac, packet)
            except TimeoutError:
                self.boot.asked_again += 1
            finally:
                self.boot.waited(asked)
        raise Failed(f"no answer to {packet.message_type!r}")

    async def _fetched(self, file: str, own: IPv4Address) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await self._lan.take(sock, own)
            return await Fetch(sock, self.boot, file).fetched((self._server, 69))


class Fetch:
    """One file over TFTP, one block at a time. A PC has a CPU of its own, and here hundreds share one: so each datagram
    costs a callback, not a task's turn with a timer of its own."""

    def __init__(self, sock: socket.socket, boot: Boot, file: str) -> None:
        self._sock, self._boot, self._file = sock, boot, file
        self._loop = asyncio.get_running_loop()
        self._whole: asyncio.Future[bytes] = self._loop.create_future()
        self._found: list[bytes] = []
        self._last, self._to, self._tries, self._asked = b"", ("", 0), 0, 0.0

    async def fetched(self, server: Address) -> bytes:
        """The file. Raises Failed, OSError and TftpMalformed."""
        options = (("blksize", str(BLOCK)), ("tsize", "0"))
        self._ask(tftp.encode(tftp.ReadRequest(self._file.encode(), "octet", options)), server)
        self._loop.add_reader(self._sock, self._readable)
        timer = self._loop.create_task(self._firmware_timer())
        try:
            return await self._whole
        finally:
            timer.cancel()
            self._loop.remove_reader(self._sock)

    def _ask(self, datagram: bytes, to: Address) -> None:
        self._last, self._to, self._tries = datagram, to, 1
        self._asked = time.monotonic()
        self._sock.sendto(datagram, to)

    def _readable(self) -> None:
        if self._whole.done():
            return
        self._boot.waited(self._asked)
        try:
            datagram, peer = self._sock.recvfrom(2048)
            self._heard(tftp.decode(datagram), peer)
        except (Failed, OSError, tftp.TftpMalformed) as error:
            self._whole.set_exception(error)

    def _heard(self, packet: tftp.Packet, peer: Address) -> None:
        match packet:
            case tftp.Error(_, message):
                raise Failed(f"{self._file}: {message}")
            case tftp.OptionAck():
                self._ask(tftp.ack(0), peer)
            case tftp.Data(block, payload):
                if block == (len(self._found) + 1) & 0xFFFF:
                    self._found.append(payload)
                self._ask(tftp.ack(len(self._found) & 0xFFFF), peer)
                if len(payload) < BLOCK:
                    self._whole.set_result(b"".join(self._found))

    async def _firmware_timer(self) -> None:
        """Asks again for what has not come in time."""
        while True:
            await asyncio.sleep(max(self._asked + FIRMWARE_PATIENCE - time.monotonic(), 0.0))
            if time.monotonic() < self._asked + FIRMWARE_PATIENCE or self._whole.done():
                continue
            self._boot.asked_again += 1
            self._boot.waited(self._asked)
            if self._tries == FIRMWARE_TRIES:
                self._whole.set_exception(Failed("no answer over TFTP"))
                return
            self._tries += 1
            self._asked = time.monotonic()
            try:
                self._sock.sendto(self._last, self._to)
            except OSError as error:
                self._whole.set_exception(error)
                return


async def main(card: str, server: str, count: int) -> None:
    lan = Lan(card)
    pcs = [Pc(lan, server, number) for number in range(1, count + 1)]
    await asyncio.gather(*(pc.switch_on() for pc in pcs))
    for pc in pcs:
        print(json.dumps(asdict(pc.boot)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
