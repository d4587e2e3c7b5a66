"""Reclaiming: what discarded write-backs took is given back, off the boot path.

A new boot opens a new overlay and leaves the old one alone, so a discard costs it nothing. Here, one file at a time and
in a thread, overlays go that belong to a boot that is over, some time after the next one began: until then the old
write-back could still be brought back. Where space is low they go at once. Boots that nobody has used for long are
closed on the way.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from bootlink_blockstore.attach import Attachments
from bootlink_blockstore.journal import Journal
from bootlink_blockstore.pressure import Space
from bootlink_blockstore.writeback import Manifest

ROUND_SECONDS: Final = 10.0  # between looks
PAUSE_SECONDS: Final = 0.1  # between files: removing a large one keeps the file system's journal busy


def due(attachments: Attachments, after: float, now: float) -> list[Manifest]:
    """The overlays that may go: superseded by a boot that began at least `after` seconds before `now` (Unix time)."""
    found = []
    for manifest in attachments.superseded():
        fence = attachments.fence(manifest.mac)
        if fence is not None and fence.timestamp_ms / 1000 + after <= now:
            found.append(manifest)
    return found


async def reclaim(attachments: Attachments, journal: Journal, space: Space, after: float) -> None:
    """Look now and then, for ever."""
    while True:
        _watch(attachments, journal, space)
        for manifest in due(attachments, 0 if space.low else after, time.time()):
            try:
                await attachments.forget(manifest)
            except OSError as error:
                journal.log.warning("write-back not reclaimed", file=manifest.file, error=str(error))
            else:
                journal.count("writebacks_reclaimed")
                journal.log.debug("write-back reclaimed", client=manifest.client, boot_id=str(manifest.boot_id))
            await asyncio.sleep(PAUSE_SECONDS)
            _watch(attachments, journal, space)
        await attachments.close_idle()
        await asyncio.sleep(ROUND_SECONDS)


def _watch(attachments: Attachments, journal: Journal, space: Space) -> None:
    """Tell that space is low, of the largest write-back in use, once per crossing."""
    free = space.fell()
    boots = attachments.boots
    if free is not None and boots:
        largest = max(boots, key=lambda boot: boot.written)
        manifest = next(iter(largest.disks.values())).manifest
        journal.space_low(manifest, largest.written, free, space.reserve)
