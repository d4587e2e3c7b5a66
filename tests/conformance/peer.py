"""tgt as the peer: a tgtd of its own for each run, so that no state is left from one to the next."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lab.process import Process

IQN: Final = "iqn.2026-11.io.bootlink:conformance"


@contextlib.contextmanager
def tgt(folder: Path, image: Path) -> Iterator[str]:
    """tgtd with a writable copy of the image, thin; gives the URL of its unit."""
    folder.mkdir(parents=True, exist_ok=True)
    disk = folder / "disk.img"
    disk.write_bytes(image.read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    control = str(random.randrange(20_000, 30_000))
    Path("/var/run/tgtd").mkdir(exist_ok=True)
    process = Process(
        ["tgtd", "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}"],
        log=folder / "log",
        stop_signal=signal.SIGKILL,  # it does not always end when told to
    )

    def tell(*words: str) -> bool:
        command = ["tgtadm", "-C", control, "--lld", "iscsi", *words]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    unit = ("--mode", "logicalunit", "--tid", "1", "--lun", "1")
    try:
        process.start(lambda: tell("--op", "show", "--mode", "target"))
        for words in (
            ("--op", "new", "--mode", "target", "--tid", "1", "-T", IQN),
            ("--op", "new", *unit, "-b", str(disk)),
            ("--op", "update", *unit, "--params", "thin_provisioning=1"),
            ("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"),
        ):
            if not tell(*words):
                raise RuntimeError(f"tgtadm {' '.join(words)} failed:\n{(folder / 'log').read_text()}")
        yield f"iscsi://127.0.0.1:{port}/{IQN}/1"
    finally:
        process.kill()
        for left in (f"socket.{control}", f"socket.{control}.lock"):
            (Path("/var/run/tgtd") / left).unlink(missing_ok=True)
