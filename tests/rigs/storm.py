"""A reboot storm: a whole room restarts at once, and every PC's write-back is discarded.

Each client has a boot that wrote. Then all of them begin the next one, while one more client goes on reading. First
with reclaiming held up by force: so whatever boots and reads then did not wait for it. Then with reclaiming at full
speed, for the figures.

Each new boot reads its whole disk's first pages: they are the image's, although nothing was reclaimed yet (D6).
"""

from __future__ import annotations

import asyncio
import random
import statistics
import threading
import time
from pathlib import Path
from typing import Final

import pytest

from bootlink_blockstore import reclaim
from bootlink_blockstore.pressure import Space
from bootlink_blockstore.writeback import Manifest, Writebacks
from bootlink_events import BootId
from lab.blockstore import Lab, digest, identity, make_image, plan, serving
from lab.iscsi import Initiator
from rigs.figures import Figures, Violation

SIZE: Final = 8 << 20
READ: Final = 64 << 10
RUNNING: Final = "52:54:00:ff:ff:ff"  # the one that goes on
AT_ONCE: Final = 24  # logins under way: they all come from one address here, which may have so many and no more


def _mac(number: int) -> str:
    return f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"


async def _login(running: Lab, mac: str, boot_id: BootId) -> Initiator:
    return await Initiator.logged_in(
        running.host, running.port, name=identity(boot_id, mac), target=running.plans[mac].target
    )


class Reader:
    """The client that goes on reading what it wrote and what it did not, and takes the time."""

    def __init__(self, pc: Initiator, content: bytes, seed: int) -> None:
        self._pc = pc
        self._content = content
        self._random = random.Random(seed)
        self.seconds: list[float] = []

    async def run(self) -> None:
        while True:
            offset = self._random.randrange((SIZE - READ) // 512) * 512
            started = time.perf_counter()
            data = await self._pc.read(offset, READ)
            self.seconds.append(time.perf_counter() - started)
            if data != self._content[offset : offset + READ]:
                raise Violation(f"the running client read something else at {offset}")
            await asyncio.sleep(0.001)

    def figures(self) -> tuple[float, float]:
        """99th percentile and longest so far, in milliseconds, and begin anew."""
        seconds, self.seconds = self.seconds, []
        return round(statistics.quantiles(seconds, n=100, method="inclusive")[98] * 1000, 1), round(
            max(seconds) * 1000, 1
        )


async def _reboot(running: Lab, macs: list[str], boot_id: BootId, image: bytes) -> float:
    """All of them begin this boot, read and write. The longest from connecting to the first read, in milliseconds."""
    gate = asyncio.Semaphore(AT_ONCE)
    longest = 0.0

    async def one(mac: str) -> None:
        nonlocal longest
        async with gate:
            started = time.perf_counter()
            pc = await _login(running, mac, boot_id)
            first = await pc.read(0, READ)
            longest = max(longest, time.perf_counter() - started)
            if first != image[:READ]:
                raise Violation(f"{mac} does not begin with the image")
            await pc.write(0, mac.encode().ljust(512, b".") * (READ // 512))
            await pc.close()

    await asyncio.gather(*(one(mac) for mac in macs))
    return round(longest * 1000, 1)


async def _run(count: int, seed: int, folder: Path) -> Figures:
    base = make_image(folder / "base.img", SIZE, seed=seed)
    before, image = digest(base), base.read_bytes()
    macs = [_mac(number) for number in range(count)]
    held, removed = threading.Event(), []
    real = Writebacks.remove

    def remove(self: Writebacks, manifest: Manifest) -> None:
        held.wait()
        removed.append(manifest)
        real(self, manifest)

    boots = [BootId.mint(now_ms=int(time.time() * 1000) - 10_000 + number) for number in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writebacks, "remove", remove)
        patch.setattr(reclaim, "PAUSE_SECONDS", 0.0)
        patch.setattr(reclaim, "ROUND_SECONDS", 0.01)
        async with serving(folder, *(plan(base, mac=mac) for mac in (*macs, RUNNING))) as running:
            pc = await _login(running, RUNNING, boots[0])
            await pc.write(1 << 20, b"mine" * (READ // 4))
            content = image[: 1 << 20] + b"mine" * (READ // 4) + image[(1 << 20) + READ :]
            reader = Reader(pc, content, seed)
            reading = asyncio.create_task(reader.run())
            space = Space(running.store.root, 0)
            reclaiming = asyncio.create_task(
                reclaim.reclaim(running.store.attachments, running.told.journal(), space, reclaim.NOTHING)
            )
            await _reboot(running, macs, boots[0], image)
            reader.figures()
            slowest_held = await _reboot(running, macs, boots[1], image)
            held_p99, held_longest = reader.figures()
            if removed:
                raise Violation("a write-back was removed that was held")
            held.set()
            slowest = await _reboot(running, macs, boots[2], image)
            reads = len(reader.seconds)
            p99, longest = reader.figures()
            async with asyncio.timeout(60):
                while len(removed) < 2 * count:
                    await asyncio.sleep(0.01)
            for task in (reading, reclaiming):
                if task.done():
                    task.result()
                task.cancel()
            await asyncio.gather(reading, reclaiming, return_exceptions=True)
            await pc.close()
    if len({(manifest.mac, manifest.boot_id) for manifest in removed}) != len(removed):
        raise Violation("a write-back was removed twice")
    if digest(base) != before:
        raise Violation("the image's bytes have changed")
    return {
        "clients": count,
        "longest from connect to first read, ms": slowest,
        "the same with reclaiming held up, ms": slowest_held,
        "reads of a running client meanwhile": reads,
        "their 99th percentile, ms": p99,
        "their longest, ms": longest,
        "the last two with reclaiming held up, ms": f"{held_p99}, {held_longest}",
        "write-backs reclaimed": len(removed),
    }


def run(count: int, seed: int, folder: Path) -> Figures:
    """A storm of `count` clients."""
    return asyncio.run(_run(count, seed, folder))
