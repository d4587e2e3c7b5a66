"""Power cuts of kept write-backs: random workloads, each cut after every one of its system calls.

One workload is a client with the policy keep: it boots, writes, trims, updates, flushes, boots again, with some
commands at once. One in ten has the policy discard, and what it discards is removed on the way. `files` records what
that asks of the file system and gives the states that a power cut after each call may leave. In each such state a new
block store looks at its folder, a newer boot begins, and all of the disk is read. What must hold for each sector (K1,
K2):

    it is what the last command made of it that was acknowledged before the last completed flush began (or that said
    FUA and was acknowledged), or what a command made of it that came later, and that was at least sent
    so it is never torn, never the image's bytes where the client wrote or gave back, and never another sector's

and a boot that was admitted before the cut finds its overlay; nothing needs repair. A client with the policy discard
reads the image, whatever the cut left (D7).

What is planted in `FAULTS` breaks one rule each; a test shows that the rig finds every one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count as counting
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from bootlink_blockstore import writeback
from bootlink_blockstore.cache import Cache
from bootlink_blockstore.disk import ClientDisk
from bootlink_blockstore.library import Library
from bootlink_blockstore.overlay import Overlay
from bootlink_blockstore.pagemap import ABSENT, PAGE, PRESENT
from bootlink_blockstore.writeback import Manifest, Writebacks
from bootlink_events import BootId, BootPlan
from lab.blockstore import Policy, digest, make_image, plan
from rigs.figures import Figures, Violation
from rigs.files import Disk, Log, key_of, put, recording, states

SECTOR: Final = 512
SIZE: Final = 24 * PAGE + 3 * SECTOR  # ends within a page
CROWD: Final = SIZE // SECTOR  # sectors that most commands are for: where they meet
NEVER: Final = 1 << 60
POLICIES: Final[tuple[Policy, ...]] = (*("keep", "super") * 4, "keep", "discard")
EXTRA: Final = 6  # states of one moment beyond "nothing" and "all"


@dataclass
class Version:
    """What one command made of one sector. Positions are those of the log of calls."""

    data: bytes
    sent: int
    acknowledged: int = NEVER
    durable: int = NEVER  # when it was acknowledged, if it said FUA


@dataclass
class Expectation:
    """What each sector may be, at any moment."""

    sectors: list[list[Version]]  # of each, in the order of the disk's queue, the image's first
    flushes: list[tuple[int, int]] = field(default_factory=list)  # began, completed
    admitted: int = NEVER  # when the first boot had begun

    def began(self, moment: int) -> int:
        """When the last flush began that was completed at this moment; -1 if there was none."""
        return max((began for began, done in self.flushes if done <= moment), default=-1)

    def may(self, sector: int, moment: int, began: int) -> set[bytes]:
        """What this sector may be after a power cut at this moment."""
        lower = 0
        for number, version in enumerate(self.sectors[sector]):
            if version.acknowledged <= began or version.durable <= moment:
                lower = number
        return {version.data for version in self.sectors[sector][lower:] if version.sent <= moment}


class Workload:
    """Random commands of one client on one disk, and what they promise."""

    def __init__(self, random: Random, image: bytes, log: Log) -> None:
        self._random = random
        self._log = log
        self._model = bytearray(image)
        self._stamp = counting(1)
        self._sectors = len(image) // SECTOR
        at = [image[n * SECTOR : (n + 1) * SECTOR] for n in range(self._sectors)]
        self.expected = Expectation([[Version(data, -1, -1, -1)] for data in at])

    async def run(self, disk: ClientDisk) -> None:
        """Some commands, one after the other or a few at once."""
        for _ in range(self._random.randrange(1, 7)):
            await asyncio.gather(*(self._command(disk) for _ in range(self._random.choice((1, 1, 1, 2, 4)))))

    def _command(self, disk: ClientDisk) -> Coroutine[Any, Any, None]:
        """One command. It is in the disk's queue when this returns."""
        kind = self._random.choice(("write", "write", "write", "zero", "zero", "update", "flush"))
        if kind == "flush":
            return self._flush(disk)
        sectors = self._random.choice((1, 2, 7, 8, 9, 16, 40))
        lba = self._random.choice((0, 7, 8, self._random.randrange(CROWD), self._sectors - sectors))
        sectors = min(sectors, self._sectors - lba)
        place = slice(lba * SECTOR, (lba + sectors) * SECTOR)
        fua = self._random.random() < 0.2
        waiting: Coroutine[Any, Any, None] | None
        sent = self._log.now
        if kind == "zero":
            fua = False
            data = bytes(sectors * SECTOR)
            waiting = disk.zero(place.start, len(data))
        elif kind == "update":
            data = bytes(byte ^ 0xFF for byte in self._model[place])
            waiting = disk.update(place.start, len(data), lambda held: bytes(byte ^ 0xFF for byte in held), fua=fua)
        else:
            stamp = next(self._stamp)
            data = b"".join(b"%08d.%07d" % (stamp, lba + n) * 32 for n in range(sectors))
            waiting = disk.write(place.start, data, fua=fua)
        self._model[place] = data
        versions = []
        for n in range(sectors):
            versions.append(Version(data[n * SECTOR : (n + 1) * SECTOR], sent))
            self.expected.sectors[lba + n].append(versions[-1])
        return self._acknowledge(waiting, versions, fua)

    async def _acknowledge(self, waiting: Coroutine[Any, Any, None] | None, versions: list[Version], fua: bool) -> None:
        if waiting is not None:
            await waiting
        for version in versions:
            version.acknowledged = self._log.now
            if fua:
                version.durable = self._log.now

    async def _flush(self, disk: ClientDisk) -> None:
        began = self._log.now
        flushing = disk.flush()
        if flushing is not None:
            await flushing
        self.expected.flushes.append((began, self._log.now))


