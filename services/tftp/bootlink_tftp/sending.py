"""One TFTP transfer under way: the machine, what it sends and hears through, and its timer.

A transfer keeps one timer that is not set anew for each packet: when it rings early it is set to what the deadline has
become. Usually it has a socket of its own (see `endpoint`). Where all of TFTP goes through the request port, what the
client sends is handed to `hear`, and the kernel cannot tell that the client's port is closed: then the deadline does.

A client in lock-step that is near (a guest of this machine, say) answers a block within 20 us, and to put a core to
sleep and wake it takes as long again. So a transfer that is the only one looks for the answer, once it has sent, for a
moment before it gives the turn back. That costs no more CPU than the sleep did, and makes such a client half as fast
again. It is a bet on the client, with a stake: where answers take longer than that moment, as behind most switches, the
moments lost soon end it for this transfer. A turn is bounded, because all others wait for its end.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from time import monotonic
from typing import Final

from bootlink_runtime import Health
from bootlink_tftp.transfers import Peer
from bootlink_wire import tftp
from bootlink_wire.tftp import ErrorCode, TftpMalformed
from bootlink_wire.tftp_transfer import ReadTransfer

DATAGRAM_MAX: Final = 2_048  # octets read of one datagram: requests have 512 at most, and clients send no more
# Octets read of one datagram where only ACK and ERROR have business: an ERROR with all of its text that is kept. What
# the interpreter keeps at hand for small objects holds it, which a buffer for each ACK is taken from.
ANSWER_MAX: Final = 4 + tftp.ERROR_TEXT_MAX
# Some PXE ROMs send all their requests from one port. A request for another file than is being sent there is one of a
# PC that has been reset, unless the PC has answered within the first time; one for the same file may be a late copy.
SILENT_SECONDS: Final = 0.25
STALE_SECONDS: Final = 2.0  # longer than any client waits before it repeats its ACK
MOMENT_SECONDS: Final = 50e-6  # for which an answer is looked for: what sleeping and waking cost, with a margin
MOMENTS_LOST_MAX: Final = 8  # more than were won, until it is left: 0.4 ms of a transfer with a client that is far away
BLOCKS_A_TURN: Final = 32  # sent one after the other, about 1 ms for which nobody else is served


class Transfer:
    """A `ReadTransfer` with its timer. `sock` is its own, or None where `send` goes through the request port.

    `alone` tells whether no other transfer is under way.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket | None,
        send: Callable[[bytes], object],
        request: tftp.ReadRequest,
        machine: ReadTransfer,
        health: Health,
        alone: Callable[[], bool],
        on_end: Callable[[Transfer], None],
    ) -> None:
        self.machine = machine
        self._loop, self._now = loop, loop.time
        self.started = self._heard = loop.time()
        self._sock = sock
        self._send_one = send
        self._request = request
        self._health = health
        self._alone = alone
        self._on_end = on_end
        self._stake = MOMENTS_LOST_MAX
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._sock is not None:
            self._loop.add_reader(self._sock, self._readable, self._sock)
        self._send(self.machine.start(self._loop.time()))
        self._timer = self._loop.call_at(self.machine.deadline, self._rings)

    def repeated(self) -> None:
        self._send(self.machine.repeat(self._loop.time()))

    def left_behind(self, request: tftp.ReadRequest) -> bool:
        """This request, from the client's port, shows that it no longer follows this transfer."""
        if not self.machine.answered:
            return request != self._request
        silent = self._loop.time() - self._heard
        return silent >= (STALE_SECONDS if request == self._request else SILENT_SECONDS)

    def end(self, why: str) -> None:
        """The client has turned away."""
        self.machine.gone(why)
        self._finish()

    def close(self, reason: str) -> None:
        """Break off: the client is sent an ERROR."""
        self._send([tftp.encode(tftp.Error(ErrorCode.UNDEFINED, reason))])
        self._finish()

    def drop(self) -> None:
        """End without an outcome: nobody has ever answered."""
        self._finish()

    def hear(self, datagram: bytes) -> None:
        """The client has sent this."""
        machine = self.machine
        if datagram == machine.awaited:
            self._send(machine.ready)  # before anything is written down: the client waits for it
            self._heard = now = self._now()
            machine.proceed(now)
        else:
            self._heard = now = self._now()
            try:
                packets = machine.receive(datagram, now)
            except TftpMalformed:
                self._health.count("tftp_malformed")
                return
            self._send(packets)
        if machine.outcome is None:
            machine.prepare()
        else:
            self._finish()

    def _readable(self, sock: socket.socket) -> None:
        datagram = self._read(sock)
        blocks = 0
        while datagram is not None:
            self.hear(datagram)
            blocks += max(1, len(self.machine.ready))  # the next window is as long as the one just sent, but at the end
            if self.machine.outcome is not None or blocks >= BLOCKS_A_TURN or not self._stake or not self._alone():
                return
            datagram = self._look_out(sock)

    def _look_out(self, sock: socket.socket) -> bytes | None:
        """The answer to what was just sent, if it comes at once."""
        until = monotonic() + MOMENT_SECONDS
        while (datagram := self._read(sock)) is None:
            if self.machine.outcome is not None:
                return None
            if monotonic() >= until:
                self._stake -= 1
                return None
        if self._stake < MOMENTS_LOST_MAX:
            self._stake += 1
        return datagram

    def _read(self, sock: socket.socket) -> bytes | None:
        """What the client has sent; None if there is nothing. The transfer has ended where the client has."""
        try:
            return sock.recv(ANSWER_MAX)
        except (BlockingIOError, InterruptedError):
            pass
        except ConnectionError:
            self.end("the client closed its port")
        except OSError:  # no route, cable out: the deadline decides
            pass
        return None

    def _rings(self) -> None:
        self._send(self.machine.expire(self._loop.time()))
        if self.machine.outcome is not None:
            self._finish()
        else:
            self._timer = self._loop.call_at(self.machine.deadline, self._rings)

    def _send(self, packets: list[bytes]) -> None:
        for packet in packets:
            try:
                self._send_one(packet)
            except OSError:
                # A full queue, or an ICMP error of the packet before. Either is a packet lost, which the deadline
                # mends; a port that is closed is seen by the next read.
                self._health.count("tftp_sends_failed")

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._sock.close()
        self._on_end(self)


def connected(local: str, peer: Peer) -> socket.socket:
    """A socket of a transfer's own. Raises OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind((local, 0))
        sock.connect(peer)
    except OSError:
        sock.close()
        raise
    return sock
