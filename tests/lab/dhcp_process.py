"""The dhcp service as a process on the server end of a cable, as a test starts, reads and kills it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from lab.loaders import put_loaders
from lab.netns import Cable
from lab.process import Process


class DhcpProcess:
    """`python -m bootlink_dhcp` on the server end of the cable. No NATS is in reach, as it need not be."""

    def __init__(self, cable: Cable, folder: Path, **settings: str) -> None:
        put_loaders(folder / "loaders")
        self.log = folder / f"dhcp-{len(list(folder.glob('*.log')))}.log"
        self.command = Cable.inside(cable.server, sys.executable, "-m", "bootlink_dhcp")
        self.env = {
            **os.environ,
            "BOOTLINK_DATA": str(folder / "data"),
            "BOOTLINK_NATS_URL": "nats://127.0.0.1:9",
            "BOOTLINK_DHCP_INTERFACE": cable.server_card,
            "BOOTLINK_DHCP_LOADERS": str(folder / "loaders"),
            "BOOTLINK_LOG_FORMAT": "json",
            **{f"BOOTLINK_DHCP_{name.upper()}": value for name, value in settings.items()},
        }
        self._process = Process(self.command, log=self.log, env=self.env)

    def __enter__(self) -> DhcpProcess:
        self._process.start(lambda: '"ready"' in self.log.read_text())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def kill(self) -> None:
        self._process.kill()

    def logs(self, words: str, *, times: int = 1) -> None:
        """Wait until the log has these words, so often."""
        deadline = time.monotonic() + 20
        while self.log.read_text().count(words) < times:
            assert time.monotonic() < deadline, f"not logged: {words}"
            time.sleep(0.05)

    def refusal(self) -> str:
        """Start it where it must not come up; returns the last line that it logged."""
        done = subprocess.run(self.command, env=self.env, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1, done.stdout + done.stderr
        return (done.stdout + done.stderr).strip().splitlines()[-1]
