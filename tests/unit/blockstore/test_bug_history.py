"""What other targets got wrong (PROTOCOLS 2.2, bug history), where it could happen to this one.

Named after the project and the commit or issue. What cannot happen here for want of the part (qcow2 writing, iSER) is
left out; home-made format writers are tried in tests/unit/disks, limits of sessions under rule 3.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bootlink_events import BootId
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire.iscsi_codes import NO_TAG, TaskFunction
from bootlink_wire.iscsi_pdu import DataIn, TaskResponse
from lab.blockstore import MAC, identity, make_image, plan, serving
from lab.iscsi import Initiator, LoginFailed, read_10, write_10
from lab.session_bench import Bench


def test_tgt_01461ee_pings_leave_nothing_behind() -> None:
    bench = Bench()
    bench.log_in()
    for number in range(500):
        bench.send(pdu.NopOut(itt=number + 100, cmdsn=bench.speaker.cmdsn, immediate=True, data=b"ping"))
        bench.session.tick(1.0 + 20.0 * number)
        for ping in bench.answers():
            assert isinstance(ping, pdu.NopIn)
            bench.session.receive(pdu.NopOut(itt=NO_TAG, ttt=ping.ttt, immediate=True).encode(), 1.0 + 20.0 * number)
    assert bench.session.tasks == {}
    assert bench.session.out == []
    assert bench.session._max_cmdsn - bench.session._exp_cmdsn == 63


def test_tgt_532a527_a_connection_that_goes_while_tasks_run_is_survived() -> None:
    bench = Bench()
    bench.log_in()
    bench.disk.slow = True
    bench.send(bench.speaker.command(read_10(0, 8), expected=4096))
    bench.send(bench.speaker.command(write_10(0, 8), expected=4096, write=True))  # whose data never comes
    bench.session.close("connection lost")
    assert bench.run() == []
    assert bench.session.tasks == {}


def test_tgt_71f3bc9_a_connection_that_goes_while_an_abort_waits_is_survived() -> None:
    bench = Bench()
    bench.log_in()
    bench.disk.slow = True
    command = bench.speaker.command(read_10(0, 8), expected=4096)
    bench.send(command)
    for function in (TaskFunction.ABORT_TASK, TaskFunction.LOGICAL_UNIT_RESET, TaskFunction.ABORT_TASK_SET):
        assert bench.send(bench.speaker.task(function, referenced=command.itt)) == []
    bench.session.close("connection lost")
    assert bench.run() == []
    assert bench.session.tasks == {}


def test_targetcli_195_resets_that_cross_one_another_all_end() -> None:
    """Linux's own target dead-locked for years where one session's reset waited for another's."""
    first = Bench()
    second = Bench(units=first.units)
    for bench in (first, second):
        bench.log_in()
    first.disk.slow = True
    for bench in (first, second):
        bench.disk.slow = True
        bench.send(bench.speaker.command(read_10(0, 8), expected=4096))
    for bench in (first, second, first):
        assert bench.send(bench.speaker.task(TaskFunction.LOGICAL_UNIT_RESET)) == []
    answers = [*first.run(), *second.run(), *first.answers()]
    assert [type(a) for a in answers].count(TaskResponse) == 3
    assert first.session.tasks == second.session.tasks == {}


def test_spdk_1699_two_initiators_on_one_disk_do_not_see_each_others_tags() -> None:
    first = Bench()
    second = Bench(units=first.units)
    for bench in (first, second):
        bench.log_in()
        bench.speaker.itt = 1000
    first.disk.slow = True
    first.send(first.speaker.command(read_10(0, 8), expected=4096))
    (answer,) = second.send(second.speaker.command(bytes(6)))
    assert isinstance(answer, pdu.ScsiResponse)
    (late,) = first.run()
    assert isinstance(late, DataIn)
    assert late.itt == answer.itt == 1001


def test_cve_2026_53176_a_login_shorter_than_its_header_is_waited_for() -> None:
    bench = Bench()
    login = bench.speaker.login().encode()
    for cut in (1, 8, 47):
        assert bench.send(login[:cut]) == []
        login = login[cut:]
    bench.send(login)
    assert bench.session.held


@pytest.mark.parametrize("step", ["login", "command", "data", "abort"])
async def test_tgt_4420dd3_a_stop_in_the_middle_of_anything_is_clean(tmp_path: Path, step: str) -> None:
    async with serving(tmp_path, plan(make_image(tmp_path / "base.img", 1 << 20))) as lab:
        pc = await Initiator.connect(lab.host, lab.port, name=identity(BootId.mint()))
        if step != "login":
            await pc.log_in()
            await pc.attentions()
        match step:
            case "login":
                pc.send(pc.login())
            case "command":
                pc.send(*(pc.command(read_10(n, 64), expected=32768) for n in range(20)))
            case "data":
                pc.send(pc.command(write_10(0, 64), expected=32768, write=True))
            case "abort":
                command = pc.command(write_10(0, 64), expected=32768, write=True)
                pc.send(command, pc.task(TaskFunction.ABORT_TASK, referenced=command.itt))
    assert await pc.gone()
    await pc.close()
    assert not [name for name in lab.told.counters if name.endswith("_unforeseen")]


async def test_tgt_9fd4a25_what_a_client_may_open_it_finds_and_what_it_finds_it_may_open(tmp_path: Path) -> None:
    """There an access list by initiator name broke discovery."""
    other = "52:54:00:00:00:02"
    base = make_image(tmp_path / "base.img", 1 << 20)
    async with serving(tmp_path, plan(base), plan(base, mac=other)) as lab:
        name = identity(BootId.mint())
        asks = await Initiator.connect(lab.host, lab.port, name=name)
        await asks.log_in(discovery=True)
        asks.send(pdu.TextRequest(itt=3, cmdsn=asks.cmdsn, immediate=True, data=b"SendTargets=All\0"))
        found = (await asks.receive()).data.split(b"\0")
        targets = [item.partition(b"=")[2].decode() for item in found if item.startswith(b"TargetName=")]
        assert targets == [lab.plans[MAC].target]
        for target in (targets[0], lab.plans[other].target):
            try:
                pc = await Initiator.logged_in(lab.host, lab.port, name=name, target=target)
            except LoginFailed:
                assert target not in targets
            else:
                assert target in targets
                await pc.close()
        await asks.close()
        await asyncio.sleep(0)
