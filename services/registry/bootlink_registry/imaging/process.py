"""The parent's side: a child process per request, watched, and killed with all that it started when it must end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from pydantic import ValidationError

from bootlink_disks import writing
from bootlink_registry.imaging.requests import Request, ResultT
from bootlink_registry.problems import Problem

LINE_LIMIT: Final = 64 << 10  # bytes of a line that the child says; the longest is a result with some paths in it
LAST_WORDS: Final = 2000  # bytes kept of what it writes to stderr
KILL_SECONDS: Final = 10.0  # until a killed child is gone; longer only where the kernel waits for a device

Progress = Callable[[int, int | None], Awaitable[None]]
"""(done, total) in bytes; total None while it is not known."""


async def run(request: Request[ResultT], progress: Progress | None = None) -> ResultT:
    """Do it in a child process, and answer its result.

    Raises Problem: what is wrong with the files, or with the child. When cancelled, the child's process group is
    killed. Either way there is neither target nor draft of it then, but half a download, which is kept. Blocks nothing.
    """
    fresh = request.target is not None and not await asyncio.to_thread(request.target.exists)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", "bootlink_registry.imaging"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_LIMIT,
        start_new_session=True,  # a process group of its own
        env={name: value for name, value in os.environ.items() if not name.startswith("BOOTLINK_")},  # no secrets
    )
    assert child.stdin is not None
    words = asyncio.create_task(_last_words(child), name="imaging stderr")
    said: dict[str, Any] | None = None
    try:
        with suppress(ConnectionError):  # it died at once; what it left to say comes below
            child.stdin.write(request.model_dump_json().encode() + b"\n")
            await child.stdin.drain()
        said = await _listen(child, progress)
        await child.wait()
    finally:
        with suppress(ProcessLookupError):  # the group lives while one in it does, also after the child's own end
            os.killpg(child.pid, signal.SIGKILL)
        async with asyncio.timeout(KILL_SECONDS):
            await child.wait()
        await asyncio.wait([words])  # it ends with the group, which alone has the other end
        if request.target is not None and (said is None or "result" not in said):
            await asyncio.to_thread(_clear, request.target, fresh)
    if said is None:
        raise _died(child.returncode, words.result())
    if "problem" in said:
        raise Problem(**said["problem"])
    try:
        return cast(ResultT, request.answer.model_validate(said["result"]))
    except (ValidationError, LookupError) as error:
        raise _died(child.returncode, f"an answer that is none: {error}") from error


def _clear(target: Path, fresh: bool) -> None:
    """Remove what a failure left. `fresh`: there was no target before, so one that is there now is of no use."""
    writing.clear(target)
    if fresh:
        target.unlink(missing_ok=True)


async def _listen(child: asyncio.subprocess.Process, progress: Progress | None) -> dict[str, Any] | None:
    """What the child says last, or None if it ends without a result or a problem."""
    assert child.stdout is not None
    while True:
        try:
            line = await child.stdout.readline()
            said = json.loads(line) if line else None
        except ValueError:  # a line too long, or no JSON: whatever took the child over does not speak for it
            return None
        if not isinstance(said, dict):
            return None
        if "progress" not in said:
            return said
        if progress is not None:
            done, total = said["progress"]
            await progress(done, total)


async def _last_words(child: asyncio.subprocess.Process) -> str:
    assert child.stderr is not None
    kept = b""
    while data := await child.stderr.read(LAST_WORDS):
        kept = (kept + data)[-LAST_WORDS:]
    return kept.decode(errors="replace").strip()


def _died(status: int | None, words: str) -> Problem:
    last = words.splitlines()[-1] if words else "without a word"
    how = f"signal {signal.Signals(-status).name}" if status is not None and status < 0 else f"status {status}"
    return Problem(
        500,
        f"the process that works on image files ended by itself ({how}): {last}",
        "repeat it; if it ends so again, the file may be one that no program can read within the limits",
    )