async def _record(seed: int, folder: Path, policy: Policy) -> tuple[Log, Expectation, BootPlan, bytes]:
    """Run one workload, over one to three boots."""
    random = Random(seed)
    base = folder / "base.img"
    if not base.exists():
        make_image(base, SIZE)
    image = base.read_bytes()
    boots = plan(base, policy=policy)
    root = folder / "live"
    root.mkdir()
    with recording(root) as log, ThreadPoolExecutor(2) as executor:
        library = Library(Cache(1 << 20), executor)
        opened = await library.open(boots.disks[0].layers)
        work = Workload(random, image, log)
        former: list[Manifest] = []
        for number in range(random.choice((1, 1, 2, 3))):
            writebacks = Writebacks(root)
            intended = writebacks.intended(boots, BootId.mint(now_ms=1_000_000 + number))
            begun = await asyncio.to_thread(writebacks.begin, intended)
            work.expected.admitted = min(work.expected.admitted, log.now)
            for manifest in former if policy == "discard" else ():
                await asyncio.to_thread(writebacks.remove, manifest)
            former = [manifest for manifest, _ in begun]
            disk = ClientDisk(opened, begun[0][1], executor, durable=policy != "discard")
            await work.run(disk)
            await disk.fence()
            disk.overlay.close()
        library.shut()
    shutil.rmtree(root)
    return log, work.expected, boots, image


def _recover(root: Path, boots: BootPlan, image: bytes) -> tuple[list[Manifest], bytes]:
    """What a new block store and a newer boot find: the manifests, and all of the disk."""
    writebacks = Writebacks(root)
    manifests, problems = writebacks.scan()
    if problems:
        raise Violation(f"needs repair: {problems}")
    ((_, overlay),) = writebacks.begin(writebacks.intended(boots, BootId.mint(now_ms=2_000_000)))
    try:
        return manifests, compose(overlay, image)
    finally:
        overlay.close()


def compose(overlay: Overlay, image: bytes) -> bytes:
    """All of the disk, as this overlay over the image has it."""
    content = bytearray()
    for state, start, end in overlay.runs(0, len(image)):
        if state == ABSENT:
            content += image[start:end]
        else:
            content += overlay.read(start, end - start) if state == PRESENT else bytes(end - start)
    return bytes(content)


def judge(expected: Expectation, moment: int, content: bytes, image: bytes) -> None:
    """Violation, if a sector is what it may not be after a power cut at this moment."""
    began, rest = expected.began(moment), bytearray(content)
    for sector, versions in enumerate(expected.sectors):
        if len(versions) == 1:
            continue
        place = slice(sector * SECTOR, (sector + 1) * SECTOR)
        if content[place] not in expected.may(sector, moment, began):
            what = "the image's bytes" if content[place] == image[place] else content[place][:16].hex()
            raise Violation(f"sector {sector} is {what}")
        rest[place] = image[place]
    if rest != image:
        raise Violation("a sector that nobody wrote to is not the image's")


def _check(
    expected: Expectation, moment: int, manifests: list[Manifest], content: bytes, image: bytes, policy: Policy
) -> None:
    if policy == "discard":
        if content != image:
            raise Violation("a new boot of a discard client reads something else than the image")
        return
    if expected.admitted <= moment and not manifests:
        raise Violation("the overlay of a boot that was admitted is gone")
    judge(expected, moment, content, image)


