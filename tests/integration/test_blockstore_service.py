"""The block store as the process that it is: started, killed and started again, without NATS."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import socket
import sys
import time
from pathlib import Path

import httpx
import pytest

from bootlink_events import BootId, BootPlan, mac_token
from lab.blockstore import MAC, digest, identity, make_image, plan
from lab.iscsi import Initiator
from lab.process import Process

SIZE = 8 << 20


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Service:
    """`python -m bootlink_blockstore` over a folder, its plans in the snapshot that it starts from."""

    def __init__(self, folder: Path, *plans: BootPlan, port: int = 0) -> None:
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
                "BOOTLINK_NATS_URL": "nats://127.0.0.1:1",
                "BOOTLINK_BLOCKSTORE_HOST": "127.0.0.1",
                "BOOTLINK_BLOCKSTORE_PORT": str(port),
                "BOOTLINK_BLOCKSTORE_CACHE": "32MiB",
                "BOOTLINK_LOG_FORMAT": "json",
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

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.kill()
        with self.log.open("a") as log:
            log.write("----\n")

    async def login(self, boot_id: BootId) -> Initiator:
        return await Initiator.logged_in("127.0.0.1", self.ports["iscsi"], name=identity(boot_id))


async def test_acknowledged_writes_survive_kill_9_and_are_read_back_under_the_same_boot_id(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", SIZE)
    before, image = digest(base), base.read_bytes()
    service, seed = Service(tmp_path, plan(base)), random.Random(20261123)
    boot_id = BootId.mint(now_ms=int(time.time() * 1000) - 3_600_000)
    held = bytearray(image)
    uncertain: set[int] = set()
    try:
        for round_number in range(4):
            service.start()
            pc = await service.login(boot_id)
            for at in range(0, SIZE, 1 << 20):
                read = await pc.read(at, 1 << 20)
                for sector in range(at // 512, (at + (1 << 20)) // 512):
                    place = slice(sector * 512, sector * 512 + 512)
                    now = read[sector * 512 - at : sector * 512 - at + 512]
                    # What was not acknowledged may be there or not, sector by sector; from now on it stays as it is.
                    assert sector in uncertain or now == held[place], (round_number, sector)
                    held[place] = now
            uncertain.clear()
            killer = asyncio.get_running_loop().call_later(0.1 + seed.random() / 3, service.kill)
            try:
                while True:
                    lba, sectors = seed.randrange(SIZE // 512 - 300), seed.choice([1, 3, 8, 64, 257])
                    data = seed.randbytes(512) * sectors
                    uncertain = set(range(lba, lba + sectors))
                    await pc.write(lba * 512, data)
                    held[lba * 512 : (lba + sectors) * 512] = data
                    uncertain = set()
            except ConnectionError:
                pass
            killer.cancel()
            await pc.close()
        assert held != image
    finally:
        service.process.kill()
    assert digest(base) == before


async def test_readiness_names_the_portal_the_store_and_the_plans(tmp_path: Path) -> None:
    service = Service(tmp_path, plan(make_image(tmp_path / "base.img", SIZE)))
    service.start()
    try:
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://127.0.0.1:{service.ports['health']}/readyz")
        report = answer.json()
        assert answer.status_code == 200
        assert report["addresses"]["iscsi"] == f"127.0.0.1:{service.ports['iscsi']}"
        assert {"portal", "write-backs", "event loop"} <= set(report["checks"])
        assert report["checks"]["plans"]["detail"].startswith("1 plans from the snapshot")
    finally:
        assert service.process.stop() == 0


def start_fails(service: Service) -> str:
    """What it says when it does not come up; it must have exited with 1."""
    with pytest.raises(RuntimeError) as caught:
        service.start()
    assert service.process._child is not None
    assert service.process._child.returncode == 1
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = start_fails(Service(tmp_path, port=port))
    assert re.search(rf"problem.*{port}", words)
    assert "BOOTLINK_BLOCKSTORE_PORT" in words


def test_a_folder_that_cannot_be_written_to_is_one_clear_line(tmp_path: Path) -> None:
    service = Service(tmp_path)
    (service.data / "blockstore" / "writebacks").write_text("in the way")
    words = start_fails(service)
    assert "writebacks" in words
    assert "remedy" in words


async def test_a_stop_while_a_client_writes_is_clean(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", SIZE)
    service = Service(tmp_path, plan(base, mac=MAC))
    service.start()
    pc = await service.login(BootId.mint())
    for number in range(40):
        pc.send(
            pc.command(bytes.fromhex("2a000000000000000800"), expected=4096, write=True, data=bytes([number]) * 4096)
        )
    assert await asyncio.to_thread(service.process.stop) == 0
    await pc.close()
