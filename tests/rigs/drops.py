"""Power cuts while a super client's write-back is thrown away.

After each system call a new block store looks at its folder, in every state that the cut may leave. The boot that wrote
it is over or may go on, but it never counts as one that nobody has heard of: its id is the client's fence, or the
ledger has it. And once the drop was answered, the boot is over for good.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from bootlink_blockstore.holdings import Holdings
from bootlink_blockstore.writeback import Writebacks
from bootlink_events import BootId
from lab.blockstore import MAC, make_image, plan
from rigs.figures import Figures, Violation
from rigs.files import Disk, Log, put, recording, states

EXTRA = 6  # states of one moment beyond "nothing" and "all"


async def _record(root: Path, base: Path, boot_id: BootId, executor: ThreadPoolExecutor) -> tuple[Log, int]:
    """A boot begins, and what it wrote is dropped. All calls, and how many there were when the boot had begun."""
    with recording(root) as log:
        writebacks = Writebacks(root)
        manifests = writebacks.intended(plan(base, policy="super"), boot_id)
        ((_, overlay),) = writebacks.begin(manifests)
        overlay.close()
        admitted = log.now
        holdings = Holdings(writebacks, executor)
        holdings.note(MAC, manifests)
        await holdings.drop(MAC, manifests)
    return log, admitted


async def _look(root: Path, boot_id: BootId, executor: ThreadPoolExecutor, *, dropped: bool) -> None:
    holdings = Holdings(Writebacks(root), executor)
    problems = await holdings.load()
    if problems:
        raise Violation(f"needs repair: {problems}")
    if holdings.fence(MAC) != boot_id:
        raise Violation("the fence went back")
    if dropped and (holdings.over(MAC) != boot_id or holdings.of(MAC)):
        raise Violation("what was dropped is there again")


def run(count: int, seed: int, folder: Path) -> Figures:
    """`count` states at least."""
    base, tried = make_image(folder / "base.img", 1 << 16), 0
    with ThreadPoolExecutor(1) as executor:
        while tried < count:
            seed += 1
            boot_id, random, disk = BootId.mint(now_ms=1_000_000 + seed), Random(seed), Disk()
            root = folder / "live"
            root.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                for sync in ("fsync", "fdatasync"):
                    patch.setattr(os, sync, lambda _fd: None)  # what survives is decided here
                log, admitted = asyncio.run(_record(root, base, boot_id, executor))
            shutil.rmtree(root)
            for moment in range(log.now + 1):
                for left in states(disk, random, EXTRA) if moment >= admitted else ():
                    root.mkdir()
                    put(left, root)
                    try:
                        asyncio.run(_look(root, boot_id, executor, dropped=moment == log.now))
                    except Violation as error:
                        raise Violation(f"seed {seed}, cut after call {moment} of {log.now}: {error}") from error
                    shutil.rmtree(root)
                    tried += 1
                if moment < log.now:
                    disk.apply(log.calls[moment])
    return {"states": tried, "violations": 0}
