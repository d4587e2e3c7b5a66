"""The TFTP clients of Debian, and tftpy's, each with the options that make a difference on the wire."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.tftp import Address

WAIT = 60.0

Command = Callable[[str, str, str, Path], list[str]]


def curl(*options: str) -> Command:
    return lambda host, port, name, to: [
        *("curl", "--silent", "--show-error", "--max-time", "50", *options),
        *("--output", str(to), f"tftp://{host}:{port}/{name}"),
    ]


def atftp(*options: str) -> Command:
    asked = [word for option in options for word in ("--option", option)]
    return lambda host, port, name, to: ["atftp", *asked, "--get", "-r", name, "-l", str(to), host, port]


def busybox(*options: str) -> Command:
    return lambda host, port, name, to: ["busybox", "tftp", "-g", *options, "-l", str(to), "-r", name, host, port]


def hpa(mode: str) -> Command:
    return lambda host, port, name, to: ["tftp", "-m", mode, host, port, "-c", "get", name, str(to)]


def tftpy(**options: int) -> Command:
    fetches = f"import sys, tftpy; h, p, n, to = sys.argv[1:]; tftpy.TftpClient(h, int(p), {options}).download(n, to)"
    return lambda host, port, name, to: [sys.executable, "-c", fetches, host, port, name, str(to)]


CLIENTS = {
    "curl": curl(),
    "curl-1428": curl("--tftp-blksize", "1428"),
    "curl-65464": curl("--tftp-blksize", "65464"),
    "curl-no-options": curl("--tftp-no-options"),
    "atftp": atftp(),
    "atftp-windowsize": atftp("blksize 1428", "windowsize 16"),
    "atftp-tsize": atftp("tsize 0", "timeout 2"),
    "busybox": busybox(),
    "busybox-1428": busybox("-b", "1428"),
    "hpa": hpa("binary"),
    "tftpy": tftpy(),
    "tftpy-1428": tftpy(blksize=1428, tsize=0),
}
PACKAGES = {"curl": "curl", "atftp": "atftp", "busybox": "busybox-static", "tftp": "tftp-hpa"}


async def fetch(client: Command, server: Address, name: str, to: Path) -> None:
    command = client(server[0], str(server[1]), name, to)
    if shutil.which(command[0]) is None:
        pytest.fail(f"{command[0]} is missing: apt install {PACKAGES[command[0]]}")
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(WAIT):
            words, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, words.decode(errors="replace")
