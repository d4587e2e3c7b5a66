"""The targets that are measured: Bootlink's block store, tgt, and the bare loop. Each is one process on one core.

The block store is the real `python -m bootlink_blockstore`, with all that it does in production. It takes its plans
from the snapshot that it would have left itself; nobody answers at its NATS address, so events wait in its backlog.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.load import Login
from bench.machine import SERVER_CORE, built, pinned
from bootlink_events import BootId, BootPlan, initiator_iqn, mac_token, target_iqn
from lab.blockstore import plan
from lab.process import Process

CACHE_BYTES = 512 << 20  # the block store's RAM cache: what is read here fits
TGT_IQN = "iqn.2026-11.io.bootlink:bench"
NOBODY = "nats://127.0.0.1:1"  # tcpmux: nothing listens there
SECTOR = 512


@dataclass(frozen=True)
class Server:
    """A target that serves. `login(n)` is the nth client's session."""

    name: str
    pid: int
    login: Callable[[int], Login]

    def logins(self, count: int, first: int = 0) -> list[Login]:
        return [self.login(first + n) for n in range(count)]


def make_disk(path: Path, size: int) -> Path:
    """A raw disk whose every sector begins with its own number, as the load client expects it."""
    filler = os.urandom(SECTOR - 10) + b"\x55\xaa"  # every sector could be a boot sector; the first must
    with path.open("wb") as out:
        for first in range(0, size // SECTOR, 8192):
            last = min(first + 8192, size // SECTOR)
            out.write(b"".join(lba.to_bytes(8, "big") + filler for lba in range(first, last)))
        out.flush()
        os.fsync(out.fileno())
    return path


def mac(n: int) -> str:
    return f"52:54:00:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}"


@contextlib.contextmanager
def store(
    folder: Path,
    image: Path,
    *,
    clients: int = 64,
    cache: int = CACHE_BYTES,
    environment: dict[str, str] | None = None,
) -> Iterator[Server]:
    """The block store, with a plan for each of `clients`. `folder` is made and holds its data."""
    data = folder / "blockstore"
    data.mkdir(parents=True)
    model = plan(image)
    plans = {
        mac_token(mac(n)): model.model_copy(
            update={"mac": mac(n), "client": f"pc-{n:04}", "target": target_iqn(mac(n))}
        )
        for n in range(1, clients + 1)
    }
    _write_snapshot(data / "plans.json", plans)
    settings = {
        "BOOTLINK_DATA": str(folder),
        "BOOTLINK_NATS_URL": NOBODY,
        "BOOTLINK_BLOCKSTORE_HOST": "127.0.0.1",
        "BOOTLINK_BLOCKSTORE_PORT": "0",
        "BOOTLINK_BLOCKSTORE_CACHE": str(cache),
        "BOOTLINK_LOG_FORMAT": "json",
    }
    environment = {**os.environ, **settings, **(environment or {})}
    log = folder / "log"
    process = Process(pinned(SERVER_CORE, sys.executable, "-m", "bootlink_blockstore"), log=log, env=environment)
    process.start(lambda: '"event": "ready"' in log.read_text() if log.exists() else False)
    said = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    host, port = next(s["address"] for s in said if s["event"] == "listening" and s["what"] == "iscsi").split(":")
    boots = {n: BootId.mint() for n in range(1, clients + 1)}

    def login(n: int) -> Login:
        client = n % clients + 1
        return Login(host, int(port), initiator_iqn(mac(client), boots[client]), target_iqn(mac(client)), 0)

    try:
        yield Server("Bootlink", process.pid, login)
    finally:
        process.stop()


def _write_snapshot(path: Path, plans: dict[str, BootPlan]) -> None:
    path.write_text(json.dumps({"entries": {token: plan.model_dump_json() for token, plan in plans.items()}}))


@contextlib.contextmanager
def tgt(folder: Path, image: Path) -> Iterator[Server]:
    """tgtd with the image as its one logical unit, through the page cache, as it comes from Debian."""
    folder.mkdir(parents=True)
    port, control = free_port(), str(random.randrange(20_000, 30_000))
    Path("/var/run/tgtd").mkdir(exist_ok=True)
    log = folder / "log"
    process = Process(
        pinned(SERVER_CORE, "tgtd", "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}"),
        log=log,
        stop_signal=signal.SIGKILL,  # it does not always end when told to
    )

    def tell(*words: str) -> bool:
        command = ["tgtadm", "-C", control, "--lld", "iscsi", *words]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    try:
        process.start(lambda: tell("--op", "show", "--mode", "target"))
        for words in (
            ("--op", "new", "--mode", "target", "--tid", "1", "-T", TGT_IQN),
            ("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(image)),
            ("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"),
        ):
            if not tell(*words):
                raise RuntimeError(f"tgtadm {' '.join(words)} failed:\n{log.read_text()}")
        yield Server("tgt", process.pid, lambda n: Login("127.0.0.1", port, f"{TGT_IQN}:{n}", TGT_IQN, 1))
    finally:
        process.kill()
        for left in (f"socket.{control}", f"socket.{control}.lock"):
            (Path("/var/run/tgtd") / left).unlink(missing_ok=True)


def loop(folder: Path, image: Path) -> AbstractContextManager[Server]:
    """The bare epoll loop, with the image in its memory."""
    return _bare("bare loop", [str(built("loop")), str(image)], folder)


def bare(folder: Path, image: Path) -> AbstractContextManager[Server]:
    """The same in Python on uvloop."""
    return _bare("bare uvloop", [sys.executable, "-m", "bench.bare", str(image)], folder)


@contextlib.contextmanager
def _bare(name: str, command: list[str], folder: Path) -> Iterator[Server]:
    """A server that says on which port it listens."""
    folder.mkdir(parents=True)
    log = folder / "log"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = Process(pinned(SERVER_CORE, *command), log=log, env=environment)
    process.start(lambda: log.exists() and log.read_text().endswith("\n"))
    port = int(log.read_text().split()[1])
    try:
        yield Server(name, process.pid, lambda n: Login("127.0.0.1", port, f"{TGT_IQN}:{n}", TGT_IQN, 0))
    finally:
        process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
