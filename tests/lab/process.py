"""A server process that belongs to a test: started, waited for, stopped or killed; never anybody else's."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

STOP_SECONDS = 10.0
START_SECONDS = 60.0  # on a busy machine the imports alone take twenty


class Process:
    """One child process, its output in a file."""

    def __init__(
        self,
        command: list[str],
        *,
        log: Path,
        env: dict[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.command = command
        self.log = log
        self.stop_signal = stop_signal
        self._env = env
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, answers: Callable[[], bool] | None = None, *, seconds: float = START_SECONDS) -> None:
        """Start it and wait until `answers()`. RuntimeError with its last words when it does not come up."""
        with self.log.open("ab") as out:
            self._child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=self._env
            )
        deadline = time.monotonic() + seconds
        while answers is not None and not answers():
            if self._child.poll() is not None or time.monotonic() > deadline:
                self.kill()
                words = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.command[0]} did not come up:\n{words}")
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._child is not None:
            self._child.kill()
            self._child.wait(STOP_SECONDS)

    def stop(self) -> int:
        """Tell it to stop, and wait; returns the exit status."""
        if self._child is None:
            return 0
        self._child.send_signal(self.stop_signal)
        try:
            return self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
