"""A transfer looks for the answer of a client that is near, and for no other's; and never for long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest

from bootlink_runtime import Health
from bootlink_tftp.sending import BLOCKS_A_TURN, MOMENTS_LOST_MAX, Transfer
from bootlink_wire import tftp
from bootlink_wire.tftp_options import Limits, negotiate
from bootlink_wire.tftp_transfer import ReadTransfer

BLOCKS = 100  # a receive buffer holds them all
CONTENT = bytes(512 * BLOCKS + 7)


class Counting(socket.socket):
    """Counts how often it is read."""

    reads = 0

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        self.reads += 1
        return super().recv(size, flags)


class Loop:
    """The event loop, turned by hand: `turn` is what it does when the transfer's socket has something to read."""

    turn: Callable[[], None]

    def time(self) -> float:
        return 0.0

    def call_at(self, _when: float, _callback: Callable[[], None]) -> None:
        """Time stands still."""

    def add_reader(self, _sock: socket.socket, callback: Callable[..., None], *arguments: object) -> None:
        self.turn = lambda: callback(*arguments)

    def remove_reader(self, _sock: socket.socket) -> None:
        self.turn = lambda: pytest.fail("read after its end")


@dataclass
class Rig:
    """A transfer that has sent its first block, and its client's socket."""

    server: Counting
    client: socket.socket
    options: tftp.Options = ()
    neighbours: int = 0
    ended: list[Transfer] = field(default_factory=list)
    loop: Loop = field(default_factory=Loop)

    def __post_init__(self) -> None:
        self.transfer = Transfer(
            cast(asyncio.AbstractEventLoop, self.loop),
            self.server,
            self.server.send,
            tftp.ReadRequest(b"loader"),
            ReadTransfer(CONTENT, negotiate(self.options, size=len(CONTENT), limits=Limits())),
            Health("tftp", "lab"),
            alone=lambda: not self.neighbours,
            on_end=self.ended.append,
        )
        self.transfer.start()

    def acknowledges(self, first: int, last: int) -> None:
        for block in range(first, last + 1):
            self.client.send(tftp.ack(block))

    def got(self) -> list[int]:
        """The blocks that have come since."""
        blocks: list[int] = []
        while True:
            try:
                packet = tftp.decode(self.client.recv(2_048))
            except BlockingIOError:
                return blocks
            assert isinstance(packet, tftp.Data)
            blocks.append(packet.block)


@contextmanager
def rigged(options: tftp.Options = ()) -> Iterator[Rig]:
    with (
        Counting(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        for sock in (server, client):
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
        server.connect(client.getsockname())
        client.connect(server.getsockname())
        yield Rig(server, client, options)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with rigged() as made:
        assert made.got() == [1]
        yield made


def test_answers_that_come_at_once_are_heard_in_one_turn_but_no_more_than_a_turn_may_have(rig: Rig) -> None:
    rig.acknowledges(1, BLOCKS_A_TURN + 5)
    rig.loop.turn()
    assert rig.got() == list(range(2, 2 + BLOCKS_A_TURN))
    rig.loop.turn()
    assert rig.got() == list(range(2 + BLOCKS_A_TURN, 2 + BLOCKS_A_TURN + 5))


def test_a_turn_is_bounded_in_blocks_where_an_answer_asks_for_many() -> None:
    window = 8
    with rigged((("windowsize", str(window)),)) as rig:
        assert isinstance(tftp.decode(rig.client.recv(2_048)), tftp.OptionAck)
        for block in range(0, BLOCKS_A_TURN + 1, window):
            rig.acknowledges(block, block)
        rig.loop.turn()
        assert rig.got() == list(range(1, 1 + BLOCKS_A_TURN))


def test_a_client_that_sends_what_is_no_answer_has_no_longer_turn(rig: Rig) -> None:
    for _ in range(BLOCKS_A_TURN + 5):
        rig.client.send(b"\0")
    rig.loop.turn()
    assert rig.server.reads == BLOCKS_A_TURN
    assert rig.got() == []


def test_beside_other_transfers_each_answer_has_a_turn_of_its_own(rig: Rig) -> None:
    rig.neighbours = 1
    rig.acknowledges(1, 3)
    for block in (2, 3, 4):
        rig.loop.turn()
        assert rig.got() == [block]
    assert rig.server.reads == 3


def test_a_client_whose_answers_take_longer_is_soon_waited_for_asleep(rig: Rig) -> None:
    for block in range(1, MOMENTS_LOST_MAX + 1):
        before = rig.server.reads
        rig.acknowledges(block, block)
        rig.loop.turn()
        assert rig.server.reads > before + 1  # it has looked out, in vain
    for block in range(MOMENTS_LOST_MAX + 1, BLOCKS):
        before = rig.server.reads
        rig.acknowledges(block, block)
        rig.loop.turn()
        assert rig.server.reads == before + 1
    assert rig.got() == list(range(2, BLOCKS + 1))


def test_a_client_that_is_now_and_then_late_is_still_looked_for(rig: Rig) -> None:
    near = 3  # answers of four come at once
    for first in range(1, 1 + (near + 1) * 2 * MOMENTS_LOST_MAX, near + 1):
        before = rig.server.reads
        rig.acknowledges(first, first + near)
        rig.loop.turn()
        assert rig.server.reads > before + near + 1


def test_a_client_that_closes_its_port_while_it_is_looked_for_ends_the_transfer_once(rig: Rig) -> None:
    rig.acknowledges(1, 1)
    rig.client.close()
    rig.loop.turn()
    assert rig.ended == [rig.transfer]
    outcome = rig.transfer.machine.outcome
    assert outcome is not None
    assert (outcome.kind, outcome.detail) == ("lost", "the client closed its port")


def test_the_last_answer_ends_the_transfer_once(rig: Rig) -> None:
    for block in range(1, BLOCKS + 1):
        rig.acknowledges(block, block)
        rig.loop.turn()
        rig.got()
    rig.acknowledges(BLOCKS + 1, BLOCKS + 1)
    rig.loop.turn()
    assert rig.ended == [rig.transfer]
    outcome = rig.transfer.machine.outcome
    assert outcome is not None
    assert outcome.kind == "complete"
