"""One TFTP read transfer, the sender's side: datagrams and time in, datagrams and a deadline out.

Theory of operation. The file is cut into blocks of the agreed size, numbered from 1; the last is shorter than the
others, so a file of an exact multiple ends with an empty block (RFC 1350 section 6). `_acked` counts the blocks the
client has acknowledged, `_sent` those that were sent: both count on for ever, and only on the wire are they reduced
to 16 bits, so 65535 rolls over to 0. At most one window (RFC 7440; one block where none was agreed) is between them.

    offered ──ACK 0──> sending ──ACK of the last block──> ended          (with an OACK)
                       sending ──ACK of the last block──> ended          (without)

- An ACK inside the window moves the window to just behind it and sends what is in it (RFC 7440 section 4).
- A repeated ACK is never answered. RFC 1123 section 4.2.3.1 forbids it: each copy would be answered by a copy, and
  every block of the rest of the file would travel twice (the Sorcerer's Apprentice Syndrome). What was really lost is
  sent again when the deadline passes: after 1 s, so that we are sooner than the client, and a bounded number of times.
- Before the client's first answer nobody has shown that it is at the address the request came from. Until then the
  OACK, no longer than the request but for digits, is repeated a few times, but a block of data is sent once per
  request and not by the clock: a request with a forged source is no lever. The client's own repeat of its request is
  answered each time.

What a client waits for is cut and numbered before it asks: `prepare`, which the caller calls once it has sent what
there was to send, makes the next window `ready`, and with it the one ACK that a client sends who has got all of the
window before: `awaited`. What comes is compared with that ACK first, octet by octet: of a large file nearly every
datagram is the one that was waited for, and a client in lock-step waits for each block as long as we take to decide.
The caller may compare for itself, send `ready` before all else, and then call `proceed`.

It ends in one of these ways: *complete*; *unconfirmed*: all was sent and all but the last window acknowledged, then
silence (firmware that jumps into the loader at once does not send its last ACK); *probe*: the client wanted to know
the size and broke off (EDK2 does so before each download); *aborted*: the client's ERROR; *lost*: the client stopped
acknowledging.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bootlink_wire import tftp
from bootlink_wire.tftp_options import Terms

__all__ = ["Outcome", "ReadTransfer", "netascii"]

RESENDS_MAX: Final = 10  # of one window: 11 s of patience, more than any client's own (iPXE, OVMF: 4 to 6 s)
UNANSWERED_RESENDS_MAX: Final = 4  # of an OACK that nobody has answered: bounds what a forged source can cause
UNANSWERED_SECONDS: Final = 6.0  # then a first block that nobody has answered is given up
REPEATS_MAX: Final = 8  # of one request: no client asks so often; what comes later begins a new transfer

OutcomeKind = Literal["complete", "unconfirmed", "probe", "aborted", "lost"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a transfer ended. `detail` says more in words; it may quote the client."""

    kind: OutcomeKind
    detail: str = ""

    @property
    def delivered(self) -> bool:
        """The client has the file, as far as we can know."""
        return self.kind in ("complete", "unconfirmed")


def netascii(payload: bytes) -> bytes:
    """A text file as netascii mode sends it (RFC 764): line ends as CR LF, a lone CR as CR NUL."""
    return payload.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")


