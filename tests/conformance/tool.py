"""iscsi-test-cu (libiscsi 1.19): its tests, a run of one or of all, and what became of each.

The tool prints, with -v, a line "Test: NAME ..." before each test and "passed" or "FAILED" behind what the test said
itself. A test that could not be run passes for it, and says [SKIPPED]; here that is a verdict of its own, also where
only a part was skipped. A test behind which neither word stands was never finished: the tool crashed in it.

The tool clears reservations around every test, and says so when it cannot; that is no skip of the test.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from lab.blockstore import make_image

SIZE: Final = 16 << 20  # bytes of the disk under test
# MultipathIO.CompareAndWrite writes zeros to the first 256 blocks and then takes for granted that block 256 is zeros.
BLANK_BLOCKS: Final = 1024
ALONE_SECONDS: Final = 60.0  # a test takes 0.1 s; the rest is for a machine that does other things too
WHOLE_SECONDS: Final = 400.0

PASSED, SKIPPED, FAILED, CRASHED = "passed", "skipped", "failed", "crashed"

_SUITE = re.compile(r"^Suite: (\w+)$")
_TEST = re.compile(r"^  Test: (\S+) \.\.\.(.*)$")
_END = re.compile(r"(?:^|\.\.\.)(passed|FAILED)", re.MULTILINE)
_WHY = re.compile(r"^    \d+\. (.*?)(?:    \[.*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """What became of a test. `why`: what was skipped, or the assertions that failed."""

    what: str
    why: tuple[str, ...] = ()


@cache
def tests() -> tuple[str, ...]:
    """All tests, as SUITE.TEST."""
    assert shutil.which("iscsi-test-cu"), "iscsi-test-cu is missing: apt-get install libiscsi-bin"
    listed = subprocess.run(["iscsi-test-cu", "-l"], capture_output=True, text=True, check=True).stdout
    return tuple(re.findall(r"^ALL\.(\w+\.\S+)$", listed, re.MULTILINE))


def disk(path: Path) -> Path:
    """An image for the disk under test: noise, behind a start that is blank but for the boot signature."""
    make_image(path, SIZE)
    with path.open("r+b") as image:
        image.write(bytes(510))
        image.seek(512)
        image.write(bytes((BLANK_BLOCKS - 1) * 512))
    return path


async def alone(name: str, url: str) -> Verdict:
    """One test, in a process of its own, with two paths to the one unit."""
    verdicts = await _run(name, url, ALONE_SECONDS)
    return verdicts.get(name, Verdict(CRASHED))


async def together(name: str, url: str) -> dict[str, Verdict]:
    """A suite, a family or "all" in one process: what became of each test that was begun."""
    return await _run(name, url, WHOLE_SECONDS)


async def _run(name: str, url: str, seconds: float) -> dict[str, Verdict]:
    process = await asyncio.create_subprocess_exec(
        *("iscsi-test-cu", "-d", "-S", "-v", "-t", "ALL" if name == "all" else f"ALL.{name}", url, url),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        out, _ = await process.communicate()
    return read(out.decode(errors="replace"))


def read(words: str) -> dict[str, Verdict]:
    """The verdicts in the tool's output."""
    said: dict[str, list[str]] = {}
    suite = ""
    lines: list[str] = []
    for line in words.splitlines():
        if found := _SUITE.match(line):
            suite, lines = found[1], []
        elif found := _TEST.match(line):
            lines = said[f"{suite}.{found[1]}"] = [f"...{found[2]}"]
        else:
            lines.append(line)
    return {name: _verdict("\n".join(lines)) for name, lines in said.items()}


def _verdict(said: str) -> Verdict:
    end = _END.search(said)
    if end is None:
        return Verdict(CRASHED)
    if end[1] == "FAILED":
        return Verdict(FAILED, tuple(_WHY.findall(said)))
    skips = re.findall(r"\[SKIPPED\] *(.*)", said[: end.start() + 3])
    skips = [skip.strip() for skip in skips if "PERSISTENT RESERVE" not in skip]
    return Verdict(SKIPPED, tuple(dict.fromkeys(skips))) if skips else Verdict(PASSED)
