"""The dhcp and tftp services as processes on a LAN's bridge, with nothing else of Bootlink's: no NATS is in reach."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from guest.lan import Lan
from lab.process import Process


class BootService:
    """`python -m bootlink_dhcp` on the LAN's bridge, or tftp."""

    def __init__(self, lan: Lan, folder: Path, name: str = "dhcp", **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{name}.log"
        environment = {
            **os.environ,
            "BOOTLINK_DATA": str(folder / "data"),
            "BOOTLINK_NATS_URL": "nats://127.0.0.1:9",
            "BOOTLINK_DHCP_INTERFACE": Lan.BRIDGE,
            "BOOTLINK_LOG_FORMAT": "json",
            **{f"BOOTLINK_{name.upper()}_{key.upper()}": value for key, value in settings.items()},
        }
        self._process = Process(lan.command(sys.executable, "-m", f"bootlink_{name}"), log=self.log, env=environment)

    def __enter__(self) -> BootService:
        self._process.start(lambda: '"ready"' in self.log.read_text())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    async def logs(self, *words: str) -> None:
        """Wait until one line of the log has all these words."""
        async with asyncio.timeout(20):
            while not any(all(word in line for word in words) for line in self.log.read_text().splitlines()):
                await asyncio.sleep(0.05)
