"""A whole Bootlink as a test host: a real `bootlink up --json` on ports of its own, and the command beside it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bootlink.settings import NATS_KEYS
from bootlink_runtime.access import NatsAccess, access

START_SECONDS = 60.0  # a first start makes a PostgreSQL cluster
STOP_SECONDS = 40.0
COMMAND_SECONDS = 30.0
FREE_PORTS = {"BOOTLINK_REGISTRY_API_PORT": "0", "BOOTLINK_BLOCKSTORE_PORT": "0", "BOOTLINK_NATS_PORT": "0"}
BOOTLINK = (sys.executable, "-m", "bootlink")


class Up:
    """`bootlink up`; by default registry and blockstore alone, on loopback and free ports."""

    def __init__(self, *options: str, data: Path | None = None, env: dict[str, str] | None = None) -> None:
        # A Unix socket's path is short, and pytest's folders are long.
        self.data = data or Path(tempfile.mkdtemp(prefix="bl-up-"))
        self.options = options or ("--services", "registry,blockstore")
        self.prefix: Sequence[str] = ()
        self.said: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self._environment = clean_environment() | FREE_PORTS | (env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
        self._more = threading.Condition()
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Up:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._errors.close()
        shutil.rmtree(self.data, ignore_errors=True)

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it, without waiting for anything."""
        if self._reader is not None:
            self._reader.join(5)  # what the former one said last must not be taken for the new one's words
        self.said = []
        command = [*self.prefix, *BOOTLINK, "up", "--data", str(self.data), "--json", *self.options]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._errors, stdin=subprocess.DEVNULL, env=self._environment
        )
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()
        return process

    def start(self) -> None:
        """Start it and wait until it is ready. RuntimeError with its own words when it does not come up."""
        self.spawn()
        try:
            self.facts = self.until(lambda said: said["event"] == "ready", seconds=START_SECONDS)
        except TimeoutError:
            assert self._process is not None
            status = self._process.poll()
            self.stop()
            self._errors.seek(0)
            errors = self._errors.read().decode(errors="replace")
            raise RuntimeError(f"bootlink up is not ready (status {status}): {errors}\n{self.said}") from None

    def until(self, wanted: Callable[[dict[str, Any]], bool], *, seconds: float = 20, after: int = 0) -> dict[str, Any]:
        """What it said first, from the `after`th on, for which `wanted` holds. TimeoutError; also when it ended."""
        deadline = time.monotonic() + seconds
        with self._more:
            while True:
                for said in self.said[after:]:
                    if wanted(said):
                        return said
                if time.monotonic() > deadline or (self.said and self.said[-1]["event"] == "end of output"):
                    raise TimeoutError
                self._more.wait(0.2)

    def pid_of(self, name: str) -> int:
        """The process that runs this service or engine now."""
        return int([said["pid"] for said in self.said if said["event"] == "started" and said["service"] == name][-1])

    @property
    def pids(self) -> list[int]:
        """All children that were ever started."""
        return [int(said["pid"]) for said in self.said if said["event"] == "started"]

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop and wait; returns the exit status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            status = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        if self._reader is not None:
            self._reader.join(5)
        return status

    def access(self, role: str) -> NatsAccess:
        """What one of its services shows to its NATS."""
        return access(url=self.facts["nats"], credentials=(self.data / NATS_KEYS / f"{role}.nk").read_text())

    def bootlink(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command against this system."""
        facts = self.facts
        env = {
            "BOOTLINK_API": facts["api"],
            "BOOTLINK_NATS_URL": facts["nats"],
            "BOOTLINK_DATA": facts["data"],
        }
        return bootlink(*arguments, env=env, prefix=self.prefix)

    def on_terminal(self, columns: int, *arguments: str) -> list[str]:
        """The lines that the command writes to a terminal of so many columns, without colours. It must succeed."""
        facts = self.facts
        env = {"BOOTLINK_API": facts["api"], "BOOTLINK_NATS_URL": facts["nats"], "BOOTLINK_DATA": facts["data"]}
        ours, its = pty.openpty()
        termios.tcsetwinsize(its, (50, columns))
        process = subprocess.Popen(
            [*BOOTLINK, *arguments],
            env=clean_environment() | env | {"TERM": "xterm"},
            stdin=its,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        said = b""
        with contextlib.suppress(OSError):  # what a terminal gives that nobody writes to any more
            while data := os.read(ours, 65536):
                said += data
        os.close(ours)
        assert process.wait(COMMAND_SECONDS) == 0, said
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).splitlines()]

    def query(self, *arguments: str) -> Any:
        """Run the command with --json; what it answered. It must succeed and say nothing else."""
        done = self.bootlink(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return json.loads(done.stdout)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._more:
                self.said.append(json.loads(line))
                self._more.notify_all()
        with self._more:
            self.said.append({"event": "end of output"})
            self._more.notify_all()
        process.stdout.close()


def clean_environment() -> dict[str, str]:
    """The environment without the user's own Bootlink settings, and without the size of the user's terminal."""
    left_out = ("COLUMNS", "LINES")
    return {
        name: value for name, value in os.environ.items() if not name.startswith("BOOTLINK_") and name not in left_out
    }


def bootlink(
    *arguments: str, env: dict[str, str] | None = None, prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `bootlink ARGUMENTS`."""
    return subprocess.run(
        [*prefix, *BOOTLINK, *arguments],
        env=clean_environment() | (env or {}),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def error_of(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """Problem and remedy of a command that failed as commands must: two lines on stderr, nothing else, status 1."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    problem, remedy, *more = done.stderr.splitlines()
    assert problem.startswith("error: "), done.stderr
    assert remedy.startswith("  what to do: "), done.stderr
    assert not more, done.stderr
    return problem.removeprefix("error: "), remedy.removeprefix("  what to do: ")
