"""Reclaiming: what discarded write-backs took is given back, off the boot path.

A new boot opens a new overlay and leaves the old one alone, so a discard costs it nothing, and what was discarded can
be brought back for a while (`RestoreWriteback`). How long that is, three limits say, and a boot goes at the first that
it is over: how many discarded boots a client has, how long ago the next one began, and how much all of them take on
this node, where those go first that were discarded first. One that cannot come back any more (it failed, or the machine
was restarted since) goes at once, and where space is low all go at once. What was asked back, and what is being read,
stays.

One file at a time and in a thread. Boots that nobody has used for long are closed on the way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bootlink_blockstore.attach import Attachments
from bootlink_blockstore.holdings import Discarded, Holdings
from bootlink_blockstore.journal import Journal
from bootlink_blockstore.pressure import Space
from bootlink_blockstore.writeback import Manifest

ROUND_SECONDS: Final = 10.0  # between looks
PAUSE_SECONDS: Final = 0.1  # between files: removing a large one keeps the file system's journal busy


LOOK_AT_ONCE: Final = 64  # clients between two turns of the event loop: well under a millisecond


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of what was discarded can be brought back."""

    count: int  # boots of each client
    age: float  # seconds since the next boot began
    space: int  # bytes of all of them on this node


NOTHING: Final = Retention(0, 0.0, 0)


def due(clients: Iterable[Sequence[Discarded]], retention: Retention, now: float) -> list[Manifest]:
    """The overlays that may go at `now` (Unix time). `clients`: each one's discarded boots, the newest first."""
    gone: list[Discarded] = []
    kept: list[Discarded] = []
    for boots in clients:
        usable = [boot for boot in boots if boot.usable]
        gone += [boot for boot in boots if not boot.usable] + usable[retention.count :]
        for boot in usable[: retention.count]:
            (gone if boot.ended + retention.age <= now else kept).append(boot)
    taken = 0
    for boot in sorted(kept, key=lambda boot: boot.ended, reverse=True):
        taken += boot.bytes
        if taken > retention.space:
            gone.append(boot)
    return [manifest for boot in gone for manifest in boot.manifests]


async def reclaim(attachments: Attachments, journal: Journal, space: Space, retention: Retention) -> None:
    """Look now and then, for ever."""
    holdings = attachments.holdings
    while True:
        _watch(attachments, journal, space)
        discarded = await _look(holdings)
        for manifest in due(discarded, NOTHING if space.low else retention, time.time()):
            try:
                gone = await holdings.reclaim(manifest)
            except OSError as error:
                journal.log.warning("write-back not reclaimed", file=manifest.file, error=str(error))
                gone = False
            if gone:
                journal.count("writebacks_reclaimed")
                journal.log.debug("write-back reclaimed", client=manifest.client, boot_id=str(manifest.boot_id))
            await asyncio.sleep(PAUSE_SECONDS)
            _watch(attachments, journal, space)
        await attachments.close_idle()
        await asyncio.sleep(ROUND_SECONDS)


async def _look(holdings: Holdings) -> list[list[Discarded]]:
    found = []
    for number, mac in enumerate(holdings.clients):
        if number % LOOK_AT_ONCE == LOOK_AT_ONCE - 1:
            await asyncio.sleep(0)
        found.append(holdings.reclaimable(mac))
    return found


def _watch(attachments: Attachments, journal: Journal, space: Space) -> None:
    """Tell that space is low, of the largest write-back in use, once per crossing."""
    free = space.fell()
    boots = attachments.boots
    if free is not None and boots:
        largest = max(boots, key=lambda boot: boot.written)
        manifest = next(iter(largest.disks.values())).manifest
        journal.space_low(manifest, largest.written, free, space.reserve)
