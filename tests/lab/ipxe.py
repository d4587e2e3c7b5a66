"""A PC in QEMU that iPXE starts, on QEMU's user network: nothing of it needs root, and 10.0.2.2 is this machine."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.boot_plans import MAC

DOWN = b"\x1b[B"
ENTER = b"\r"
ESCAPE = b"\x1b"
GATEWAY = "10.0.2.2"  # QEMU's user network: the machine that QEMU runs on
START_SECONDS = 60.0


class Screen:
    """What the PC has printed on its serial console, without colours and cursor movements."""

    def __init__(self, keyboard: asyncio.StreamWriter) -> None:
        self._text = ""
        self._keyboard = keyboard

    async def press(self, keys: bytes) -> None:
        """Type on the PC's serial console."""
        self._keyboard.write(keys)
        await self._keyboard.drain()

    def add(self, output: bytes) -> None:
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode("latin-1"))
        self._text += plain.replace("\r", "").replace("\n", " ")

    @property
    def words(self) -> str:
        return " ".join(self._text.split())

    async def shows(self, *expected: str, seconds: float = START_SECONDS) -> None:
        """Wait until all of these were printed. Then forget what was printed so far."""
        try:
            async with asyncio.timeout(seconds):
                while not all(words in self.words for words in expected):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"the PC did not show {expected}, but:\n{self.words[-3000:]}")
        self._text = ""


@contextlib.asynccontextmanager
async def pc(boot_file: str, *, disk: Path | None = None) -> AsyncIterator[Screen]:
    """A PC that iPXE starts and that is given this boot file by DHCP; with a raw disk of its own."""
    own = ("-drive", f"file={disk},format=raw,if=none,id=d0,snapshot=on", "-device", "ide-hd,drive=d0")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.fail("qemu-system-x86_64 is missing: apt install qemu-system-x86 ipxe-qemu seabios")
    process = await asyncio.create_subprocess_exec(
        *("qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-m", "256", "-nographic"),
        *("-serial", "stdio", "-monitor", "none"),
        *("-netdev", f"user,id=n0,bootfile={boot_file}"),
        *("-device", f"virtio-net-pci,netdev=n0,bootindex=1,mac={MAC}"),
        *(own if disk is not None else ()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    output, screen = process.stdout, Screen(process.stdin)

    async def watch() -> None:
        while chunk := await output.read(4096):
            screen.add(chunk)

    watching = asyncio.create_task(watch())
    try:
        yield screen
    finally:
        process.kill()
        await process.wait()
        await watching
