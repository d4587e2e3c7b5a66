"""The load client, from Python: what to do in, what was seen out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

from bench.machine import CLIENT_CORE, built, pinned

BUSY = 0.9  # share of the time that a side had its core from which it counts as the limit
TRIES = 3  # a busy machine may leave one side without any time for as long as a short measurement takes
GRACE_SECONDS = 60.0  # for logins, beside the measured time


@dataclass(frozen=True)
class Login:
    """Where a session goes, and as whom."""

    host: str
    port: int
    initiator: str
    target: str
    lun: int

    def line(self) -> str:
        return f"{self.host} {self.port} {self.initiator} {self.target} {self.lun}\n"


@dataclass(frozen=True)
class Work:
    """What all sessions do; see load.c. Sizes in bytes, times in seconds."""

    mode: str = "rand"
    size: int = 4096
    depth: int = 1
    region: int = 64 << 20
    seconds: float = 0.5
    warm: float = 0.1
    writes: bool = False
    trace: Path | None = None

    def options(self, pid: int) -> list[str]:
        options = ["-m", self.mode, "-s", str(self.size), "-d", str(self.depth), "-r", str(self.region)]
        options += ["-t", str(self.seconds), "-u", str(self.warm), "-p", str(pid)]
        return options + ["-w"] * self.writes + (["-f", str(self.trace)] if self.trace else [])


@dataclass(frozen=True)
class Sample:
    """What one measurement saw while it counted. Latencies in µs, the rest in seconds.

    `delay` is how long each side could have run and another process did: on a busy machine, no side's fault.
    """

    ops: int
    seconds: float
    client_cpu: float
    server_cpu: float
    client_delay: float
    server_delay: float
    p50: float
    p99: float
    p999: float
    longest: float

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.ops / self.seconds

    @property
    def cost(self) -> float:
        """µs of the server's CPU per operation."""
        return self.server_cpu / self.ops * 1e6

    @property
    def client_limited(self) -> bool:
        """The client had no time left, so the server could have done more."""
        return self.client_cpu / (self.seconds - self.client_delay) >= BUSY and not self.server_limited

    @property
    def server_limited(self) -> bool:
        """The server had no time left."""
        return self.server_cpu / (self.seconds - self.server_delay) >= BUSY


class Load:
    """A load client that runs: `result` waits for its end. One that is `ahead` goes before others on its core."""

    def __init__(self, pid: int, logins: Sequence[Login], work: Work, *, ahead: bool = False) -> None:
        self._child = subprocess.Popen(
            pinned(CLIENT_CORE, built("load"), *work.options(pid), *(["-a"] if ahead else [])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._seconds = work.seconds + work.warm + GRACE_SECONDS
        self._logins = "".join(login.line() for login in logins)
        assert self._child.stdin is not None
        self._child.stdin.write(self._logins)
        self._child.stdin.close()
        self._child.stdin = None

    def result(self) -> Sample:
        """What it saw. RuntimeError with its words if it failed."""
        try:
            out, errors = self._child.communicate(timeout=self._seconds)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            raise
        if self._child.returncode:
            raise RuntimeError(f"the load client: {errors.strip()}")
        return Sample(**json.loads(out.splitlines()[-1]))


def measured(pid: int, logins: Sequence[Login], work: Work) -> Sample:
    """One measurement, in which something was done. RuntimeError where nothing ever is."""
    for _ in range(TRIES):
        sample = Load(pid, logins, work).result()
        if sample.ops:
            return sample
    raise RuntimeError(f"the server did nothing in {TRIES} times {work.seconds} s")


def middle(samples: Sequence[Sample]) -> Sample:
    """The median of each figure; operations and CPU as rates of the median second."""
    rate = median(sample.rate for sample in samples)
    values = {f.name: median(getattr(sample, f.name) for sample in samples) for f in fields(Sample)}
    values["ops"] = round(rate * values["seconds"])
    values["server_cpu"] = median(sample.cost for sample in samples) * values["ops"] / 1e6
    return Sample(**values)
