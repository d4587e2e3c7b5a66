"""The transfer machine, against a client model over a channel that loses, repeats and delays.

Invariant: every transfer ends; it ends complete only if the client has every byte; and what is sent to somebody who
never answers is bounded by what he sent.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_wire import tftp
from bootlink_wire.tftp import Ack, Data, Error, OptionAck, TftpMalformed, encode
from bootlink_wire.tftp_options import Limits, Terms, negotiate
from bootlink_wire.tftp_transfer import (
    RESENDS_MAX,
    UNANSWERED_RESENDS_MAX,
    Outcome,
    ReadTransfer,
    netascii,
)

PLAIN = Terms()
IPXE = negotiate((("blksize", "1432"), ("tsize", "0")), size=3000, limits=Limits())


def blocks(datagrams: list[bytes]) -> list[int]:
    """The block numbers of DATA packets."""
    packets = [tftp.decode(datagram) for datagram in datagrams]
    assert all(isinstance(packet, Data) for packet in packets)
    return [packet.block for packet in packets if isinstance(packet, Data)]


def ack(block: int) -> bytes:
    return encode(Ack(block & 0xFFFF))


def fetch(machine: ReadTransfer) -> bytes:
    """Everything the machine sends to a client that acknowledges each block at once."""
    got = b""
    out = machine.start(0.0)
    while out:
        (datagram,) = out
        packet = tftp.decode(datagram)
        if isinstance(packet, Data):
            got += packet.payload
        out = machine.receive(ack(packet.block if isinstance(packet, Data) else 0), 0.0)
    return got


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, 5000])
def test_a_file_arrives_whole_and_ends_with_a_short_block(size: int) -> None:
    payload = bytes(index % 251 for index in range(size))
    machine = ReadTransfer(payload, PLAIN)
    assert fetch(machine) == payload
    assert machine.outcome == Outcome("complete")
    assert machine.bytes_acknowledged == size


def test_an_exact_multiple_ends_with_an_empty_block() -> None:
    machine = ReadTransfer(bytes(1024), PLAIN)
    machine.start(0.0)
    machine.receive(ack(1), 0.0)
    assert machine.receive(ack(2), 0.0) == [encode(Data(3, b""))]
    assert machine.receive(ack(3), 0.0) == []
    assert machine.outcome == Outcome("complete")


def test_block_numbers_roll_over_to_zero() -> None:
    payload = bytes(65_537 * 8 + 3)
    terms = negotiate((("blksize", "8"),), size=len(payload), limits=Limits())
    machine = ReadTransfer(payload, terms)
    machine.start(0.0)
    sent = blocks(machine.receive(ack(0), 0.0))
    for number in range(1, 65_538):
        sent = blocks(machine.receive(ack(number), 0.0))
        assert sent == [(number + 1) & 0xFFFF]
    assert machine.receive(ack(65_538), 0.0) == []
    assert machine.outcome == Outcome("complete")


def test_the_oack_comes_first_and_its_ack_brings_the_first_block() -> None:
    machine = ReadTransfer(bytes(3000), IPXE)
    assert machine.start(0.0) == [encode(OptionAck((("blksize", "1432"), ("tsize", "3000"))))]
    assert blocks(machine.receive(ack(0), 0.1)) == [1]


def test_a_repeated_ack_is_never_answered() -> None:
    machine = ReadTransfer(bytes(3000), PLAIN)
    machine.start(0.0)
    assert blocks(machine.receive(ack(1), 0.1)) == [2]
    assert machine.receive(ack(1), 0.2) == []
    assert machine.receive(ack(0), 0.2) == []
    assert blocks(machine.expire(1.1)) == [2], "only the clock sends it again"


def test_an_ack_of_a_block_that_was_not_sent_is_ignored() -> None:
    machine = ReadTransfer(bytes(3000), PLAIN)
    machine.start(0.0)
    assert machine.receive(ack(2), 0.1) == []
    assert machine.receive(ack(65_535), 0.1) == []
    assert machine.outcome is None


def test_a_block_is_sent_again_each_second_a_bounded_number_of_times() -> None:
    machine = ReadTransfer(bytes(3000), PLAIN)
    machine.start(0.0)
    machine.receive(ack(1), 0.0)
    for attempt in range(1, RESENDS_MAX + 1):
        assert machine.expire(attempt - 0.01) == []
        assert blocks(machine.expire(float(attempt))) == [2]
    assert machine.expire(RESENDS_MAX + 1.0) == []
    assert machine.outcome == Outcome("lost", "the client stopped acknowledging")


def test_silence_after_the_last_block_is_delivered_but_unconfirmed() -> None:
    machine = ReadTransfer(bytes(600), PLAIN)
    machine.start(0.0)
    machine.receive(ack(1), 0.0)
    machine.gone()
    assert machine.outcome == Outcome("unconfirmed", "the client closed its port")
    assert machine.outcome.delivered


def test_ovmfs_size_probe_is_no_failure() -> None:
    terms = negotiate((("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")), size=9000, limits=Limits())
    machine = ReadTransfer(bytes(9000), terms)
    machine.start(0.0)
    machine.receive(encode(Error(0, "User aborted the transfer")), 0.1)
    assert machine.outcome == Outcome("probe", "User aborted the transfer")


def test_an_error_in_the_middle_is_an_abort_with_the_clients_words() -> None:
    machine = ReadTransfer(bytes(9000), IPXE)
    machine.start(0.0)
    machine.receive(ack(0), 0.1)
    machine.receive(encode(Error(3, "no space")), 0.2)
    assert machine.outcome == Outcome("aborted", "error 3: no space")
    assert machine.receive(ack(1), 0.3) == []


def test_a_window_moves_on_and_an_ack_inside_it_restarts_behind_that_block() -> None:
    terms = negotiate((("windowsize", "4"),), size=512 * 20, limits=Limits())
    machine = ReadTransfer(bytes(512 * 20), terms)
    machine.start(0.0)
    assert blocks(machine.receive(ack(0), 0.0)) == [1, 2, 3, 4]
    assert blocks(machine.receive(ack(4), 0.0)) == [5, 6, 7, 8]
    assert blocks(machine.receive(ack(6), 0.0)) == [7, 8, 9, 10]
    assert machine.receive(ack(6), 0.0) == []
    assert blocks(machine.expire(1.0)) == [7, 8, 9, 10]


def test_a_malformed_datagram_leaves_the_transfer_as_it_was() -> None:
    machine = ReadTransfer(bytes(3000), PLAIN)
    machine.start(0.0)
    with pytest.raises(TftpMalformed):
        machine.receive(b"\0\4", 0.0)
    assert machine.receive(encode(Data(1, b"x")), 0.0) == []
    assert blocks(machine.receive(ack(1), 0.0)) == [2]


def test_a_repeated_request_brings_the_first_packet_again_until_the_client_has_answered() -> None:
    machine = ReadTransfer(bytes(3000), PLAIN)
    machine.start(0.0)
    assert blocks(machine.repeat(0.5)) == [1]
    machine.receive(ack(1), 0.6)
    assert machine.repeat(0.7) == []


def test_a_forged_request_without_options_is_answered_once() -> None:
    machine = ReadTransfer(bytes(3000), PLAIN)
    out = machine.start(0.0)
    now = 0.0
    while machine.outcome is None:
        now = machine.deadline
        out += machine.expire(now)
    assert blocks(out) == [1]
    assert machine.outcome.kind == "lost"
    assert now < 30


def test_a_forged_request_with_options_causes_a_bounded_number_of_bytes() -> None:
    request = encode(tftp.ReadRequest(b"undionly.kpxe", "octet", (("blksize", "1432"), ("tsize", "0"))))
    machine = ReadTransfer(
        bytes(74_213), negotiate((("blksize", "1432"), ("tsize", "0")), size=74_213, limits=Limits())
    )
    out = machine.start(0.0)
    while machine.outcome is None:
        out += machine.expire(machine.deadline)
    assert len(out) == 1 + UNANSWERED_RESENDS_MAX
    assert sum(map(len, out)) <= len(request) * (1 + UNANSWERED_RESENDS_MAX)


def test_netascii_ends_lines_as_rfc_764_wants() -> None:
    assert netascii(b"a\nb\r\nc\rd") == b"a\r\nb\r\0\r\nc\r\0d"


@dataclass
class Client:
    """A client as RFC 1350 and 7440 want it: takes blocks in order, acknowledges, asks again when it hears nothing."""

    terms: Terms
    patience: float = 4.0
    got: bytearray = field(default_factory=bytearray)
    expected: int = 1
    in_window: int = 0
    last: bytes | None = None  # None: the request itself is what it repeats
    done: bool = False

    def receive(self, datagram: bytes) -> list[bytes]:
        packet = tftp.decode(datagram)
        if isinstance(packet, OptionAck):
            if self.expected > 1:
                return []
            self.last = ack(0)
            return [self.last]
        assert isinstance(packet, Data)
        if packet.block != self.expected & 0xFFFF:
            # A repeat is acknowledged again; a gap asks for what is missing (RFC 7440 section 4).
            self.in_window = 0
            self.last = ack(self.expected - 1)
            return [self.last]
        if self.done:
            return []
        self.got += packet.payload
        self.expected += 1
        self.in_window += 1
        self.done = len(packet.payload) < self.terms.block_size
        if self.done or self.in_window == self.terms.window:
            self.in_window = 0
            self.last = ack(self.expected - 1)
            return [self.last]
        return []


@st.composite
def sessions(draw: st.DrawFn) -> tuple[bytes, Terms, list[int]]:
    options = []
    if draw(st.booleans()):
        options.append(("blksize", str(draw(st.sampled_from([8, 16, 100])))))
    if draw(st.booleans()):
        options.append(("windowsize", str(draw(st.integers(1, 8)))))
    size = draw(st.integers(0, 1500))
    terms = negotiate(tuple(options), size=size, limits=Limits())
    # What the channel does to each datagram in turn: 0 to 5 deliver, 6 lose, 7 deliver twice, 8 delay past others.
    return bytes(i % 256 for i in range(size)), terms, draw(st.lists(st.integers(0, 8), min_size=1, max_size=60))


@settings(max_examples=150)
@given(sessions(), st.booleans())
def test_every_transfer_ends_and_a_complete_one_is_byte_exact(
    session: tuple[bytes, Terms, list[int]], prepared: bool
) -> None:
    payload, terms, fates = session
    machine = ReadTransfer(payload, terms)
    client = Client(terms)
    queue: list[tuple[float, int, str, bytes]] = []
    count = data_sent = 0

    def travel(now: float, to: str, datagrams: list[bytes]) -> None:
        nonlocal count
        for datagram in datagrams:
            fate = fates[count % len(fates)]
            count += 1
            for delay in {6: [], 7: [0.01, 0.02], 8: [0.2]}.get(fate, [0.01]):
                heapq.heappush(queue, (now + delay, count, to, datagram))

    travel(0.0, "client", machine.start(0.0))
    repeat_at = client.patience
    now = 0.0
    while machine.outcome is None:
        now = min([machine.deadline, *(queue[0][0] for _ in queue[:1]), repeat_at])
        assert now < 100_000, "it never ends"
        if queue and queue[0][0] <= now:
            _, _, to, datagram = heapq.heappop(queue)
            if to == "client":
                repeat_at = now + client.patience
                travel(now, "server", client.receive(datagram))
            else:
                packets = machine.receive(datagram, now)
                data_sent += len(packets)
                travel(now, "client", packets)
                if prepared:
                    machine.prepare()
        elif repeat_at <= now:
            repeat_at = now + client.patience
            if client.done:
                machine.gone()
            elif client.last is None:
                travel(now, "client", machine.repeat(now))
            else:
                travel(now, "server", [client.last])
        else:
            travel(now, "client", machine.expire(now))
    if machine.outcome.kind == "complete":
        assert bytes(client.got) == payload
        assert client.done
    assert payload.startswith(bytes(client.got))
    blocks_in_all = len(payload) // terms.block_size + 1
    assert data_sent <= blocks_in_all * terms.window, "each ACK that moves the window sends at most one window"


# What a client may send, by the number of the block that it awaits: ACKs around that, and what is no ACK of it.
heard = st.one_of(
    st.integers(-3, 9).map(lambda ahead: lambda block: ack(block + ahead)),
    st.sampled_from((b"", b"\0", b"\0\4", b"\0\4\0\0\0", encode(Data(1, b"")), b"\0\5\0\0x\0")).map(
        lambda datagram: lambda block: datagram
    ),
)


@settings(max_examples=300)
@given(
    st.sampled_from(
        [PLAIN, *(Terms(8, window, 1.0, granted) for window in (1, 2, 5) for granted in ((), IPXE.granted))]
    ),
    st.lists(st.tuples(heard, st.booleans(), st.sampled_from((0.0, 0.1, 1.0))), max_size=30),
)
def test_what_is_made_ready_changes_no_answer(
    terms: Terms, steps: list[tuple[Callable[[int], bytes], bool, float]]
) -> None:
    """Three machines hear the same. Two make ready what comes next, now and then, and what is sent by one of them is
    what it has ready; the third never does."""
    payload = bytes(index % 251 for index in range(terms.block_size * 12 + 3))
    machines = short, ready, plain = [ReadTransfer(payload, terms) for _ in range(3)]
    sent = plain.start(0.0)
    assert sent == short.start(0.0) == ready.start(0.0)
    now, last = 0.0, 1 if terms.granted == () else 0
    for datagram, prepare, later in steps:
        now += later
        answers = []
        for machine in machines:
            try:
                if machine is short and datagram(last) == machine.awaited:
                    answers.append([*machine.ready])
                    machine.proceed(now)
                    answers[-1] += machine.expire(now)
                else:
                    answers.append(machine.receive(datagram(last), now) + machine.expire(now))
            except TftpMalformed:
                answers.append([b"malformed"])
        assert answers[0] == answers[1] == answers[2]
        if prepare:
            short.prepare()
            ready.prepare()
        seen = [(one.answered, one.deadline, one.outcome, one.resent, one.bytes_acknowledged) for one in machines]
        assert seen[0] == seen[1] == seen[2]
        last = ([*blocks([packet for packet in answers[0] if packet[:2] == b"\0\3"]), last])[0]
