"""K1, K2, K7: power cuts as a disk below saw them, and a sync that fails as it does in life."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bootlink_blockstore.cache import Cache
from bootlink_blockstore.disk import ClientDisk, DiskFault
from bootlink_blockstore.library import Library
from bootlink_blockstore.overlay import Overlay
from lab.blockstore import layer_plan, make_image
from lab.fuse import exported
from rigs import crash_states, power_log
from rigs.figures import Violation


def test_what_a_disk_below_has_logged_is_enough_for_every_promise(tmp_path: Path) -> None:
    figures = power_log.run(3, 20261124, tmp_path)
    assert int(figures["entries logged"]) > 0


@pytest.mark.parametrize("fault", ["a flush syncs no pages", "pages are punched without marks"])
def test_the_log_of_the_disk_shows_what_is_planted(fault: str, tmp_path: Path) -> None:
    with crash_states.planted(fault), pytest.raises(Violation):
        power_log.run(10, 1, tmp_path)


async def flush(disk: ClientDisk) -> None:
    flushing = disk.flush()
    assert flushing is not None
    await flushing


@pytest.mark.parametrize("which", ["pages", "marks"])
async def test_a_sync_that_failed_once_is_not_believed_when_it_works_again(which: str, tmp_path: Path) -> None:
    """The kernel tells an error once, and says yes the next time (fsyncgate)."""
    base = make_image(tmp_path / "base.img", power_log.SIZE)
    with exported(tmp_path, power_log.NAMES, fail_flush=True), ThreadPoolExecutor(2) as executor:
        library = Library(Cache(1 << 20), executor)
        image = await library.open([layer_plan(base)])
        overlay = await asyncio.to_thread(Overlay.reopen, tmp_path / "live.overlay", power_log.SIZE)
        if which == "pages":
            os.pwrite(overlay.zeros_fd, b"\0", 0)  # QEMU passes no flush on where nothing was written
            with pytest.raises(OSError, match="Input/output error"):
                await asyncio.to_thread(os.fdatasync, overlay.zeros_fd)  # has its one failure behind it
        disk = ClientDisk(image, overlay, executor, durable=True)
        told: list[str] = []
        disk.on_failure = told.append
        assert disk.write(0, b"x" * 4096) is None
        if which == "marks":
            zeroing = disk.zero(1 << 20, 4096)  # never written: marked, and left to the flush
            assert zeroing is not None
            await zeroing
        for _ in range(2):
            with pytest.raises(DiskFault) as caught:
                await flush(disk)
            assert caught.value.kind == "failed"
        await asyncio.to_thread(os.fsync, overlay.zeros_fd)  # the kernel says yes
        for refused in (lambda: disk.write(0, b"y" * 512), lambda: disk.read(0, 512), lambda: disk.zero(0, 4096)):
            with pytest.raises(DiskFault):
                refused()
        assert len(told) == 1
        overlay.close()
        library.shut()
