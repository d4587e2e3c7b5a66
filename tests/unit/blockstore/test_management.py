"""Task management: an abort is answered when what it aborts is dead (PROTOCOLS 2.2 #12)."""

from __future__ import annotations

import pytest

from bootlink_blockstore.management import FUNCTIONS_LIMIT
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire.iscsi_codes import TaskFunction, TaskResult
from bootlink_wire.iscsi_pdu import DataIn, Pdu, ReadyToTransfer, ScsiResponse, TaskResponse
from lab.iscsi import Speaker, read_10, write_10
from lab.session_bench import Bench, MemoryDisk, unit


def ready(bench: Bench | None = None) -> Bench:
    bench = bench or Bench()
    bench.log_in()
    return bench


def result(answers: list[Pdu]) -> int:
    (response,) = answers
    assert isinstance(response, TaskResponse)
    return response.response


def test_rule_12_an_abort_of_a_running_write_is_answered_after_the_write_is_over() -> None:
    bench = ready()
    bench.disk.slow = True
    command = bench.speaker.command(write_10(0, 1), expected=512, write=True, data=b"x" * 512)
    bench.send(command)
    assert bench.send(bench.speaker.task(TaskFunction.ABORT_TASK, referenced=command.itt)) == []
    assert result(bench.run()) == TaskResult.COMPLETE  # and no SCSI response
    assert bench.session.tasks == {}


def test_an_abort_of_a_write_that_waits_for_data_is_answered_at_once_and_late_data_is_dropped() -> None:
    bench = ready(Bench(Speaker(keys=[("ImmediateData", "No")])))
    (r2t,) = bench.send(bench.speaker.command(write_10(0, 8), expected=4096, write=True))
    assert isinstance(r2t, ReadyToTransfer)
    answers = bench.send(bench.speaker.task(TaskFunction.ABORT_TASK, referenced=r2t.itt))
    assert result(answers) == TaskResult.COMPLETE
    assert bench.send(pdu.DataOut(itt=r2t.itt, ttt=r2t.ttt, data=b"x" * 4096)) == []
    assert not any(bench.disk.data)


def test_rule_12_an_abort_of_a_task_that_is_over_says_that_there_is_none() -> None:
    bench = ready()
    command = bench.speaker.command(read_10(0, 8), expected=4096)
    bench.send(command)
    answers = bench.send(bench.speaker.task(TaskFunction.ABORT_TASK, referenced=command.itt, refcmdsn=command.cmdsn))
    assert result(answers) == TaskResult.NO_TASK


def test_rule_12_an_abort_of_a_command_that_never_came_fills_its_gap() -> None:
    bench = ready()
    lost = bench.speaker.command(read_10(0, 8), expected=4096)
    waiting = bench.speaker.command(read_10(8, 8), expected=4096)
    assert bench.send(waiting) == []
    answers = bench.send(bench.speaker.task(TaskFunction.ABORT_TASK, referenced=lost.itt, refcmdsn=lost.cmdsn))
    assert isinstance(answers[0], TaskResponse)
    assert answers[0].response == TaskResult.COMPLETE
    served = answers[1:] + bench.send(bench.speaker.command(read_10(16, 8), expected=4096))
    assert len([a for a in served if isinstance(a, DataIn)]) == 2


def test_an_aborted_command_that_waited_for_its_turn_leaves_nothing_behind() -> None:
    bench = ready()
    first, aborted, third = (bench.speaker.command(read_10(n, 8), expected=4096) for n in range(3))
    bench.send(aborted)
    answers = bench.send(bench.speaker.task(TaskFunction.ABORT_TASK, referenced=aborted.itt, refcmdsn=aborted.cmdsn))
    assert result(answers) == TaskResult.COMPLETE
    assert bench.send(aborted) == []  # on its way a second time
    assert [a.itt for a in bench.send(first, third) if isinstance(a, DataIn)] == [first.itt, third.itt]
    assert bench.session._early == {}
    assert bench.session._path is not None


@pytest.mark.parametrize("function", [TaskFunction.ABORT_TASK_SET, TaskFunction.CLEAR_TASK_SET])
def test_a_task_set_dies_whole(function: TaskFunction) -> None:
    bench = ready()
    bench.disk.slow = True
    for _ in range(4):
        bench.send(bench.speaker.command(read_10(0, 8), expected=4096))
    assert bench.send(bench.speaker.task(function)) == []
    assert result(bench.run()) == TaskResult.COMPLETE


