"""What the figures were measured on, and with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "bench"
SERVER_CORE = 0
CLIENT_CORE = 1


def described() -> list[tuple[str, str]]:
    """Machine and versions, as name and value."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    return [
        ("CPU", f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores"),
        ("memory", f"{int(memory[1]) >> 20 if memory else '?'} GiB"),
        ("kernel", platform.release()),
        ("file system", _said("findmnt", "-n", "-o", "FSTYPE", "-T", str(CACHE))),
        ("Python, uvloop", f"{platform.python_version()}, {version('uvloop')}"),
        ("tgt", _packaged("tgt")),
        ("Kea, tftpd-hpa", f"{_packaged('kea-dhcp4-server')}, {_packaged('tftpd-hpa')}"),
        ("C compiler", _said("gcc", "-dumpfullversion")),
    ]


def load_average() -> str:
    """What else the machine had to do in the last minute, in processes."""
    return f"{os.getloadavg()[0]:.1f}"


def built(name: str, *options: str) -> Path:
    """The program made of `name`.c, newer than its sources."""
    folder = Path(__file__).parent
    source, header, program = folder / f"{name}.c", folder / "iscsi.h", CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    newest = max(source.stat().st_mtime, header.stat().st_mtime)
    if not program.exists() or program.stat().st_mtime < newest:
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", *options, "-o", program, source], check=True)
    return program


def pinned(core: int, *command: str | Path) -> list[str]:
    """The command, kept on one core. A machine with a single one has no choice.

    In a session of its own: the kernel shares a core out among sessions (autogroup), and tgtd makes itself one.
    """
    return ["setsid", "taskset", "-c", str(core % (os.cpu_count() or 1)), *map(str, command)]


def cpu_seconds(pid: int) -> float:
    """User and system time that this process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _packaged(name: str) -> str:
    return _said("dpkg-query", "-W", "-f", "${Version}", name)
