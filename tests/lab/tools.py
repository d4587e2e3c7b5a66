"""Debian's iSCSI tools, run as a user would."""

from __future__ import annotations

import asyncio
import shutil

PACKAGES = {"iscsi": "libiscsi-bin", "qemu-io": "qemu-utils and qemu-block-extra", "qemu-img": "qemu-utils"}


async def tool(*command: str, seconds: float = 60) -> str:
    """What a tool said; AssertionError if it failed or is not there."""
    package = next((p for name, p in PACKAGES.items() if command[0].startswith(name)), "?")
    assert shutil.which(command[0]), f"{command[0]} is missing: apt-get install {package}"
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(seconds):
        out, _ = await process.communicate()
    words = out.decode(errors="replace")
    assert process.returncode == 0, f"{' '.join(command)} failed:\n{words}"
    return words
