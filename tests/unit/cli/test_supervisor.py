"""The supervisor with tiny services: order, restart, back-off, the first failure, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bootlink.supervisor.backoff import Backoff
from bootlink.supervisor.keeper import FailedToStart, Happening, Keeper
from bootlink.supervisor.program import Program
from bootlink.supervisor.supervisor import Supervisor
from lab.programs import RUNS, alive, service


class Story:
    """What a supervisor told, with a way to wait for it."""

    def __init__(self) -> None:
        self.told: list[Happening] = []
        self._more = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, happening: Happening) -> None:
        self.told.append(happening)
        task = asyncio.ensure_future(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._more:
            self._more.notify_all()

    async def until(self, what: str, *, times: int = 1, seconds: float = 20) -> Happening:
        """The `times`th happening of this kind."""
        async with asyncio.timeout(seconds), self._more:
            await self._more.wait_for(lambda: len(self.of(what)) >= times)
        return self.of(what)[times - 1]

    def of(self, what: str) -> list[Happening]:
        return [h for h in self.told if h.what == what]


@contextlib.asynccontextmanager
async def supervised(
    *programs: Program, backoff: Callable[[], Backoff] = lambda: Backoff(first=0.05)
) -> AsyncIterator[tuple[Supervisor, Story, asyncio.Task[None]]]:
    story = Story()
    supervisor = Supervisor(programs, story, backoff=backoff)
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor, story, task
    finally:
        supervisor.stop()
        with contextlib.suppress(FailedToStart):
            await asyncio.wait_for(task, 30)


async def test_all_services_start_and_stop_in_reverse_order_of_their_tiers(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    programs = [
        service(name, RUNS, notes=str(notes), tier=tier, environment={"NAME": name})
        for name, tier in (("dhcp", 3), ("registry", 2), ("tftp", 3))
    ]
    async with supervised(*programs) as (supervisor, story, task):
        await asyncio.wait_for(supervisor.all_ready.wait(), 20)
        assert {h.name for h in story.of("ready")} == {"dhcp", "registry", "tftp"}
        supervisor.stop()
        await task
    stops = [line for line in notes.read_text().splitlines() if line.startswith("stop")]
    assert set(stops[:2]) == {"stop dhcp", "stop tftp"}
    assert stops[2:] == ["stop registry"]
    assert {h.name for h in story.of("stopped")} == {"dhcp", "registry", "tftp"}


async def test_an_engine_is_asked_until_it_answers_before_anything_above_it_starts(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("")
    prepared: list[str] = []
    slow = "time.sleep(0.3); note('up')\nwhile True: time.sleep(60)"
    engine = service(
        "postgres",
        slow,
        notes=str(notes),
        tier=1,
        prepare=lambda: prepared.append("postgres"),
        answers=lambda: "up" in notes.read_text(),
    )
    async with supervised(engine, service("registry", RUNS, notes=str(notes))) as (supervisor, story, _):
        await asyncio.wait_for(supervisor.all_ready.wait(), 20)
        order = [(h.what, h.name) for h in story.told if h.what in ("started", "ready")]
    assert prepared == ["postgres"]
    assert order == [("started", "postgres"), ("ready", "postgres"), ("started", "registry"), ("ready", "registry")]


async def test_a_service_that_dies_is_started_again_with_growing_pauses_and_the_others_stay(tmp_path: Path) -> None:
    dies = "say('ready'); time.sleep(0.05); sys.exit(3)"
    async with supervised(service("tftp", dies), service("dhcp", RUNS)) as (_, story, _):
        await story.until("died", times=4)
        deaths = story.of("died")
        assert [h.name for h in deaths[:4]] == ["tftp"] * 4
        assert [h.status for h in deaths[:4]] == [3] * 4
        assert [h.pause for h in deaths[:4]] == [0.05, 0.1, 0.2, 0.4]
        assert len([h for h in story.of("started") if h.name == "dhcp"]) == 1


def test_pauses_double_up_to_a_bound_and_begin_anew_after_a_steady_run() -> None:
    backoff = Backoff(first=1, longest=5, steady=60)
    assert [backoff.after(0.1) for _ in range(5)] == [1, 2, 4, 5, 5]
    assert backoff.after(60) == 1
    assert backoff.after(0) == 2


async def test_a_service_that_cannot_start_ends_the_whole_with_its_own_words_and_nothing_left(tmp_path: Path) -> None:
    refuses = """
