"""A block store as the process that it is, without NATS: its plans in the snapshot that it starts from."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from bootlink_events import BootId, BootPlan, mac_token, target_iqn
from lab.blockstore import MAC, identity
from lab.iscsi import Initiator
from lab.process import Process

NODE = "lab"


class Service:
    """`python -m bootlink_blockstore` over a folder. `start` it, `kill` it, and start it again."""

    def __init__(
        self, folder: Path, *plans: BootPlan, port: int = 0, nats: str = "nats://127.0.0.1:1", **settings: str
    ) -> None:
        """`nats`: none by default. `settings`: more of BOOTLINK_BLOCKSTORE_*, in lower case."""
        self.data = folder / "data"
        snapshot = self.data / "blockstore" / "plans.json"
        snapshot.parent.mkdir(parents=True, exist_ok=True)
        entries = {mac_token(p.mac): p.model_dump_json() for p in plans}
        snapshot.write_text(json.dumps({"bucket": "bootlink_plans", "entries": entries}))
        self.log = folder / "log"
        self.process = Process(
            [sys.executable, "-m", "bootlink_blockstore"],
            log=self.log,
            env={
                **os.environ,
                "BOOTLINK_DATA": str(self.data),
                "BOOTLINK_NATS_URL": nats,
                "BOOTLINK_NODE": NODE,
                "BOOTLINK_BLOCKSTORE_HOST": "127.0.0.1",
                "BOOTLINK_BLOCKSTORE_PORT": str(port),
                "BOOTLINK_BLOCKSTORE_CACHE": "32MiB",
                "BOOTLINK_LOG_FORMAT": "json",
                **{f"BOOTLINK_BLOCKSTORE_{name.upper()}": value for name, value in settings.items()},
            },
        )

    def start(self) -> None:
        self.process.start(lambda: '"ready"' in self._words())
        self.ports = {
            entry["what"]: int(entry["address"].rpartition(":")[2])
            for line in self._words().splitlines()
            if '"listening"' in line and (entry := json.loads(line))
        }

    def _words(self) -> str:
        """What this run has logged."""
        whole = self.log.read_text() if self.log.exists() else ""
        return whole.rpartition("----\n")[2]

    @property
    def resident(self) -> int:
        """RSS in bytes."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Rss:"))

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.kill()
        with self.log.open("a") as log:
            log.write("----\n")

    async def login(self, boot_id: BootId, mac: str = MAC) -> Initiator:
        return await Initiator.logged_in(
            "127.0.0.1", self.ports["iscsi"], name=identity(boot_id, mac), target=target_iqn(mac)
        )