def test_a_reset_kills_every_sessions_tasks_and_tells_every_session() -> None:
    one = Bench()
    two = Bench(Speaker(isid=bytes(6)), one.units)
    ready(one)
    ready(two)
    one.disk.slow = True
    two.send(two.speaker.command(write_10(0, 1), expected=512, write=True, data=b"x" * 512))
    assert one.send(one.speaker.task(TaskFunction.LOGICAL_UNIT_RESET)) == []
    assert two.run() == []  # its write was under way, and is not answered
    assert one.woken == 1
    assert result(one.answers()) == TaskResult.COMPLETE
    one.disk.slow = False
    for bench in (one, two):
        (told,) = bench.send(bench.speaker.command(read_10(0, 8), expected=4096))
        assert isinstance(told, ScsiResponse)
        assert (told.data[4] & 15, told.data[14]) == (6, 0x29)
        assert isinstance(bench.send(bench.speaker.command(read_10(0, 8), expected=4096))[0], DataIn)


def test_what_a_reset_by_another_session_makes_room_for_is_asked_for_at_once() -> None:
    """Or its PC would wait for the next tick of a clock."""
    disk = MemoryDisk()
    units = {lun: unit(disk, lun, (0, 1)) for lun in (0, 1)}
    one, two = Bench(units=units), Bench(Speaker(isid=bytes(6)), units)
    ready(one)
    ready(two)

    while two.send(two.speaker.command(write_10(0, 512), expected=1 << 18, write=True)):
        pass
    waiting = two.speaker.command(write_10(0, 512), expected=1 << 18, write=True, lun=1)
    assert two.send(waiting) == [], "no room is left for its data"
    one.send(one.speaker.task(TaskFunction.LOGICAL_UNIT_RESET))
    assert two.woken
    (asked,) = two.answers()
    assert isinstance(asked, ReadyToTransfer)
    assert asked.itt == waiting.itt, "and nothing is asked for that died with the others"


def test_functions_that_wait_are_few_and_more_are_rejected() -> None:
    bench = ready()
    bench.disk.slow = True
    bench.send(bench.speaker.command(write_10(0, 1), expected=512, write=True, data=b"x" * 512))
    functions = [TaskFunction.ABORT_TASK_SET, TaskFunction.LOGICAL_UNIT_RESET] * FUNCTIONS_LIMIT
    answers = bench.send(*map(bench.speaker.task, functions))
    assert [a.response for a in answers if isinstance(a, TaskResponse)] == [TaskResult.REJECTED] * FUNCTIONS_LIMIT
    answers = bench.run()
    assert [a.response for a in answers if isinstance(a, TaskResponse)] == [TaskResult.COMPLETE] * FUNCTIONS_LIMIT
    assert result(bench.send(bench.speaker.task(TaskFunction.ABORT_TASK_SET))) == TaskResult.COMPLETE


def test_a_warm_reset_is_a_reset_of_all_units() -> None:
    bench = ready()
    assert result(bench.send(bench.speaker.task(TaskFunction.TARGET_WARM_RESET))) == TaskResult.COMPLETE
    assert bench.session.nexuses[0].attentions


@pytest.mark.parametrize(
    ("function", "lun", "expected"),
    [
        (TaskFunction.LOGICAL_UNIT_RESET, 9, TaskResult.NO_LUN),
        (TaskFunction.CLEAR_ACA, 0, TaskResult.COMPLETE),
        (TaskFunction.TASK_REASSIGN, 0, TaskResult.NO_REASSIGN),
        (99, 0, TaskResult.NOT_SUPPORTED),
    ],
)
def test_what_there_is_not_is_said(function: int, lun: int, expected: TaskResult) -> None:
    bench = ready()
    assert result(bench.send(bench.speaker.task(function, lun=lun))) == expected


def test_rule_12_a_cold_reset_is_answered_and_ends_every_session_of_the_client() -> None:
    asking = ready()
    other = Bench(units=asking.units)
    other.log_in()
    other.disk.slow = asking.disk.slow = True
    asking.send(asking.speaker.command(read_10(0, 8), expected=4096))
    assert asking.send(asking.speaker.task(TaskFunction.TARGET_COLD_RESET)) == [], "a task still runs"
    assert not other.session.closing
    assert result(asking.run()) == TaskResult.COMPLETE
    assert {bench.session.closing for bench in (asking, other)} == {"target cold reset"}
    assert other.woken == 1, "its connection is to be closed"
    assert other.answers() == []
