"""A key-value bucket held in memory: read at once, kept up to date, and kept through outages.

How it works. A watch delivers every key's last value and then each change. nats-py's watches fall silent for ever
when the server restarts (measured), so the replica makes a new watch at every new connection of the bus, and every
RESYNC_SECONDS besides. The first delivery of a watch is a full reading: keys that were not in it are gone.

A watch falls silent too when the bucket is deleted under a connection that stays. So every WATCHDOG_SECONDS the
replica asks for the bucket's last sequence number: a bucket that is gone or another one, or a change that the watch
has not delivered since the look before, makes the watch anew.

The contents are written to a snapshot file a moment after a change. A service that starts while NATS is away begins
with the snapshot, and serves what it knew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from nats.js.kv import KV_DEL, KV_PURGE, KeyValue

from bootlink_runtime.bus import Bus
from bootlink_runtime.errors import BusUnavailable
from bootlink_runtime.logs import Logger

RESYNC_SECONDS: Final = 300.0  # full re-reading, in case a watch fell silent for a reason nobody has seen yet
WATCHDOG_SECONDS: Final = 15.0  # between looks whether the watch still delivers; one small request each
SNAPSHOT_DELAY: Final = 1.0  # seconds from a change to the snapshot, so that a burst of changes is one write
STRAGGLER_SECONDS: Final = 2.0  # for entries that were counted; one that expired meanwhile never comes: read anew
BUCKET_RETRY: Final = 0.5  # seconds between looks for a bucket that is not there yet
ANY_BYTES: Final = "surrogateescape"  # a value is bytes, and what is no UTF-8 must not end the snapshots
SNAPSHOT_LIMIT: Final = 256 * 1024 * 1024  # bytes; 100,000 plans are about 100 MB

OnChange = Callable[[str, bytes | None], None]


class Replica:
    """One bucket in memory. `on_change(key, value)` is called for each change, with None for a key that went."""

    def __init__(self, bus: Bus, bucket: str, snapshot: Path | None, on_change: OnChange, log: Logger) -> None:
        self.bucket = bucket
        self.synced = asyncio.Event()  # set once the bucket was read whole from NATS
        self.entries: dict[str, bytes] = {}
        self._bus = bus
        self._snapshot = snapshot
        self._on_change = on_change
        self._log = log
        self._dirty = asyncio.Event()
        self._seen = 0  # the greatest sequence number that this watch delivered, or began after

    def load_snapshot(self) -> int:
        """Take in the snapshot, if there is one. Returns how many keys it held. A damaged one counts as none."""
        if self._snapshot is None:
            return 0
        try:
            if self._snapshot.stat().st_size > SNAPSHOT_LIMIT:
                raise ValueError(f"is larger than {SNAPSHOT_LIMIT} bytes")
            held = json.loads(self._snapshot.read_bytes())["entries"]
            for key, value in held.items():
                self._set(str(key), str(value).encode(errors=ANY_BYTES))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._log.warning("snapshot unreadable", file=str(self._snapshot), error=str(error))
            return 0
        self._dirty.clear()
        return len(held)

    async def run(self) -> None:
        """Follow the bucket for ever."""
        saver = asyncio.create_task(self._save_changes(), name=f"snapshot {self.bucket}")
        try:
            while True:
                epoch = await self._bus.epoch_after(0)
                try:
                    await self._follow(epoch)
                except (NatsError, BusUnavailable, OSError, TimeoutError) as error:
                    self._log.debug("watch broke", bucket=self.bucket, error=str(error))
                    await asyncio.sleep(BUCKET_RETRY)
        finally:
            saver.cancel()

    async def _follow(self, epoch: int) -> None:
        """One watch, from its full reading until the connection changes or a resync is due."""
        bucket = await self._bus.key_value(self.bucket)
        if bucket is None:
            await asyncio.sleep(BUCKET_RETRY)
            return
        info = (await bucket.status()).stream_info
        self._seen = info.state.last_seq
        watcher = await bucket.watchall()
        stale = asyncio.create_task(self._stale(epoch, bucket, info.created), name=f"stale {self.bucket}")
        unseen: set[str] | None = set(self.entries)
        delivered: set[str] = set()
        whole = False
        update: asyncio.Task[KeyValue.Entry | None] | None = None
        try:
            while True:
                update = asyncio.create_task(watcher.updates(timeout=2 * RESYNC_SECONDS))
                patience = STRAGGLER_SECONDS if whole and unseen is not None else None
                await asyncio.wait({update, stale}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not update.done():
                    return
                entry = update.result()
                if entry is not None:
                    self._seen = max(self._seen, entry.revision or 0)
                    delivered.add(entry.key)
                    if unseen is not None:
                        unseen.discard(entry.key)
                    if entry.operation in (KV_DEL, KV_PURGE):
                        self._remove(entry.key)
                    elif entry.value is not None:
                        self._set(entry.key, entry.value)
                # nats-py says "complete" by None, but now and then before the first entry of a bucket that is not
                # empty (it asks while they are on their way): what was counted must have come, too.
                whole = whole or entry is None
                if unseen is not None and whole and len(delivered) >= info.state.messages:
                    for key in unseen:
                        self._remove(key)
                    unseen = None
                    self.synced.set()
        finally:
            stale.cancel()
            if update is not None:
                update.cancel()
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await watcher.stop()

    async def _stale(self, epoch: int, bucket: KeyValue, created: object) -> None:
        """Return when the watch has to be made anew."""
        loop = asyncio.get_running_loop()
        resync = loop.time() + RESYNC_SECONDS
        stored = 0
        while loop.time() < resync:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCHDOG_SECONDS):
                    await self._bus.epoch_after(epoch)
                    return
            try:
                info = (await bucket.status()).stream_info
            except NotFoundError:
                self._log.warning(
                    "bucket gone", bucket=self.bucket, remedy="the registry makes it anew; is it running?"
                )
                return
            except (NatsError, OSError, TimeoutError):
                continue  # nobody answers; a new connection will tell
            if info.created != created or self._seen < stored:
                self._log.warning("watch fell silent", bucket=self.bucket)
                return
            stored = info.state.last_seq

    def _set(self, key: str, value: bytes) -> None:
        if self.entries.get(key) != value:
            self.entries[key] = value
            self._on_change(key, value)
            self._dirty.set()

    def _remove(self, key: str) -> None:
        if self.entries.pop(key, None) is not None:
            self._on_change(key, None)
            self._dirty.set()

    async def _save_changes(self) -> None:
        if self._snapshot is None:
            return
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SNAPSHOT_DELAY)
            self._dirty.clear()
            held = {key: value.decode(errors=ANY_BYTES) for key, value in self.entries.items()}
            try:
                await asyncio.to_thread(_write_snapshot, self._snapshot, self.bucket, held)
            except OSError as error:
                self._log.warning("snapshot not written", file=str(self._snapshot), error=str(error))


def _write_snapshot(file: Path, bucket: str, entries: dict[str, str]) -> None:
    """Replace the snapshot: a reader finds the old one or the new one, also after a power cut."""
    draft = file.with_suffix(".tmp")
    with draft.open("w") as out:
        json.dump({"bucket": bucket, "entries": entries}, out)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)