time.sleep(0.3)
say("cannot start", problem="port 69 is taken", remedy="stop the other")
sys.exit(1)"""
    async with supervised(service("dhcp", RUNS), service("tftp", refuses)) as (_, story, task):
        with pytest.raises(FailedToStart) as failure:
            await asyncio.wait_for(task, 20)
    assert failure.value.problem == "tftp: port 69 is taken"
    assert failure.value.remedy == "stop the other"
    assert not any(alive(h.pid) for h in story.of("started") if h.pid)


async def test_a_crash_before_the_service_was_ever_ready_ends_the_whole_with_its_last_words() -> None:
    async with supervised(service("tftp", "raise SystemExit('no such module: x')")) as (_, _, task):
        with pytest.raises(FailedToStart, match="tftp ended with status 1 before it was ready: no such module: x"):
            await asyncio.wait_for(task, 20)


async def test_a_service_that_cannot_start_again_later_is_tried_again_for_ever(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    once = """
if os.path.exists(os.environ["NOTES"]):
    say("cannot start", level="error", problem="port 69 is taken", remedy="stop the other")
    sys.exit(1)
note("was here")
say("ready")
time.sleep(0.05)
sys.exit(1)"""
    async with supervised(service("tftp", once, notes=str(notes))) as (_, story, task):
        await story.until("died", times=3)
        assert not task.done()


async def test_a_killed_service_comes_back_on_the_port_it_had_when_its_port_is_0(tmp_path: Path) -> None:
    binds = """
import socket
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("127.0.0.1", int(os.environ["API_PORT"])))
say("listening", what="api", address="127.0.0.1:%d" % sock.getsockname()[1])
say("ready")
time.sleep(60)"""
    program = service("registry", binds, keeps={"api": "API_PORT"}, environment={"API_PORT": "0"})
    async with supervised(program) as (_, story, _):
        first = await story.until("ready")
        assert first.pid
        os.kill(first.pid, signal.SIGKILL)
        second = await story.until("ready", times=2)
        assert second.pid != first.pid
        assert second.addresses == first.addresses


async def test_a_service_that_ignores_the_stop_is_killed_after_its_grace() -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay('ready')\nwhile True: time.sleep(60)"
    async with supervised(service("tftp", deaf, grace=0.2)) as (supervisor, story, task):
        started = await story.until("started")
        await story.until("ready")
        supervisor.stop()
        await asyncio.wait_for(task, 10)
    assert started.pid
    assert not alive(started.pid)
    assert any(h.line and "killed" in h.line.event for h in story.of("log"))


async def test_a_second_request_to_stop_does_not_wait_for_the_grace() -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay('ready')\nwhile True: time.sleep(60)"
    async with supervised(service("tftp", deaf, grace=600)) as (supervisor, story, task):
        await story.until("ready")
        supervisor.stop()
        supervisor.stop()
        await asyncio.wait_for(task, 10)


async def test_a_stop_during_the_first_start_stops_what_came_up() -> None:
    async with supervised(service("dhcp", RUNS), service("tftp", "time.sleep(60)")) as (supervisor, story, task):
        await story.until("ready")
        supervisor.stop()
        await asyncio.wait_for(task, 10)
    assert not any(alive(h.pid) for h in story.of("started") if h.pid)


async def test_a_grandchild_that_holds_the_pipe_does_not_hide_the_death_of_the_service() -> None:
    leaves = """
import subprocess
say("ready")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"])
say("child", pid=child.pid)
sys.exit(1)"""
    async with supervised(service("tftp", leaves), backoff=lambda: Backoff(first=30)) as (_, story, _):
        await story.until("died", seconds=10)
        lines = [h.line for h in story.of("log") if h.line and h.line.event == "child"]
        assert lines
        os.kill(lines[0].fields["pid"], signal.SIGKILL)


async def test_a_flood_of_output_is_read_in_bounded_lines_and_does_not_hold_the_service() -> None:
    floods = """
for _ in range(50):
    sys.stderr.write("x" * 100_000)
sys.stderr.write("\\n")
say("ready")
time.sleep(60)"""
    async with supervised(service("tftp", floods)) as (supervisor, story, _):
        await asyncio.wait_for(supervisor.all_ready.wait(), 20)
        logged = [h.line for h in story.of("log") if h.line]
        assert max(len(line.event) for line in logged) < 20_000


async def test_the_keeper_stops_a_process_that_is_told_to_stop_while_it_pauses() -> None:
    story = Story()
    keeper = Keeper(service("tftp", "say('ready'); sys.exit(1)"), story, backoff=Backoff(first=600))
    task = asyncio.create_task(keeper.run())
    await story.until("died")
    began = time.monotonic()
    await keeper.stop()
    await asyncio.wait_for(task, 5)
    assert time.monotonic() - began < 5
