"""What passes on a card of a namespace, as a listener on the wire sees it: for tests of what clients really send."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import TracebackType

from bootlink_wire import dhcp
from bootlink_wire.dhcp import DhcpMalformed, DhcpPacket, MessageType
from lab.netns import entered

ETHERTYPE_ALL = 3
FRAME_MAX = 65_535
POLL_SECONDS = 0.02
SHOWN = 20  # messages, where what was waited for did not come
BUFFER = 8 << 20  # bytes: a boot's worth of small frames while the test looks elsewhere


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP datagram over IPv4."""

    source: IPv4Address
    source_port: int
    target: IPv4Address
    target_port: int
    payload: bytes

    @property
    def dhcp(self) -> DhcpPacket | None:
        """The DHCP packet, if it is one: by its ports, 67 and 68, and 4011 of PXE."""
        if not {self.source_port, self.target_port} & {67, 68, 4011}:
            return None
        try:
            return dhcp.decode(self.payload)
        except DhcpMalformed:
            return None

    @property
    def message(self) -> MessageType | None:
        packet = self.dhcp
        return packet.message_type if packet is not None else None

    @property
    def file(self) -> str | None:
        """The name that a TFTP read request asks for."""
        if self.target_port == 69 and self.payload[:2] == b"\0\1":
            return self.payload[2:].split(b"\0")[0].decode("latin-1")
        return None


def datagram(frame: bytes) -> Datagram | None:
    """The datagram in an Ethernet frame; None for anything else, and for a fragment but the first."""
    if frame[12:14] != b"\x08\x00" or len(frame) < 42 or frame[23] != socket.IPPROTO_UDP:
        return None
    if int.from_bytes(frame[20:22]) & 0x1FFF:
        return None
    at = 14 + (frame[14] & 15) * 4
    length = int.from_bytes(frame[at + 4 : at + 6])
    return Datagram(
        IPv4Address(frame[26:30]),
        int.from_bytes(frame[at : at + 2]),
        IPv4Address(frame[30:34]),
        int.from_bytes(frame[at + 2 : at + 4]),
        frame[at + 8 : at + length],
    )


def http_request(frame: bytes) -> bytes | None:
    """The head of the HTTP request that a frame begins, with its empty line; None for anything else."""
    if frame[12:14] != b"\x08\x00" or len(frame) < 54 or frame[23] != socket.IPPROTO_TCP:
        return None
    at = 14 + (frame[14] & 15) * 4
    payload = frame[at + (frame[at + 12] >> 4) * 4 : 14 + int.from_bytes(frame[16:18])]
    head, end, _ = payload.partition(b"\r\n\r\n")
    return head + end if end and head.startswith((b"HEAD ", b"GET ")) else None


class Sniffer:
    """Listens on one card from the start of the `with` block; `frames` and `datagrams` are all that came so far."""

    def __init__(self, namespace: str, card: str) -> None:
        with entered(namespace):
            kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
            self._sock = socket.socket(socket.AF_PACKET, kind, socket.htons(ETHERTYPE_ALL))
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            self._sock.bind((card, 0))
        self._frames: list[bytes] = []

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    @property
    def frames(self) -> list[bytes]:
        while True:
            try:
                self._frames.append(self._sock.recv(FRAME_MAX))
            except BlockingIOError:
                return self._frames

    @property
    def datagrams(self) -> list[Datagram]:
        return [found for frame in self.frames if (found := datagram(frame)) is not None]

    def forget(self) -> None:
        """Begin anew: what passed so far no longer counts."""
        self.frames.clear()

    def said(self, *kinds: MessageType) -> list[Datagram]:
        """The DHCP messages of these kinds, in order."""
        return [one for one in self.datagrams if one.message in kinds]

    async def hears(self, what: Callable[[Datagram], bool], *, seconds: float = 30) -> Datagram:
        """The first datagram that `what` holds for, once it has come."""
        deadline = time.monotonic() + seconds
        while True:
            for one in self.datagrams:
                if what(one):
                    return one
            if time.monotonic() > deadline:
                heard = [_short(one) for one in self.datagrams if one.message or one.file]
                raise AssertionError(f"not heard within {seconds:g} s, but at last {heard[-SHOWN:]}")
            await asyncio.sleep(POLL_SECONDS)


def _short(one: Datagram) -> str:
    what = one.message.name if one.message else one.file
    return f"{one.source}:{one.source_port} > {one.target}:{one.target_port} {what}"
