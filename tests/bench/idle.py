"""What a session costs in memory that is logged in and does nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bench import servers
from bench.load import Work
from bench.machine import CLIENT_CORE, built, pinned
from bench.report import Goal, Section, table

FIRST = 50  # sessions before the ones that count: what is made once is made by then
SESSIONS = 1_000
LIMIT = 100 << 10  # bytes each


def idle_sessions(folder: Path) -> Section:
    image = servers.make_disk(folder / "disk.raw", 8 << 20)
    with servers.store(folder / "store", image, clients=FIRST + SESSIONS) as ours:
        client = subprocess.Popen(
            pinned(CLIENT_CORE, built("load"), *Work("idle").options(0)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        resident = []
        try:
            for first, count in ((0, FIRST), (FIRST, SESSIONS)):
                for login in ours.logins(count, first):
                    client.stdin.write(login.line())
                client.stdin.flush()
                for _ in range(count):
                    if client.stdout.readline() != "ready\n":
                        raise RuntimeError("the load client ended")
                resident.append(_resident(ours.pid))
        finally:
            client.stdin.close()
            client.wait()
    each = (resident[1] - resident[0]) / SESSIONS
    text = (
        "Each session is a client of its own with a boot, a disk and an overlay; the kernel's memory for its socket "
        "is not in it.\n\n"
    )
    rows = [(f"{SESSIONS:,} sessions more", *(f"{size / 2**20:.1f}" for size in resident), f"{each / 1024:.1f}")]
    return Section(
        "Idle sessions",
        text + table(("", "resident MiB before", "after", "KiB each"), rows),
        (Goal(f"an idle session costs less than {LIMIT >> 10} KiB", each < LIMIT, f"{each / 1024:.1f} KiB"),),
    )


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
