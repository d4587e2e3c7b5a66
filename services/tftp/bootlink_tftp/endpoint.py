"""The UDP side: one socket that takes requests, and one for each transfer.

A transfer has its own socket, as RFC 1350 section 4 wants (its port is the server's half of the transfer id), bound to
the address that the PC has asked, so that the answer of a machine with several addresses comes from the right one,
and connected to the PC, so that the kernel lets nobody else into it. RFC 1350 would answer strangers with error 5; a
connected socket answers them with ICMP "port unreachable", and tells us when the PC sends one.

Some old ROMs take answers from port 69 alone, and some firewalls let no other through: with `single_port` everything
goes through the request socket, and a datagram belongs to the transfer of the address and port it comes from.

Places are limited, in all and for each IP address. Anybody can take some with requests whose source is forged; so
where none is left, the oldest transfer that has not had one answer yet gives way, after a fraction of a second.

Everything that a packet causes happens in one callback; only finding the file is a task of its own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from bootlink_runtime import Health, Logger
from bootlink_tftp.answers import Answer, Answers, Forbidden, NotFound
from bootlink_tftp.sending import DATAGRAM_MAX, Transfer, connected
from bootlink_tftp.transfers import Capacity, OnEnd, Peer
from bootlink_wire import tftp
from bootlink_wire.tftp import ErrorCode, TftpMalformed
from bootlink_wire.tftp_options import Limits, negotiate
from bootlink_wire.tftp_transfer import ReadTransfer, netascii

REQUESTS_A_TURN: Final = 64  # taken from the socket before the loop serves others
UNANSWERED_YIELDS: Final = 0.25  # seconds; a PC that is there answers our first packet within a few milliseconds
NETASCII_MAX: Final = 256 << 10  # octets of a text; each transfer holds its own translated copy of it
RECEIVE_BUFFER: Final = 1 << 20  # octets of requests the kernel may hold for us: a room that is switched on at once

# linux/in.h: struct in_pktinfo { int ipi_ifindex; struct in_addr ipi_spec_dst, ipi_addr; }. Python 3.11 has no name
# for the option.
IP_PKTINFO: Final = getattr(socket, "IP_PKTINFO", 8)
_PKTINFO: Final = struct.Struct("=i4s4s")


def bind(host: str, port: int) -> socket.socket:
    """The socket for requests. Raises OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