class ReadTransfer:
    """Sends `payload` under `terms`.

    The caller sends what `start`, `receive`, `repeat` and `expire` return, in order, and calls `expire` once `now`
    has reached `deadline`. `now` is any clock in seconds that does not jump. Once `outcome` is set all is over.
    """

    def __init__(self, payload: bytes, terms: Terms) -> None:
        self._payload = payload
        self._terms = terms
        self._blocks = len(payload) // terms.block_size + 1
        self._acked = 0
        self._sent = 0
        self._resends = 0
        self._repeats = 0
        self._offered = bool(terms.granted)
        self.ready: list[bytes] = []  # the window that begins with block number `_ready_from`, counted from 0
        self._ready_from = -1
        self.awaited: bytes | None = None  # the ACK that asks for it and says that all that was sent has come
        self._block_size, self._window_size, self._resend_after = terms.block_size, terms.window, terms.resend_after
        self.answered = False  # the client has acknowledged something, so it exists
        self.deadline = 0.0
        self.outcome: Outcome | None = None
        self.resent = 0  # datagrams sent again, for statistics

    @property
    def bytes_acknowledged(self) -> int:
        return min(self._acked * self._terms.block_size, len(self._payload))

    def start(self, now: float) -> list[bytes]:
        """Begin: the OACK, or the first block where no option was granted."""
        if self._offered:
            self.deadline = now + self._terms.resend_after
            return [tftp.encode(tftp.OptionAck(self._terms.granted))]
        self.deadline = now + UNANSWERED_SECONDS
        return self._window()

    def receive(self, datagram: bytes, now: float) -> list[bytes]:
        """A datagram from the client. Raises TftpMalformed; the transfer then goes on as if it had not come."""
        if datagram == self.awaited:
            self.proceed(now)
            return self.ready
        block = tftp.acknowledged(datagram)
        if block is not None:
            return self._acknowledged(block, now) if self.outcome is None else []
        packet = tftp.decode(datagram)
        if self.outcome is not None:
            return []
        match packet:
            case tftp.Error(code, message):
                self._end(self._broken_off(code, message))
        return []  # DATA, OACK and requests have no business here; to answer would end a transfer that may be sound

    def repeat(self, now: float) -> list[bytes]:
        """The client sent its request again from the same port: it has not seen our first packet."""
        if self.outcome is not None or self.answered or self._repeats >= REPEATS_MAX:
            return []
        self._repeats += 1
        self._resends = 0
        self.resent += 1
        return self.start(now)

    def expire(self, now: float) -> list[bytes]:
        """The deadline has passed. Called too early it does nothing."""
        if self.outcome is not None or now < self.deadline:
            return []
        if not self.answered and (not self._offered or self._resends >= UNANSWERED_RESENDS_MAX):
            self._end(Outcome("lost", "the client never answered"))
            return []
        if self._resends >= RESENDS_MAX:
            self._end(self._silence("the client stopped acknowledging"))
            return []
        self._resends += 1
        self.deadline = now + self._terms.resend_after
        packets = [tftp.encode(tftp.OptionAck(self._terms.granted))] if self._offered else self._window()
        self.resent += len(packets)
        return packets

    def gone(self, why: str = "the client closed its port") -> None:
        """The client will not answer any more: its port is closed (ICMP port unreachable), or `why`."""
        if self.outcome is None:
            self._end(self._silence(why))

    def _acknowledged(self, block: int, now: float) -> list[bytes]:
        forward = (block - self._acked) & 0xFFFF
        if self._offered:
            if block != 0:
                return []  # an ACK of something else than the OACK: from an older transfer on this port
            self._offered = False
        elif not 1 <= forward <= self._sent - self._acked:
            return []  # a repeat, or older still: never answered (see above)
        self.answered = True
        self._acked += forward
        self._resends = 0
        if self._acked == self._blocks:
            self._end(Outcome("complete"))
            return []
        self.deadline = now + self._terms.resend_after
        return self._window()

    def prepare(self) -> None:
        """Make ready what the next ACK will ask for. Nothing depends on it but how soon that is answered."""
        at = self._sent
        if at < self._blocks and self.awaited is None and self.outcome is None:
            self.ready, self._ready_from = self._datagrams(at), at
            if not self._offered:  # the ACK of an offer means something else: see `_acknowledged`
                self.awaited = tftp.ack(at & 0xFFFF)

    def proceed(self, now: float) -> None:
        """`awaited` has come, and `ready` is sent: as `_acknowledged` does it, without its questions."""
        self._acked = at = self._sent
        self._sent = at + len(self.ready)
        self.awaited = None
        self._resends = 0
        self.answered = True
        self.deadline = now + self._resend_after

    def _window(self) -> list[bytes]:
        at = self._acked
        packets = self.ready if self._ready_from == at else self._datagrams(at)
        self._sent = at + len(packets)
        self.awaited = None
        return packets

    def _datagrams(self, first: int) -> list[bytes]:
        """The window that begins with this block, counted from 0."""
        size, payload = self._block_size, self._payload
        if self._window_size == 1:  # without what it costs to make a list of many
            return [tftp.data((first + 1) & 0xFFFF, payload[first * size : (first + 1) * size])]
        end = min(first + self._window_size, self._blocks)
        return [
            tftp.data((number + 1) & 0xFFFF, payload[number * size : (number + 1) * size])
            for number in range(first, end)
        ]

    def _broken_off(self, code: int, message: str) -> Outcome:
        if self._offered and self._terms.size_told:
            # EDK2 (OVMF) asks for the size, ends that transfer with "User aborted the transfer" and asks again
            # from a new port. So an ERROR in place of the ACK 0 is no failure.
            return Outcome("probe", message)
        return Outcome("aborted", f"error {code}: {message}")

    def _silence(self, detail: str) -> Outcome:
        return Outcome("unconfirmed" if self._acked and self._sent == self._blocks else "lost", detail)

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.awaited = None