def workload(seed: int, folder: Path, limit: int, policy: Policy = "keep") -> int:
    """All power cuts of one workload, at most `limit` states; how many different ones there were."""
    with pytest.MonkeyPatch.context() as patch:
        for sync in ("fsync", "fdatasync"):
            patch.setattr(os, sync, lambda _fd: None)  # what survives is decided here, and not by this machine
        log, expected, boots, image = asyncio.run(_record(seed, folder, policy))
        random, disk, tried = Random(seed), Disk(), 0
        for moment in range(log.now + 1):
            seen: set[bytes] = set()
            for left in states(disk, random, EXTRA):
                key = key_of(left)
                if key in seen:
                    continue
                seen.add(key)
                root = folder / "cut"
                root.mkdir()
                put(left, root)
                try:
                    _check(expected, moment, *_recover(root, boots, image), image, policy)
                except (Violation, OSError, ValueError) as error:
                    last = log.calls[moment - 1][:2] if moment else "nothing"
                    raise Violation(f"seed {seed}, {policy}, cut after call {moment} ({last}): {error}") from error
                shutil.rmtree(root)
                tried += 1
                if tried == limit:
                    return tried
            if moment < log.now:
                disk.apply(log.calls[moment])
    return tried


def run(count: int, seed: int, folder: Path) -> Figures:
    """`count` states, of the POLICIES in turn."""
    tried, workloads = 0, 0
    make_image(folder / "base.img", SIZE)
    before = digest(folder / "base.img")
    while tried < count:
        policy: Policy = POLICIES[workloads % len(POLICIES)]
        tried += workload(seed + workloads, folder, count - tried, policy)
        workloads += 1
    if digest(folder / "base.img") != before:
        raise Violation(f"seed {seed}: the image's bytes have changed")
    return {"crash states": tried, "workloads": workloads, "violations": 0}


# Faults to plant: each breaks one rule of the order of calls.


def _no_folder_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writeback, "sync_folder", lambda _folder: None)


def _no_flush(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Overlay, "sync", lambda self: self.sync_marks())


def _no_marks_in_flush(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Overlay, "sync", lambda self: os.fdatasync(self.fd))


def _only_own_marks_in_flush(patch: pytest.MonkeyPatch) -> None:
    real = Overlay.reopen

    def reopen(path: Path, size: int) -> Overlay:
        overlay = real(path, size)
        overlay._marks_dirty = False
        return overlay

    patch.setattr(Overlay, "reopen", reopen)


def _punch_before_marks_are_safe(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Overlay, "sync_marks", lambda _self: None)


def _punch_without_marks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Overlay, "mark_zeros", lambda _self, _first, _end: None)


def _manifest_renamed_before_it_is_safe(patch: pytest.MonkeyPatch) -> None:
    def write(path: Path, manifest: Manifest) -> None:
        draft = path.with_suffix(".tmp")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(fd, manifest.model_dump_json().encode())
        os.close(fd)
        draft.replace(path)

    patch.setattr(writeback, "write_manifest", write)


def _size_not_synced(patch: pytest.MonkeyPatch) -> None:
    real = Writebacks._overlay

    def overlay(self: Writebacks, manifest: Manifest, *, new: bool) -> Overlay:
        if not self.path(manifest).with_suffix(".json").exists():
            manifest = manifest.model_copy(update={"policy": "discard"})
        return real(self, manifest, new=new)

    patch.setattr(Writebacks, "_overlay", overlay)


def _overlay_removed_before_its_manifest_is(patch: pytest.MonkeyPatch) -> None:
    real = Writebacks.remove

    def remove(self: Writebacks, manifest: Manifest) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(writeback, "sync_folder", lambda _folder: None)
            real(self, manifest)

    patch.setattr(Writebacks, "remove", remove)


def _image_around_what_was_given_back(patch: pytest.MonkeyPatch) -> None:
    real = ClientDisk._edges

    def edges(self: ClientDisk, offset: int, length: int) -> list[tuple[int, int, int, int]]:
        return [(low, high, stop, ABSENT) for low, high, stop, _ in real(self, offset, length)]

    patch.setattr(ClientDisk, "_edges", edges)


def _pages_written_in_part(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClientDisk, "_edges", lambda _self, _offset, _length: [])


FAULTS: Final[dict[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "folders are not synced": _no_folder_sync,
    "a flush syncs no pages": _no_flush,
    "a flush syncs no marks": _no_marks_in_flush,
    "a flush syncs no marks of the boot before": _only_own_marks_in_flush,
    "pages are punched before their marks are safe": _punch_before_marks_are_safe,
    "pages are punched without marks": _punch_without_marks,
    "a manifest takes its name before it is safe": _manifest_renamed_before_it_is_safe,
    "the size of a new overlay is not synced": _size_not_synced,
    "an overlay is removed before its manifest is": _overlay_removed_before_its_manifest_is,
    "a write into what was given back brings the image back": _image_around_what_was_given_back,
    "a page is written in part": _pages_written_in_part,
}


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """One of the FAULTS for the length of the block."""
    with pytest.MonkeyPatch.context() as patch:
        FAULTS[name](patch)
        yield
