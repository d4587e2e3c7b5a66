"""Run libiscsi's tests against Bootlink and tgt, each alone and all in one process, and write docs/conformance.md."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from conformance import page, tool
from conformance.page import Verdicts
from conformance.peer import tgt
from lab.blockstore import digest, plan, serving


async def bootlink(folder: Path, image: Path) -> tuple[Verdicts, Verdicts]:
    macs = {name: f"52:54:00:00:{n >> 8:02x}:{n & 255:02x}" for n, name in enumerate(tool.tests())}
    async with serving(folder / "alone", *(plan(image, mac=mac) for mac in macs.values())) as lab:
        alone = {name: await tool.alone(name, lab.url(mac)) for name, mac in macs.items()}
    async with serving(folder / "whole", plan(image)) as lab:
        return alone, await tool.together("all", lab.url())


async def peer(folder: Path, image: Path) -> tuple[Verdicts, Verdicts]:
    alone = {}
    for name in tool.tests():
        with tgt(folder, image) as url:
            alone[name] = await tool.alone(name, url)
    with tgt(folder, image) as url:
        return alone, await tool.together("all", url)


def version(package: str) -> str:
    command = ["dpkg-query", "-W", "-f", "${Version}", package]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return f"{package} {found.stdout}"


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "alone").mkdir()
        (folder / "whole").mkdir()
        image = tool.disk(folder / "base.img")
        before = digest(image)
        runs = {"Bootlink": await bootlink(folder, image)}
        assert digest(image) == before, "the image's bytes have changed"
        runs["tgt"] = await peer(folder / "tgt", image)
    versions = ", ".join(map(version, ("libiscsi-bin", "tgt")))
    block = page.figures(runs, versions, datetime.now(UTC).date())
    page.write(block, page.exceptions())
    print(block)


asyncio.run(main())
