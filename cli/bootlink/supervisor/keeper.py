"""One child: started, watched, restarted, stopped.

    idle ──start──> starting ──ready──> running ──death──> waiting ──pause over──> starting ...
                       │                   │                  │
                       └──── first death ──┼──> failed        │
                                           └──stop──> stopping ──> stopped

The child's output is one pipe that is read to its end. Its death before it was ever ready is a failure to start and
ends the keeper with `FailedToStart`; every later death is followed by a pause (`backoff`) and a new start, for ever. A
child may also be asked whether something ails it; where a new start heals that, it is stopped, which is such a death.

Children get `setpriv --pdeathsig`: the kernel tells them to stop when `up` is gone, however it went. They are also
leaders of a session of their own, so that Ctrl-C in the terminal reaches `up` alone, which stops them in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bootlink.supervisor.backoff import Backoff
from bootlink.supervisor.lines import LineSplitter, LogLine, parse
from bootlink.supervisor.program import Program

ASK_SECONDS: Final = 0.1  # between questions to an engine that is starting
AILS_SECONDS: Final = 5.0  # between questions to a child that runs whether something ails it
SLOW_SECONDS: Final = 15.0  # then people are told that it is still starting
KILL_SECONDS: Final = 5.0  # the kernel needs no longer to end what was killed
READ_BYTES: Final = 64 * 1024
LAST_WORDS: Final = 3  # lines of a child that are repeated when it fails to start; the log above has them whole
LAST_WORDS_LENGTH: Final = 300  # characters of each

_RANK: Final = {"debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 4}


class FailedToStart(Exception):
    """A program died before it was ever ready: the problem, and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that a keeper tells: `started`, `slow`, `ready`, `died`, `stopped` or `log`."""

    what: str
    name: str
    pid: int | None = None
    status: int | None = None
    pause: float | None = None
    addresses: dict[str, str] | None = None
    line: LogLine | None = None


class Keeper:
    """Keeps one program running."""

    def __init__(
        self,
        program: Program,
        tell: Callable[[Happening], None],
        *,
        backoff: Backoff | None = None,
        inherit: Sequence[int] = (),
    ) -> None:
        """`inherit` are file descriptors that the child holds open as well."""
        self.program = program
        self.addresses: dict[str, str] = {}
        self.ready = asyncio.Event()
        self._tell = tell
        self._backoff = backoff or Backoff()
        self._inherit = tuple(inherit)
        self._environment = dict(program.environment)
        self._stopping = asyncio.Event()
        self._was_ready = False
        self._process: asyncio.subprocess.Process | None = None
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._reason: LogLine | None = None

    async def run(self) -> None:
        """Keep it running until `stop`. Raises FailedToStart if it was never ready."""
        while not self._stopping.is_set():
            began = time.monotonic()
            status = await self._run_once()
            if self._stopping.is_set():
                break
            if not self._was_ready:
                raise self._failure(status)
            pause = self._backoff.after(time.monotonic() - began)
            self._tell(Happening("died", self.program.name, status=status, pause=pause))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
        self._tell(Happening("stopped", self.program.name))

    async def stop(self, *, grace: float | None = None) -> None:
        """Tell it to stop; kill it when it has not after its grace."""
        self._stopping.set()
        process = self._process
        if process is not None and process.returncode is None:
            await self._end(process, grace)

    async def _end(self, process: asyncio.subprocess.Process, grace: float | None = None) -> None:
        _signal(process, self.program.stop_signal)
        try:
            await asyncio.wait_for(process.wait(), self.program.grace if grace is None else grace)
        except TimeoutError:
            self._tell(Happening("log", self.program.name, line=LogLine("killed, did not stop in time", "warning")))
            _signal_group(process, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), KILL_SECONDS)

    # -- one life -----------------------------------------------------------------------------------------------

    async def _run_once(self) -> int:
        self.addresses = {}
        self._reason = None
        # The pipe is our own rather than asyncio's, whose wait() lasts until the last holder of the pipe is gone: a
        # grandchild that stays behind must not hide the death of the service.
        read_end, write_end = os.pipe()
        try:
            process = await self._spawn(write_end)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._process = process
        self._tell(Happening("started", self.program.name, pid=process.pid))
        if self._stopping.is_set():  # told to stop while it was being started
            _signal(process, self.program.stop_signal)
        watch = asyncio.create_task(self._watch(process))
        try:
            await self._read(process, read_end)
            return await process.wait()
        finally:
            watch.cancel()
            self.ready.clear()

    async def _spawn(self, output: int) -> asyncio.subprocess.Process:
        death_signal = self.program.stop_signal.name.removeprefix("SIG")
        return await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", death_signal, "--"),
            *self.program.command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=self._environment,
            start_new_session=True,
            pass_fds=self._inherit,
        )

    async def _read(self, process: asyncio.subprocess.Process, read_end: int) -> None:
        """Hear the child's output to its end; or, when the child is gone, to the first pause."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
        )
        splitter = LineSplitter()
        ended = asyncio.create_task(process.wait())
        read = asyncio.create_task(reader.read(READ_BYTES))
        try:
            while True:
                await asyncio.wait({read, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not read.done():
                    await asyncio.wait({read}, timeout=ASK_SECONDS)
                if not read.done() or not (data := read.result()):
                    break
                for line in splitter.feed(data):
                    self._hear(line)
                read = asyncio.create_task(reader.read(READ_BYTES))
        finally:
            read.cancel()
            ended.cancel()
            transport.close()
        for line in splitter.end():
            self._hear(line)

    def _hear(self, text: str) -> None:
        line = parse(text)
        self._last_words.append(f"{line.event}: {line.fields['error']}" if "error" in line.fields else line.event)
        if line.event == "listening" and self.program.answers is None:
            self._listening(str(line.fields.get("what")), str(line.fields.get("address")))
        elif line.event == "cannot start":
            self._reason = line
        if line.event == "ready" and self.program.answers is None:
            self._is_ready()
        elif _RANK.get(line.level, 1) >= _RANK.get(self.program.shown_level, 1):
            self._tell(Happening("log", self.program.name, line=line))

    def _listening(self, what: str, address: str) -> None:
        self.addresses[what] = address
        variable = self.program.keeps.get(what)
        if variable is not None and self._environment.get(variable) == "0":
            self._environment[variable] = address.rpartition(":")[2]

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """See it come up, and then whether it stays well."""
        await self._until_it_answers()
        if self.program.ails is None:
            return
        told = ""
        while True:
            await asyncio.sleep(AILS_SECONDS)
            ailment = await asyncio.to_thread(self.program.ails)
            problem = ailment.problem if ailment else ""
            if ailment and problem != told:
                fields = {"remedy": ailment.remedy}
                self._tell(Happening("log", self.program.name, line=LogLine(problem, "error", fields)))
            told = problem
            if ailment and ailment.restart:
                await self._end(process)
                return

    async def _until_it_answers(self) -> None:
        began = time.monotonic()
        told = False
        while True:
            answers = self.program.answers
            if answers is not None and await asyncio.to_thread(answers):
                self._is_ready()
            if self.ready.is_set():
                return
            if not told and time.monotonic() - began > SLOW_SECONDS:
                told = True
                self._tell(Happening("slow", self.program.name))
            await asyncio.sleep(ASK_SECONDS)

    def _is_ready(self) -> None:
        self._was_ready = True
        self.ready.set()
        pid = self._process.pid if self._process else None
        self._tell(Happening("ready", self.program.name, pid=pid, addresses=dict(self.addresses)))

    def _failure(self, status: int) -> FailedToStart:
        name = self.program.name
        if self._reason is not None:
            fields = self._reason.fields
            return FailedToStart(f"{name}: {fields.get('problem')}", str(fields.get("remedy")))
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        words = " | ".join(word[:LAST_WORDS_LENGTH] for word in self._last_words) or "it said nothing"
        return FailedToStart(f"{name} {how} before it was ready: {words}", "correct what it says, and start again")


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
