"""Small writes take a short way, and nobody can tell but by the time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bootlink_blockstore.tasks import WRITE_BUFFER
from bootlink_wire import iscsi_codes as codes
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire.iscsi_codes import TaskFunction
from bootlink_wire.iscsi_pdu import ScsiResponse
from bootlink_wire.scsi_sense import Status
from lab.iscsi import OPEN_ISCSI_KEYS, Speaker, write_10
from lab.session_bench import Bench

PAGE = 4096


def ready() -> Bench:
    bench = Bench()
    bench.log_in()
    return bench


def a_write(bench: Bench, page: int, *, size: int = PAGE, fua: bool = False, **more: object) -> pdu.ScsiCommand:
    data = bytes([page & 0xFF]) * size
    cdb = write_10(page * PAGE // 512, size // 512, fua=fua)
    return bench.speaker.command(cdb, expected=size, write=True, data=data, **more)  # type: ignore[arg-type]


def test_small_writes_are_done_and_answered_in_their_order_with_numbers_that_go_on() -> None:
    bench = ready()
    answers = bench.send(*(a_write(bench, page) for page in range(20)))
    assert [type(a) for a in answers] == [ScsiResponse] * 20
    responses = [a for a in answers if isinstance(a, ScsiResponse)]
    assert {(a.status, a.response, a.residual, a.flags) for a in responses} == {(Status.GOOD, 0, 0, codes.FINAL)}
    first = responses[0]
    for n, answer in enumerate(responses):
        assert (answer.statsn, answer.expcmdsn, answer.maxcmdsn) == (
            first.statsn + n,
            first.expcmdsn + n,
            first.maxcmdsn + n,
        )
    assert bench.disk.data[: 20 * PAGE] == b"".join(bytes([page]) * PAGE for page in range(20))
    assert bench.session.nexuses[0].writes == 20
    assert bench.session.nexuses[0].bytes_written == 20 * PAGE
    assert not bench.session.tasks


@pytest.mark.parametrize("cut", [1, 47, 48, 49, 48 + PAGE - 1, 48 + PAGE + 1, 48 + PAGE + 47])
def test_writes_that_arrive_in_pieces_are_done_once_they_are_whole(cut: int) -> None:
    bench = ready()
    stream = b"".join(a_write(bench, page).encode() for page in (1, 2, 3))
    bench.session.receive(stream[:cut])
    done = len(bench.session.out)
    assert done == cut // (48 + PAGE)
    bench.session.receive(stream[cut:])
    assert len(bench.session.out) == 3
    assert bench.disk.data[: 4 * PAGE] == b"".join(bytes([page]) * PAGE for page in range(4))


def test_a_write_that_is_less_simple_goes_the_long_way_and_those_around_it_keep_their_place() -> None:
    bench = ready()
    stream = (a_write(bench, 1), a_write(bench, 2, size=512), a_write(bench, 3, fua=True), a_write(bench, 4))
    answers = bench.send(*stream)
    assert [(a.itt, a.status) for a in answers if isinstance(a, ScsiResponse)] == [(c.itt, 0) for c in stream]
    assert bench.disk.data[PAGE::PAGE][:4] == bytes([1, 2, 3, 4])


def test_a_write_on_a_unit_that_is_protected_is_refused_also_on_the_short_way() -> None:
    bench = ready()
    bench.units[0].modes = replace(bench.units[0].modes, write_protected=True)
    (answer,) = bench.send(a_write(bench, 1))
    assert isinstance(answer, ScsiResponse)
    assert answer.status == Status.CHECK_CONDITION
    assert not any(bench.disk.data[PAGE : 2 * PAGE])


def test_a_write_with_more_data_than_it_announces_or_beyond_the_disk_changes_nothing() -> None:
    bench = ready()
    end = bench.disk.size // PAGE
    wrong = [a_write(bench, end), a_write(bench, end - 1, size=2 * PAGE)]
    assert [a.status for a in bench.send(*wrong) if isinstance(a, ScsiResponse)] == [Status.CHECK_CONDITION] * 2
    assert not any(bench.disk.data)


def test_data_that_comes_unasked_for_a_write_ahead_of_its_turn_is_kept_for_it() -> None:
    """As when a digest has cost the command before it: its data is on its way already, and comes once."""
    bench = Bench(Speaker(keys=list((dict(OPEN_ISCSI_KEYS) | {"InitialR2T": "No"}).items())))
    bench.log_in()
    speaker = bench.speaker
    lost = speaker.command(bytes(6))
    write = speaker.command(write_10(0, 16), expected=8192, write=True, data=b"x" * 4096, final=False)
    given_up = speaker.command(write_10(64, 16), expected=8192, write=True, data=b"z" * 4096, final=False)
    rest = [pdu.DataOut(itt=w.itt, datasn=0, offset=4096, data=b"y" * 4096) for w in (write, given_up)]
    assert bench.send(write, given_up, *rest) == []
    (aborted,) = bench.send(speaker.task(TaskFunction.ABORT_TASK, referenced=given_up.itt, refcmdsn=given_up.cmdsn))
    assert isinstance(aborted, pdu.TaskResponse)
    answers = bench.send(lost)
    assert [(a.itt, a.status) for a in answers if isinstance(a, ScsiResponse)] == [(lost.itt, 0), (write.itt, 0)]
    assert bench.disk.data[:8192] == b"x" * 4096 + b"y" * 4096
    assert not any(bench.disk.data[64 * 512 : 80 * 512])
    assert not bench.session.tasks
    assert not bench.errors


def test_more_than_is_held_for_commands_ahead_of_their_turn_ends_the_session() -> None:
    bench = ready()
    bench.speaker.cmdsn += 1
    write = bench.speaker.command(write_10(0, 16), expected=8192, write=True, data=b"x" * 4096, final=False)
    bench.send(write)
    empty = pdu.DataOut(itt=write.itt, datasn=0, offset=4096).encode()
    for _ in range(WRITE_BUFFER // 48 // 1000 + 1):
        bench.session.receive(empty * 1000)
    assert "ahead of their turn" in bench.session.closing
