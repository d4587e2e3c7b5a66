"""Two sessions of one disk: the short cut for plain reads is shut while a reservation stands in its way, and a
preempted session's tasks are dead before PREEMPT AND ABORT is answered."""

from __future__ import annotations

import struct

import pytest

from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire.iscsi_codes import TaskFunction
from bootlink_wire.iscsi_pdu import Pdu
from lab.iscsi import Speaker, read_10, write_10
from lab.session_bench import Bench, MemoryDisk, unit

REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT = range(6)
EXCLUSIVE = 3
CONFLICT = 0x18


class Room:
    """One disk, two sessions: of two initiators, A and B."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.units = {0: unit(self.disk)}
        self.a, self.b = (Bench(Speaker(name=f"iqn.2026-11.test:{name}"), self.units) for name in ("a", "b"))
        for bench in (self.a, self.b):
            bench.log_in()

    def reserve(self, kind: int = EXCLUSIVE) -> None:
        """A reserves, B is registered."""
        assert status(persist(self.a, REGISTER, 0, 1)) == status(persist(self.b, REGISTER, 0, 2)) == 0
        assert status(persist(self.a, RESERVE, 1, kind=kind)) == 0

    def hit(self, bench: Bench) -> tuple[int, bool]:
        """The status of a plain read, and whether it took the short cut."""
        before = self.disk.hits
        answer = bench.send(bench.speaker.command(read_10(0, 8), expected=4096))[-1]
        taken = self.disk.hits > before
        return (answer.status if isinstance(answer, pdu.ScsiResponse) else 0), taken

    def written(self, bench: Bench) -> tuple[int, bool]:
        """The status of a plain write, and whether it took the short cut."""
        before = self.disk.writes_now
        answer = bench.send(bench.speaker.command(write_10(0, 8), expected=4096, write=True, data=b"x" * 4096))[-1]
        assert isinstance(answer, pdu.ScsiResponse)
        return answer.status, self.disk.writes_now > before


def persist(bench: Bench, action: int, key: int, action_key: int = 0, *, kind: int = 0) -> list[Pdu]:
    cdb = struct.pack(">BBBxxIx", 0x5F, action, kind, 24)
    data = struct.pack(">QQ8x", key, action_key)
    return bench.send(bench.speaker.command(cdb, expected=24, write=True, data=data))


def status(answers: list[Pdu]) -> int:
    (answer,) = answers
    assert isinstance(answer, pdu.ScsiResponse)
    return answer.status


@pytest.fixture
def room() -> Room:
    return Room()


def test_without_a_reservation_both_take_the_short_cut(room: Room) -> None:
    assert room.hit(room.a) == room.hit(room.b) == (0, True)


def test_a_reservation_shuts_the_short_cut_of_the_others_and_of_nobody_else(room: Room) -> None:
    room.reserve()
    assert room.hit(room.a) == (0, True)
    assert room.hit(room.b) == (CONFLICT, False)


def test_a_reservation_that_lets_others_read_shuts_nothing(room: Room) -> None:
    room.reserve(kind=1)
    assert room.hit(room.b) == (0, True)


def test_a_reservation_that_lets_others_read_shuts_their_short_cut_for_writes(room: Room) -> None:
    assert room.written(room.b) == (0, True)
    room.reserve(kind=1)
    assert room.written(room.b) == (CONFLICT, False)
    assert room.written(room.a) == (0, True)
    persist(room.a, RELEASE, 1, kind=1)
    assert room.written(room.b) == (0, True)


@pytest.mark.parametrize(
    ("page", "status"),
    [
        (bytes((0x08, 0x12, 0x00)) + bytes(17), 0),  # no write cache: each write must be stable
        (bytes((0x0A, 0x0A, 0x00, 0x10, 0x08)) + bytes(7), 2),  # write protected
    ],
)
def test_changed_modes_shut_the_short_cut_for_writes_of_all_sessions(room: Room, page: bytes, status: int) -> None:
    data = bytes(4) + page
    cdb = bytes((0x15, 0x10, 0, 0, len(data), 0))
    (answer,) = room.a.send(room.a.speaker.command(cdb, expected=len(data), write=True, data=data))
    assert isinstance(answer, pdu.ScsiResponse)
    assert answer.status == 0
    assert room.written(room.a) == (status, False)
    room.b.send(room.b.speaker.command(bytes(6)))  # told of the change
    assert room.written(room.b) == (status, False)


@pytest.mark.parametrize("how", ["release", "clear", "unregister"])
def test_the_short_cut_opens_again_when_the_reservation_ends(room: Room, how: str) -> None:
    room.reserve()
    if how == "release":
        persist(room.a, RELEASE, 1, kind=EXCLUSIVE)
    elif how == "clear":
        persist(room.a, CLEAR, 1)
    else:
        persist(room.a, REGISTER, 1, 0)
    answer = room.hit(room.b)
    if how == "clear":
        assert answer == (2, False)  # B lost its registration, and is told of it first
        answer = room.hit(room.b)
    assert answer == (0, True)


def test_a_session_that_comes_later_finds_it_shut(room: Room) -> None:
    room.reserve()
    late = Bench(Speaker(name="iqn.2026-11.test:c"), room.units)
    late.log_in()
    assert room.hit(late) == (CONFLICT, False)


def test_reserve_6_shuts_it_and_the_end_of_its_session_opens_it(room: Room) -> None:
    assert status(room.a.send(room.a.speaker.command(b"\x16" + bytes(5)))) == 0
    assert room.hit(room.b) == (CONFLICT, False)
    room.a.session.close("gone")
    assert room.hit(room.b) == (0, True)


def test_reserve_6_ends_with_a_reset(room: Room) -> None:
    room.a.send(room.a.speaker.command(b"\x16" + bytes(5)))
    room.b.send(room.b.speaker.task(TaskFunction.LOGICAL_UNIT_RESET))
    assert room.hit(room.b) == (2, False)  # told of the reset
    assert room.hit(room.b) == (0, True)


def test_preempt_and_abort_is_answered_when_the_preempted_tasks_are_dead(room: Room) -> None:
    room.reserve(kind=5)
    room.disk.slow = True
    assert room.b.send(room.b.speaker.command(write_10(0, 8), expected=4096, write=True, data=b"x" * 4096)) == []
    room.disk.slow = False
    assert persist(room.a, PREEMPT_AND_ABORT, 1, 2, kind=5) == []
    assert room.b.run() == []  # it ends, and its initiator hears nothing of it
    assert room.a.woken
    assert status(room.a.answers()) == 0
    assert room.hit(room.b) == (2, False)  # registrations preempted


@pytest.mark.parametrize("how", ["preempt", "reset"])
def test_a_write_of_a_session_that_has_ended_is_waited_for_as_any_other(room: Room, how: str) -> None:
    """Its connection is gone and its registration stays: the write would land after its initiator was fenced off."""
    room.reserve(kind=5)
    room.disk.slow = True
    room.b.send(room.b.speaker.command(write_10(0, 8), expected=4096, write=True, data=b"x" * 4096))
    room.disk.slow = False
    room.b.session.close("connection lost")
    if how == "preempt":
        assert persist(room.a, PREEMPT_AND_ABORT, 1, 2, kind=5) == []
    else:
        assert room.a.send(room.a.speaker.task(TaskFunction.LOGICAL_UNIT_RESET)) == []
    assert room.b.run() == []
    assert room.a.woken
    (answer,) = room.a.answers()
    assert isinstance(answer, pdu.ScsiResponse if how == "preempt" else pdu.TaskResponse)
    assert not room.units[0].ending


def test_preempt_and_abort_of_an_idle_session_is_answered_at_once(room: Room) -> None:
    room.reserve(kind=5)
    assert status(persist(room.a, PREEMPT_AND_ABORT, 1, 2, kind=5)) == 0


def test_a_preempt_that_is_aborted_itself_is_not_answered(room: Room) -> None:
    room.reserve(kind=5)
    room.disk.slow = True
    room.b.send(room.b.speaker.command(write_10(0, 8), expected=4096, write=True, data=b"x" * 4096))
    room.disk.slow = False
    persist(room.a, PREEMPT_AND_ABORT, 1, 2, kind=5)
    room.a.session.close("gone")
    assert room.b.run() == []
    assert room.a.answers() == []
