"""A key-value bucket held in memory: read at once, kept up to date, and kept through outages.

How it works. A watch delivers every key's last value and then each change. nats-py's watches fall silent for ever
when the server restarts (measured), so the replica makes a new watch at every new connection of the bus, and every
RESYNC_SECONDS besides. The first delivery of a watch is a full reading: keys that were not in it are gone.

A watch falls silent too when the bucket is deleted under a connection that stays. So every WATCHDOG_SECONDS the
replica asks for the bucket's last sequence number: a bucket that is gone or another one, or a change that the watch
has not delivered since the look before, makes the watch anew. So does a gap in the numbers of what was delivered.

A bucket that was made anew, as after NATS has lost its store, counts its revisions from 1 again: those that were known
mean nothing there. Who keeps revisions besides is told (`on_anew`), before anything of the new bucket is read.

The contents are written to a snapshot file a moment after a change. A service that starts while NATS is away begins
with the snapshot, and serves what it knew.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError
from nats.js.kv import KV_MARKER_REASON, KV_OP, KeyValue

from bootlink_runtime.bus import Bus
from bootlink_runtime.errors import BusUnavailable
from bootlink_runtime.logs import Logger
from bootlink_runtime.tasks import heed_cancellation

RESYNC_SECONDS: Final = 300.0  # full re-reading, in case a watch fell silent for a reason nobody has seen yet
WATCHDOG_SECONDS: Final = 15.0  # between looks whether the watch still delivers; one small request each
TURN: Final = 32  # entries taken in a row, some 2 ms
SNAPSHOT_CHUNK: Final = 100  # entries written to the snapshot at a time: JSON is encoded with the interpreter held
SNAPSHOT_DELAY: Final = 1.0  # seconds from a change to the snapshot, so that a burst of changes is one write
STRAGGLER_SECONDS: Final = 2.0  # of silence in a full reading; an entry that expired meanwhile never comes: read anew
HEARTBEAT_SECONDS: Final = 5.0  # between the server's signs of life; it gives no flow control without them
ABANDONED_SECONDS: Final = 60.0  # until the server drops the watch of a client that went without a word
BUCKET_RETRY: Final = 0.5  # seconds between looks for a bucket that is not there yet
ANY_BYTES: Final = "surrogateescape"  # a value is bytes, and what is no UTF-8 must not end the snapshots
SNAPSHOT_REST: Final = 20.0  # times as long as a snapshot took: ten thousand plans take a quarter of a second
SNAPSHOT_LATEST: Final = 15.0  # seconds; a service that starts while NATS is away knows what was true then
SNAPSHOT_LIMIT: Final = 256 * 1024 * 1024  # bytes; 100,000 plans are about 100 MB

STATUS: Final = "Status"  # header of what the server itself says
STALLED: Final = "Nats-Consumer-Stalled"  # header of a heartbeat: flow control's question once more

OnChange = Callable[[str, bytes | None], None]


@dataclass(slots=True)
class _Reading:
    """How far one watch is."""

    held: set[str]  # the keys before it
    expected: int  # entries in the bucket when it began
    whole: asyncio.Future[None]  # done once the full reading is through
    broken: asyncio.Future[Exception]  # done with the reason why the watch cannot go on
    taken: int = 0  # entries, of which those of one key are several
    seen: set[str] = field(default_factory=set)  # keys
    caught_up: bool = False  # the server said that nothing more is to come


class Replica:
    """One bucket in memory. `on_change(key, value)` is called for each change, with None for a key that went."""

    def __init__(
        self,
        bus: Bus,
        bucket: str,
        snapshot: Path | None,
        on_change: OnChange,
        log: Logger,
        *,
        on_anew: Callable[[], None] | None = None,
    ) -> None:
        self.bucket = bucket
        self.synced = asyncio.Event()  # set once the bucket was read whole from NATS
        self.entries: dict[str, bytes] = {}
        self.revisions: dict[str, int] = {}  # of the keys that were read from NATS, for a compare-and-set
        self._bus = bus
        self._snapshot = snapshot
        self._on_change = on_change
        self._on_anew = on_anew
        self._created: object = None  # when the bucket was made that was read last
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
        """Follow the bucket until this task is cancelled, which is heard the first time."""
        saver = asyncio.create_task(self._save_changes(), name=f"snapshot {self.bucket}")
        try:
            while True:
                heed_cancellation()
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
        client, js = self._bus.client, self._bus.jetstream
        info = (await bucket.status()).stream_info
        if self._created not in (None, info.created):
            self.revisions.clear()
            if self._on_anew is not None:
                self._on_anew()
        self._created = info.created
        self._seen = info.state.last_seq
        loop = asyncio.get_running_loop()
        reading = _Reading(set(self.entries), info.state.messages, loop.create_future(), loop.create_future())
        # Not nats-py's own watch: that one answers the server's flow control four times a second, which holds the
        # reading of a large bucket up, and takes several times the CPU for each entry.
        subscription = await client.subscribe(client.new_inbox(), cb=functools.partial(self._take, reading))
        stale = asyncio.create_task(self._stale(epoch, bucket, info.created), name=f"stale {self.bucket}")
        consumer = ""
        try:
            made = await js.add_consumer(
                f"KV_{self.bucket}",
                ConsumerConfig(
                    deliver_subject=subscription.subject,
                    deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                    filter_subject=f"$KV.{self.bucket}.>",
                    ack_policy=AckPolicy.NONE,
                    max_deliver=1,
                    flow_control=True,
                    idle_heartbeat=HEARTBEAT_SECONDS,
                    inactive_threshold=ABANDONED_SECONDS,
                    mem_storage=True,
                    num_replicas=1,
                ),
            )
            consumer = made.name
            heed_cancellation()
            empty = not (made.num_pending or (made.delivered and made.delivered.consumer_seq))
            if empty and not reading.whole.done():
                reading.whole.set_result(None)
            ends: set[asyncio.Future[Any]] = {reading.broken, stale}
            while not any(end.done() for end in (reading.whole, *ends)):
                before = reading.taken
                await asyncio.wait(
                    {reading.whole, *ends}, timeout=STRAGGLER_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if reading.taken == before and not reading.whole.done():
                    return
            if reading.whole.done():
                for key in reading.held - reading.seen:
                    self._remove(key)
                self.synced.set()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if reading.broken.done():
                raise reading.broken.result()
        finally:
            stale.cancel()
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await subscription.unsubscribe()
                if consumer:
                    await js.delete_consumer(f"KV_{self.bucket}", consumer)

    async def _take(self, reading: _Reading, message: Msg) -> None:
        """One message of the watch: an entry, or the server's question whether all before it were taken."""
        try:
            headers = message.headers or {}
            if STATUS in headers:  # a heartbeat, or flow control, which wants an answer
                if question := message.reply or headers.get(STALLED):
                    await self._bus.client.publish(question, b"")
                return
            stored, delivered, pending = _numbers(message.reply)
            reading.taken += 1
            if delivered != reading.taken:
                raise BusUnavailable(f"entries of {self.bucket} were lost on the way")
            self._seen = max(self._seen, stored)
            key = message.subject.removeprefix(f"$KV.{self.bucket}.")
            reading.seen.add(key)
            self.revisions[key] = stored
            if KV_OP in headers or KV_MARKER_REASON in headers:  # deleted, purged or expired
                self._remove(key)
            else:
                self._set(key, message.data)
            if reading.taken % TURN == 0:
                await asyncio.sleep(0)  # nats-py hands over all that came at once, and others want their turn
            # An entry that is overwritten while the bucket is read comes late, after the server said that nothing more
            # is to come (seen). So what was counted must have come, too.
            reading.caught_up |= pending == 0
            if reading.caught_up and len(reading.seen) >= reading.expected and not reading.whole.done():
                reading.whole.set_result(None)
        except Exception as error:
            # nats-py would write it to its log and go on. Whoever follows is to hear of it.
            if not reading.broken.done():
                reading.broken.set_result(error)

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
                heed_cancellation()
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
        took = 0.0  # the last one
        while True:
            await self._dirty.wait()
            await asyncio.sleep(min(max(SNAPSHOT_DELAY, SNAPSHOT_REST * took), SNAPSHOT_LATEST))
            self._dirty.clear()
            began = time.monotonic()
            held = {key: value.decode(errors=ANY_BYTES) for key, value in self.entries.items()}
            try:
                await asyncio.to_thread(_write_snapshot, self._snapshot, self.bucket, held)
            except OSError as error:
                self._log.warning("snapshot not written", file=str(self._snapshot), error=str(error))
            took = time.monotonic() - began


def _numbers(reply: str) -> tuple[int, int, int]:
    """What the reply subject of a delivered message says (ADR-15 of NATS): its number in the stream, its number among
    those delivered to this consumer, and how many are still to come. nats-py's `metadata` makes a date of it besides,
    which takes a fifth of the time that reading a bucket takes."""
    tokens = reply.split(".")
    first = 5 if len(tokens) == 9 else 7  # newer servers put domain and account before the stream's name
    return int(tokens[first]), int(tokens[first + 1]), int(tokens[first + 3])


def _write_snapshot(file: Path, bucket: str, entries: dict[str, str]) -> None:
    """Replace the snapshot: a reader finds the old one or the new one, also after a power cut."""
    draft = file.with_suffix(".tmp")
    with draft.open("w") as out:
        out.write(f'{{"bucket": {json.dumps(bucket)}, "entries": {{')
        waiting = iter(entries.items())
        before = ""
        while chunk := dict(itertools.islice(waiting, SNAPSHOT_CHUNK)):
            out.write(before + json.dumps(chunk)[1:-1])
            before = ", "
        out.write("}}")
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)
