"""What this node holds of each client: the manifests and ledgers, in memory as they are on disk.

Theory of operation. The newest boot id that a client's manifests and ledger name is its *fence*: older boots are over.
What a boot wrote with the policy `discard` is *discarded* once a newer one has begun, and is there until it is
reclaimed (see `reclaim`). Until then it may be *returning*: it was asked back, the client's next boot goes on with its
files, and nothing reclaims it.

What is thrown away on purpose (`drop`) takes its manifest with it. If that was the fence, the ledger keeps it: a PC
that still runs such a boot is refused, and is not given a fresh disk in the middle of its work.

Changes of one client come one after the other: callers hold its lock (see `attach`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from bootlink_blockstore.ledger import Ledger, Returning
from bootlink_blockstore.writeback import Manifest, Writebacks
from bootlink_events import BootId

T = TypeVar("T")

EMPTY = Ledger()


@dataclass(frozen=True, slots=True)
class Discarded:
    """What one boot wrote that is over."""

    mac: str
    boot_id: BootId
    manifests: tuple[Manifest, ...]
    bytes: int  # on disk
    ended: float  # when the next boot began, in Unix seconds by its id
    usable: bool  # it may be brought back: it has not failed, and the machine was not restarted since


class Holdings:
    """Manifests and ledgers of all clients."""

    def __init__(self, writebacks: Writebacks, executor: Executor) -> None:
        self.writebacks = writebacks
        self._pinned: Counter[tuple[str, str]] = Counter()  # overlays that are being read, and may not go
        self._executor = executor
        self._manifests: dict[str, list[Manifest]] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._sizes: dict[tuple[str, str], int] = {}  # bytes on disk of overlays that nobody writes any more

    async def load(self) -> list[str]:
        """Take in what former runs have left on disk. What could not be read, one line each."""
        (manifests, problems), (self._ledgers, more) = await self._in_thread(
            lambda: (self.writebacks.scan(), self.writebacks.ledgers())
        )
        for manifest in manifests:
            self._manifests.setdefault(manifest.mac, []).append(manifest)
        sizes = await self._in_thread(lambda: [self.writebacks.usage(manifest) for manifest in manifests])
        self._sizes = {(m.mac, m.file): size for m, size in zip(manifests, sizes, strict=True)}
        for mac, ledger in list(self._ledgers.items()):
            if ledger.returning is not None and self._came_back(mac, ledger.returning):
                await self._put(mac, ledger.model_copy(update={"returning": None}))
        return problems + more

    # What is there

    @property
    def clients(self) -> list[str]:
        """The MAC addresses of all clients that something is held of."""
        return list(self._manifests)

    def lasting(self) -> dict[str, BootId]:
        """The clients of which something outlives their boots, and the newest boot that wrote such a thing."""
        found = ((mac, [m.boot_id for m in held if m.lasts]) for mac, held in self._manifests.items())
        return {mac: max(boots) for mac, boots in found if boots}

    def of(self, mac: str) -> Sequence[Manifest]:
        return self._manifests.get(mac, ())

    def fence(self, mac: str) -> BootId | None:
        """The newest boot of this client that was ever admitted and not forgotten."""
        known = [manifest.boot_id for manifest in self.of(mac)]
        over = self.over(mac)
        return max(known if over is None else [*known, over], default=None)

    def over(self, mac: str) -> BootId | None:
        """Up to which boot the client's are over, whatever there is of them."""
        return self._ledgers.get(mac, EMPTY).over

    def current(self, manifest: Manifest) -> bool:
        """Is it of a boot that may still go on?"""
        over = self.over(manifest.mac)
        return manifest.boot_id == self.fence(manifest.mac) and (over is None or manifest.boot_id > over)

    def of_boot(self, mac: str, boot_id: BootId, entry: str = "") -> list[Manifest]:
        """The manifests of a boot with this entry of its menu; where none is named, with the one that began last."""
        held = [manifest for manifest in self.of(mac) if manifest.boot_id == boot_id]
        if held and not entry:
            entry = max(held, key=lambda manifest: manifest.created).entry
        return [manifest for manifest in held if manifest.entry == entry]

    def returning(self, mac: str, entry: str | None = None) -> list[Manifest]:
        """What comes back at the client's next boot; with `entry`, if that is chosen at the menu."""
        asked = self._ledgers.get(mac, EMPTY).returning
        if asked is None:
            return []
        found = [manifest for manifest in self.of(mac) if manifest.file in asked.files]
        return found if entry is None or all(manifest.entry == entry for manifest in found) else []

    def discarded(self, mac: str) -> list[Discarded]:
        """The client's discarded boots, the newest first."""
        boots: dict[BootId, list[Manifest]] = {}
        fence, over = self.fence(mac), self.over(mac)
        for manifest in self.of(mac):
            if not manifest.lasts and (manifest.boot_id != fence or fence == over):
                boots.setdefault(manifest.boot_id, []).append(manifest)
        if not boots or fence is None:
            return []
        known = {fence, *(manifest.boot_id for manifest in self.of(mac))}
        found = []
        for boot_id in sorted(boots, reverse=True):
            manifests = tuple(boots[boot_id])
            ended = min((other for other in known if other > boot_id), default=boot_id)
            usable = not any(m.failed or self.writebacks.outlived(m) for m in manifests)
            size = sum(self.size(m) for m in manifests)
            found.append(Discarded(mac, boot_id, manifests, size, ended.timestamp_ms / 1000, usable))
        return found

    def reclaimable(self, mac: str) -> list[Discarded]:
        """The client's discarded boots, the newest first, without those that come back or are being read."""
        return [boot for boot in self.discarded(mac) if not self._needed(boot)]

    async def reclaim(self, manifest: Manifest) -> bool:
        """Remove the overlay of a discarded boot, unless it was asked back or is being read by now: it may be long
        since somebody found that it could go. True if it has gone."""
        if not any(manifest in boot.manifests for boot in self.reclaimable(manifest.mac)):
            return False
        await self.forget(manifest)  # nobody else finds it from here on
        return True

    def size(self, manifest: Manifest) -> int:
        """Bytes that an overlay takes on disk; of one that is written to, as it was when this was last looked at."""
        key = (manifest.mac, manifest.file)
        if key not in self._sizes:
            self._sizes[key] = self.writebacks.usage(manifest)
        return self._sizes[key]

    def pin(self, manifest: Manifest) -> None:
        """It is being read from now on, and may not go."""
        self._pinned[manifest.mac, manifest.file] += 1

    def unpin(self, manifest: Manifest) -> None:
        """It is read no more, by whoever had pinned it."""
        self._pinned[manifest.mac, manifest.file] -= 1

    def is_pinned(self, manifest: Manifest) -> bool:
        return self._pinned[manifest.mac, manifest.file] > 0

    def _needed(self, boot: Discarded) -> bool:
        back = {manifest.file for manifest in self.returning(boot.mac)}
        return any(m.file in back or self.is_pinned(m) for m in boot.manifests)

    def _came_back(self, mac: str, asked: Returning) -> bool:
        found = [manifest for manifest in self.of(mac) if manifest.file in asked.files]
        return all(manifest.boot_id != asked.boot_id for manifest in found)

    # Changes

    def note(self, mac: str, begun: Iterable[Manifest]) -> list[Manifest]:
        """A boot has begun with these manifests, which are on disk already. Those that were there before it."""
        former = list(self.of(mac))
        begun = list(begun)
        files = {manifest.file for manifest in begun}
        self._manifests[mac] = [m for m in former if m.file not in files] + begun
        for manifest in former:
            self._sizes.pop((mac, manifest.file), None)
        return former

    def replace(self, manifest: Manifest, by: Manifest) -> None:
        """Another manifest of the same overlay, which the caller writes to disk."""
        held = self._manifests[manifest.mac]
        held[held.index(manifest)] = by

    async def have_returned(self, mac: str) -> None:
        """What was asked back has begun to run. OSError if that could not be put down; it counts all the same."""
        self._ledgers[mac] = self._ledgers[mac].model_copy(update={"returning": None})
        await self._put(mac, self._ledgers[mac])

    async def bring_back(self, mac: str, manifests: Sequence[Manifest]) -> None:
        """The client's next boot gets these, which are of one boot, and may name other layers than they did."""
        for manifest in manifests:
            former = next(one for one in self.of(mac) if one.file == manifest.file)
            if former != manifest:
                await self._in_thread(partial(self.writebacks.rewrite, manifest))
                self.replace(former, manifest)
        asked = Returning(boot_id=manifests[0].boot_id, files=tuple(manifest.file for manifest in manifests))
        await self._put(mac, self._ledgers.get(mac, EMPTY).model_copy(update={"returning": asked}))

    async def forget(self, manifest: Manifest) -> None:
        """Remove the overlay of a boot that is over."""
        held = self._manifests.get(manifest.mac, [])
        if manifest not in held:
            return  # somebody else was quicker
        held.remove(manifest)
        self._sizes.pop((manifest.mac, manifest.file), None)
        await self._in_thread(lambda: self.writebacks.remove(manifest))

    async def drop(self, mac: str, manifests: Sequence[Manifest]) -> None:
        """Throw overlays away that nobody has open, with the boots that they belong to."""
        if not manifests:
            return
        ledger = self._ledgers.get(mac, EMPTY)
        newest = max(manifest.boot_id for manifest in manifests)
        gone = {manifest.file for manifest in manifests}
        changes: dict[str, object] = {}
        if newest == self.fence(mac):
            changes["over"] = newest
        if ledger.returning is not None and gone & set(ledger.returning.files):
            changes["returning"] = None
        if changes:  # before the manifests go: whoever dies now must not have forgotten the fence
            await self._put(mac, ledger.model_copy(update=changes))
        for manifest in manifests:
            await self.forget(manifest)

    async def empty(self, mac: str, begins: Sequence[Manifest]) -> None:
        """Give the space of a client's former boots back, and leave their manifests. On a full disk only, where a boot
        begins with these."""
        needed = {manifest.file for manifest in (*begins, *self.returning(mac))}
        over = [m for m in self.of(mac) if not m.lasts and m.boot_id < begins[0].boot_id and m.file not in needed]
        await self._in_thread(lambda: self.writebacks.empty(over))

    async def _put(self, mac: str, ledger: Ledger) -> None:
        await self._in_thread(lambda: self.writebacks.write_ledger(mac, ledger))
        self._ledgers[mac] = ledger

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