class Endpoint:
    """Serves `answers` over TFTP on `sock` from `start` to `close`."""

    def __init__(
        self,
        sock: socket.socket,
        answers: Answers,
        *,
        limits: Limits,
        capacity: Capacity,
        single_port: bool = False,
        on_end: OnEnd,
        health: Health,
        log: Logger,
    ) -> None:
        self._sock = sock
        self._answers = answers
        self._limits = limits
        self._capacity = capacity
        self._single_port = single_port
        self._on_end = on_end
        self._health = health
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._transfers: dict[Peer, Transfer] = {}
        self._finding: dict[Peer, asyncio.Task[None]] = {}
        self._per_client: Counter[str] = Counter()

    @property
    def busy(self) -> int:
        """Transfers under way."""
        return len(self._transfers) + len(self._finding)

    def start(self) -> None:
        self._loop.add_reader(self._sock, self._readable)

    def stop_taking(self) -> None:
        """Take no further requests; transfers under way go on."""
        self._loop.remove_reader(self._sock)

    async def close(self) -> None:
        """End everything. PCs in the middle of a transfer are told."""
        self._loop.remove_reader(self._sock)
        tasks = list(self._finding.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transfer in list(self._transfers.values()):
            transfer.close("the boot server is being restarted")
        self._sock.close()

    def _readable(self) -> None:
        for _ in range(REQUESTS_A_TURN):
            try:
                datagram, ancillary, _, peer = self._sock.recvmsg(DATAGRAM_MAX, 128)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # an ICMP error about something we have sent; says nothing of the next datagram
                self._log.debug("request socket", error=str(error))
                continue
            self._request(datagram, peer, _asked_address(ancillary) or self._sock.getsockname()[0])

    def _request(self, datagram: bytes, peer: Peer, local: str) -> None:
        if self._single_port and not tftp.is_request(datagram) and (running := self._transfers.get(peer)):
            running.hear(datagram)
            return
        try:
            packet = tftp.decode(datagram)
        except TftpMalformed as error:
            self._health.count("tftp_malformed")
            self._log.debug("malformed packet", peer=peer[0], problem=str(error))
            if error.answer is not None:
                self._reply(error.answer, peer, local)
            return
        match packet:
            case tftp.ReadRequest():
                self._read_request(packet, peer, local)
            case tftp.WriteRequest(filename):
                self._health.count("tftp_write_refused")
                self._log.warning("write refused", name=ascii(filename)[2:-1], peer=peer[0])
                refusal = tftp.Error(ErrorCode.ACCESS_VIOLATION, "this server is read-only")
                self._reply(refusal, peer, local)
            case _:
                # An ACK or ERROR for a transfer that is no more. An answer would serve nobody.
                self._health.count("tftp_stray")

    def _read_request(self, request: tftp.ReadRequest, peer: Peer, local: str) -> None:
        if running := self._transfers.get(peer):
            if not running.left_behind(request):
                running.repeated()
                return
            running.end("the client began another transfer from the same port")
        if peer in self._finding:
            return
        self._health.count("tftp_requests")
        if request.mode == "mail":
            self._reply(tftp.Error(ErrorCode.ILLEGAL_OPERATION, "mail mode is not served"), peer, local)
            return
        if not (self._room_for(peer) or self._make_room(peer)):
            # No answer: an ERROR would end this PC's boot, but silence makes its firmware ask again in a second.
            self._health.count("tftp_over_capacity")
            self._log.warning("too many transfers", peer=peer[0], busy=self.busy)
            return
        self._per_client[peer[0]] += 1
        self._finding[peer] = self._loop.create_task(self._answer(request, peer, local))

    def _room_for(self, peer: Peer) -> bool:
        return self.busy < self._capacity.total and self._per_client.get(peer[0], 0) < self._capacity.per_client

    def _make_room(self, peer: Peer) -> bool:
        """End the oldest transfer whose client may not exist, without a word to anybody. False if there is none."""
        client_full = self._per_client.get(peer[0], 0) >= self._capacity.per_client
        now = self._loop.time()
        for (host, _), transfer in self._transfers.items():
            if client_full and host != peer[0]:
                continue
            if not transfer.machine.answered and now - transfer.started >= UNANSWERED_YIELDS:
                self._health.count("tftp_made_room")
                transfer.drop()
                return self._room_for(peer)
        return False

    async def _answer(self, request: tftp.ReadRequest, peer: Peer, local: str) -> None:
        begun = False
        try:
            answer = await self._answers.find(request.filename, peer=peer[0], local=local)
            begun = self._begin(request, answer, peer, local)
        except NotFound as error:
            self._reply(tftp.Error(ErrorCode.NOT_FOUND, str(error)), peer, local)
        except Forbidden as error:
            self._reply(tftp.Error(ErrorCode.ACCESS_VIOLATION, str(error)), peer, local)
        except Exception as error:
            # A bug of ours must cost one request, not the service; the PC is told, so that it does not wait.
            self._health.count("tftp_internal_errors")
            self._log.error("request failed", peer=peer[0], exc_info=error)
            self._reply(tftp.Error(ErrorCode.UNDEFINED, "the boot server failed; see its log"), peer, local)
        finally:
            self._finding.pop(peer, None)
            if not begun:
                self._leave(peer)

    def _begin(self, request: tftp.ReadRequest, answer: Answer, peer: Peer, local: str) -> bool:
        payload = answer.payload
        if request.mode == "netascii":
            if len(payload) > NETASCII_MAX:
                raise Forbidden(f"netascii is for text: {answer.file} has {len(payload)} bytes, ask for mode octet")
            payload = netascii(payload)
        machine = ReadTransfer(payload, negotiate(request.options, size=len(payload), limits=self._limits))
        sock: socket.socket | None = None
        send: Callable[[bytes], object] = partial(self._send_from, local, peer)
        if not self._single_port:
            try:
                sock = connected(local, peer)
            except OSError as error:
                self._health.count("tftp_no_socket")
                self._log.error("no socket for a transfer", peer=peer[0], error=str(error), remedy="raise `ulimit -n`?")
                return False
            send = sock.send
        transfer = Transfer(
            self._loop,
            sock,
            send,
            request,
            machine,
            self._health,
            alone=lambda: self.busy == 1,
            on_end=lambda ended: self._ended(ended, answer, peer),
        )
        self._transfers[peer] = transfer
        transfer.start()
        return True

    def _ended(self, transfer: Transfer, answer: Answer, peer: Peer) -> None:
        self._transfers.pop(peer, None)
        self._leave(peer)
        outcome = transfer.machine.outcome
        if outcome is not None:
            self._on_end(answer, peer, outcome, self._loop.time() - transfer.started)

    def _leave(self, peer: Peer) -> None:
        self._per_client[peer[0]] -= 1
        if self._per_client[peer[0]] <= 0:
            del self._per_client[peer[0]]

    def _reply(self, error: tftp.Error, peer: Peer, local: str) -> None:
        """An ERROR from the request port, out of the address that was asked."""
        try:
            self._send_from(local, peer, tftp.encode(error))
        except OSError as failure:
            self._log.debug("reply not sent", peer=peer[0], error=str(failure))

    def _send_from(self, local: str, peer: Peer, packet: bytes) -> int:
        info = _PKTINFO.pack(0, socket.inet_aton(local), bytes(4))
        return self._sock.sendmsg([packet], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, peer)


def _asked_address(ancillary: list[tuple[int, int, bytes]]) -> str | None:
    """Our address that a datagram was sent to; for a broadcast, the address of the card that it came in by."""
    for level, kind, content in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO and len(content) >= _PKTINFO.size:
            return socket.inet_ntoa(_PKTINFO.unpack_from(content)[1])
    return None
