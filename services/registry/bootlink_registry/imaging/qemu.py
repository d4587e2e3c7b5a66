"""qemu-img, for formats that we do not read ourselves: started with little, watched, and told the format.

What it may open is in `confinement`; what it is given was looked at before in `foreign`. The source is handed over as
an open file, by its descriptor, so that it is the one that was looked at.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bootlink_registry.imaging.confinement import confine_tool
from bootlink_registry.problems import Problem

LOOK_SECONDS: Final = 30  # of computing, to look at an image's own tables, or to check them
PER_GIB_SECONDS: Final = 30  # of computing, per GiB of the disk: compressed clusters take most
SLACK: Final = 64 << 20  # bytes that a file may be larger than its disk: tables and padding
SAYS_LIMIT: Final = 1 << 20  # bytes of what it says; a picture of an image with very many snapshots
GIB: Final = 1 << 30

_ONE_ARENA: Final = {"MALLOC_ARENA_MAX": "1"}
"""glibc gives each of its up to 64 threads an arena of 128 MiB of address space: on a busy machine, where more of them
are at work at once, the next thread finds none left within the limit, and it aborts."""

_PERCENT: Final = re.compile(rb"\((\d+)\.\d+/100%\)")


def require_tool() -> Path:
    """Where qemu-img is. Problem if it is not installed."""
    found = shutil.which("qemu-img")
    if found is None:
        raise Problem(
            501,
            "qemu-img, which reads this format, is not installed where the registry runs",
            "install it (Debian: apt install qemu-utils), or convert the file to raw, VHD or VHDX elsewhere",
        )
    return Path(found).resolve()


def info(source: int, format_: str) -> dict[str, Any]:
    """What `qemu-img info` says of the open file. Problem if it is no such image."""
    said = _run(("info", "--output=json", "-f", format_, _path(source)), source)
    found = json.loads(said)
    assert isinstance(found, dict)
    return found


def check(source: int, format_: str) -> None:
    """Problem if the image's own tables contradict each other or its size, as in one that is cut short."""
    _run(("check", "-f", format_, _path(source)), source, fine=(0, 3, 63))  # 3: space is lost; 63: it cannot check


def convert(
    source: int,
    format_: str,
    target: Path,
    target_format: str,
    *,
    size: int,
    options: str = "",
    tell: Callable[[int], None] = lambda _done: None,
) -> None:
    """Write the disk of the open file, of `size` bytes, to `target`, which is made. `tell` is told the bytes of the
    disk done."""
    more = ("-o", options) if options else ()
    command = ("convert", "-p", "-f", format_, "-O", target_format, *more, _path(source), str(target))
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))  # it may make no file itself
    try:
        _run(command, source, target, size=size, tell=tell)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _path(source: int) -> str:
    return f"/proc/self/fd/{source}"


def _run(
    arguments: tuple[str, ...],
    source: int,
    target: Path | None = None,
    *,
    size: int = 0,
    fine: tuple[int, ...] = (0,),
    tell: Callable[[int], None] = lambda _done: None,
) -> bytes:
    tool, parent = require_tool(), os.getpid()
    most = 0 if target is None else size + size // 16 + SLACK
    seconds = LOOK_SECONDS + size * PER_GIB_SECONDS // GIB
    with subprocess.Popen(
        [tool, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(source,),
        env={"PATH": os.defpath, "LC_ALL": "C", **_ONE_ARENA},
        preexec_fn=lambda: confine_tool(parent, tool, source, target, size=most, seconds=seconds),
    ) as process:
        assert process.stdout is not None
        said = b""
        while data := os.read(process.stdout.fileno(), 4096):
            said = (said + data)[:SAYS_LIMIT]
            if percent := _PERCENT.findall(data):
                tell(size * int(percent[-1]) // 100)
                said = said.rpartition(b"%)")[2]
    if process.returncode not in fine:
        raise _failed(arguments[0], process.returncode, said.decode(errors="replace"))
    return said


def _failed(what: str, status: int, words: str) -> Problem:
    lines = [line for line in words.replace("\r", "\n").splitlines() if line.strip()]
    last = "".join(letter for letter in (lines[-1] if lines else "") if letter.isprintable())[:300]
    last = re.sub(r"^qemu-img: (Could not open '/proc/self/fd/\d+': )?", "", last)
    if "No space left on device" in words:
        return Problem(507, f"qemu-img {what}: the disk is full", "free some space, then repeat")
    if "lock" in words and "Failed to get" in words:
        return Problem(409, "another program has the file open for writing", "stop that program, then repeat")
    if status < 0:
        last = f"it was ended by signal {-status}, as past its limits of time, memory or size"
    return Problem(
        422,
        f"qemu-img {what}: {last or f'status {status}'}",
        "the file may be damaged, or cut short; get it anew, or convert it to raw, VHD or VHDX elsewhere",
    )
