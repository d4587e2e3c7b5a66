"""The process that makes a layer file of what a client wrote: `python -m bootlink_blockstore.exporting`.

It is a process of its own, at low priority: a large export must not take the interpreter from a room that reads, and
whatever kills it harms nobody else. It reads one request as a line of JSON, and says lines of JSON:

    {"progress": [done, total]}      bytes
    {"ready": {...}}                 the draft is complete, checked and safe; it waits for a line, and ends without one
    {"result": {...}}                the file has its name
    {"problem": {...}}               detail and remedy; there is no draft and no file

Order (PROTOCOLS, sections 5.2 and 5.4): data, flush, bitmaps, flush, table and footers, flush; every byte read back and
compared, and the checksum taken; then the name, and a flush of the folder. A file that has its name is therefore whole,
and is taken as done when the same is asked again. A draft is worth nothing and is written anew.

What is read must not change meanwhile: the times of the write-back's files are looked at before and after, and again
before the name is given.

Deliberately not here: who may ask, and whether the client has the disk open (`exports`).
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from bootlink_blockstore.durable import sync_folder
from bootlink_blockstore.overlay import Overlay
from bootlink_blockstore.pagemap import ABSENT, PAGE_BITS, PRESENT, ZEROED
from bootlink_disks import (
    DiskError,
    Stack,
    bitmaps_fit,
    open_layer,
    probe,
    require_chain,
    write_vhd_differencing,
    write_vhd_dynamic,
)
from bootlink_disks.create import DEFAULT_BLOCK_SIZE
from bootlink_events import LayerFormat, LayerPlan

PIECE: Final = 1 << 20  # bytes read and written at once
TELL_SECONDS: Final = 0.2  # between two lines of progress
STILL_SECONDS: Final = (
    0.05  # since the last write; the kernel's clock for a file's times has steps of some milliseconds
)
NICE: Final = 10
DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG, linux/prctl.h
MODE: Final = 0o444  # a layer is never written again
STAGES: Final = 3  # write, compare, checksum


class Request(BaseModel):
    """What to make of what."""

    model_config = ConfigDict(frozen=True)

    overlay: Path | None  # None: only to tell of a file that is there
    size: int  # bytes of the disk
    parent: tuple[LayerPlan, ...]
    target: Path
    draft: Path
    whole: bool = False


class Made(BaseModel):
    """The layer file."""

    model_config = ConfigDict(frozen=True)

    format: LayerFormat
    virtual_size: int
    file_size: int
    mtime_ns: int
    disk_usage: int
    sha256: str
    pages: int
    whole: str = ""
    written: int | None = None  # when the write-back changed last; None: not looked at


class ExportError(Exception):
    """It cannot be made. What is wrong, and what to do."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(f"{detail}: {remedy}")
        self.detail = detail
        self.remedy = remedy


@dataclass
class Stages:
    """Tells how far it is: each of STAGES counts alike."""

    total: int
    tell: Callable[[int, int], None]
    stage: int = 0
    told: float = 0.0

    def at(self, done: int, of: int) -> None:
        now = time.monotonic()
        if now - self.told >= TELL_SECONDS:
            self.told = now
            share = min(done, of) * self.total // max(of, 1)
            self.tell((self.stage * self.total + share) // STAGES, self.total)

    def next(self) -> None:
        self.stage += 1


class Written:
    """The disk as the client sees it: its write-back over the layers. A `bootlink_disks.Disk`."""

    def __init__(self, overlay: Overlay, layers: Stack) -> None:
        self.size = overlay.size
        self._overlay = overlay
        self._layers = layers

    @property
    def path(self) -> Path:
        return self._overlay.path

    def read(self, offset: int, length: int) -> bytes:
        parts = []
        for state, start, end in self._overlay.runs(offset, length):
            if state == ABSENT:
                parts.append(self._layers.read(start, end - start))
            else:
                parts.append(_read(self._overlay, start, end - start) if state == PRESENT else bytes(end - start))
        return b"".join(parts)

    def is_empty(self, offset: int, length: int) -> bool:
        return all(
            state == ZEROED or (state == ABSENT and self._layers.is_empty(start, end - start))
            for state, start, end in self._overlay.runs(offset, length)
        )


def export(request: Request, tell: Callable[[int, int], None], may_name: Callable[[], bool]) -> Made:
    """Make the layer file. ExportError if that cannot be; then there is no draft.

    `may_name` is asked once the draft is complete and safe; False ends it all.
    """
    if request.target.exists():
        return _found(request, tell)
    with ExitStack() as stack, _failing(request):
        overlay, still = _opened(request)
        stack.callback(overlay.close)
        stack.callback(request.draft.unlink, missing_ok=True)
        layers = [
            stack.enter_context(
                open_layer(
                    layer.path,
                    layer.format,
                    virtual_size=layer.virtual_size,
                    file_size=layer.file_size,
                    mtime_ns=layer.mtime_ns,
                )
            )
            for layer in request.parent
        ]
        require_chain([layer.info for layer in layers])
        blocks, pages = _counted(overlay)
        whole = ""
        if request.whole:
            whole = "it was asked for"
        elif not bitmaps_fit(blocks):
            whole = f"the changes touch {blocks} blocks of the disk, more than a differencing VHD may have"
        if not whole:
            _require_space(request, pages << PAGE_BITS)
        disk = Written(overlay, Stack(layers))
        work = disk.size if whole else max(1, pages << PAGE_BITS)
        stages = Stages(work, tell)
        with _draft(request.draft) as fd:
            if whole:
                write_vhd_dynamic(fd, disk, progress=lambda done: stages.at(done, work))
            else:
                changes = _told(_changes(overlay), stages, work)
                write_vhd_differencing(fd, request.target, layers[0].info, changes)
        stages.next()
        try:
            _compare(request.draft, disk, overlay, whole=bool(whole), at=lambda done: stages.at(done, work))
        except ExportError:
            _require_still(overlay, still)  # which is why they differ, where it is
            raise
        stages.next()
        made = _made(request.draft, pages, whole, stages.at, max(state.st_mtime_ns for state in still))
        _require_still(overlay, still)
        if not may_name():
            raise ExportError("the export was given up", "none")
        _require_still(overlay, still)
        request.draft.rename(request.target)
        sync_folder(request.target.parent)
        return made


def _found(request: Request, tell: Callable[[int, int], None]) -> Made:
    """The file is there already: a former process gave it its name, and could not say so any more."""
    with _failing(request):
        sync_folder(request.target.parent)  # which that process may not have done
        size = request.target.stat().st_size
        return _made(request.target, None, "", Stages(size, tell, STAGES - 1).at)


@contextmanager
def _draft(path: Path) -> Iterator[int]:
    """A new file to write to, which is safe and closed afterwards."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        yield fd
        os.fsync(fd)
    finally:
        os.close(fd)


def _opened(request: Request) -> tuple[Overlay, tuple[os.stat_result, ...]]:
    """The write-back, and what its files must still be like in the end."""
    if request.overlay is None:
        raise ExportError(f"{request.target} is gone again", "repeat the command")
    while True:
        overlay = Overlay.reopen(request.overlay, request.size, writable=False)
        still = _state(overlay)
        newest = max(state.st_mtime for state in still)
        if newest + STILL_SECONDS < time.time() or newest > time.time():
            return overlay, still
        overlay.close()
        time.sleep(STILL_SECONDS)


def _state(overlay: Overlay) -> tuple[os.stat_result, ...]:
    return os.fstat(overlay.fd), os.fstat(overlay.zeros_fd)


def _require_still(overlay: Overlay, still: tuple[os.stat_result, ...]) -> None:
    for before, after in zip(still, _state(overlay), strict=True):
        if before.st_mtime_ns != after.st_mtime_ns:
            raise ExportError(
                f"{overlay.path} was written to while it was being read", "shut the PC down, and repeat the command"
            )


def _counted(overlay: Overlay) -> tuple[int, int]:
    """How many blocks of a VHD, and how many pages, the client changed. Pages of zeros take no space in the file."""
    blocks, last, pages = 0, -1, 0
    for state, first, end in overlay.touched():
        low, high = (first << PAGE_BITS) // DEFAULT_BLOCK_SIZE, ((end << PAGE_BITS) - 1) // DEFAULT_BLOCK_SIZE
        blocks += high - max(low, last + 1) + 1
        last = high
        pages += end - first if state == PRESENT else 0
    return blocks, pages


def _changes(overlay: Overlay) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of all that the client changed, in order."""
    for state, first, end in overlay.touched():
        stop = min(end << PAGE_BITS, overlay.size)
        for offset in range(first << PAGE_BITS, stop, PIECE):
            length = min(PIECE, stop - offset)
            yield offset, _read(overlay, offset, length) if state == PRESENT else bytes(length)


def _read(overlay: Overlay, offset: int, length: int) -> bytes:
    try:
        return overlay.read(offset, length)
    except OSError as error:
        raise ExportError(
            f"{overlay.path} cannot be read ({error.strerror})", "check the disk that it is on"
        ) from error


def _told(changes: Iterator[tuple[int, bytes]], stages: Stages, work: int) -> Iterator[tuple[int, bytes]]:
    done = 0
    for offset, data in changes:
        yield offset, data
        done += len(data)
        stages.at(done, work)


def _compare(draft: Path, disk: Written, overlay: Overlay, *, whole: bool, at: Callable[[int], None]) -> None:
    """Read all of the draft back. ExportError unless it shows what the client saw, and nothing else."""
    done = 0
    with open_layer(draft, "vhd-dynamic" if whole else "vhd-differencing") as made:
        if whole:
            pieces: Iterator[tuple[int, bytes]] = (
                (offset, disk.read(offset, min(PIECE, disk.size - offset)))
                for offset in range(0, disk.size, PIECE)
                if not (
                    disk.is_empty(offset, length := min(PIECE, disk.size - offset)) and made.is_empty(offset, length)
                )
            )
        else:
            pieces = _changes(overlay)
        for offset, data in pieces:
            if made.read(offset, len(data)) != data:
                raise ExportError(
                    f"{draft} does not read back what was written, near byte {offset} of the disk",
                    "check the disk that the image store is on, and repeat",
                )
            done += len(data)
            at(done)
        if made.size != disk.size or (not whole and made.info.stored != _changed(overlay)):
            raise ExportError(f"{draft} holds more or less than was written", "report it, with this line")


def _changed(overlay: Overlay) -> int:
    """Bytes of the disk that the client changed."""
    return sum(min(end << PAGE_BITS, overlay.size) - (first << PAGE_BITS) for _, first, end in overlay.touched())


def _made(
    path: Path, pages: int | None, whole: str, at: Callable[[int, int], None], written: int | None = None
) -> Made:
    """What the registry must know of the file."""
    info = probe(path)
    found, done = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(PIECE):
            found.update(data)
            done += len(data)
            at(done, info.file_size)
    return Made(
        format=info.format,
        virtual_size=info.virtual_size,
        file_size=info.file_size,
        mtime_ns=info.mtime_ns,
        disk_usage=info.disk_usage,
        sha256=found.hexdigest(),
        pages=info.stored >> PAGE_BITS if pages is None else pages,
        whole=whole or ("it needs no layer below" if info.parent is None else ""),
        written=written,
    )


def _require_space(request: Request, needed: int) -> None:
    stat = os.statvfs(request.draft.parent)
    free = stat.f_bavail * stat.f_frsize
    if free < needed:
        raise ExportError(
            f"the layer takes {needed >> 20} MiB, and {request.draft.parent} has {free >> 20} MiB free",
            "free some space in the image store",
        )


@contextmanager
def _failing(request: Request) -> Iterator[None]:
    """Every failure as an ExportError."""
    try:
        yield
    except DiskError as error:
        raise ExportError(error.problem, error.remedy) from error
    except ValueError as error:  # of the overlay: damaged, or not of that size
        raise ExportError(f"the write-back cannot be read: {error}", "it is lost; drop it") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space in the image store" if full else "check the image store and its file system"
        raise ExportError(f"{request.target} cannot be written ({error.strerror or error})", remedy) from error


def main() -> int:
    """One request from stdin; what is said goes to stdout."""
    ctypes.CDLL(None, use_errno=True).prctl(DEATH_SIGNAL, signal.SIGKILL)  # nobody would say that it may have its name
    os.nice(NICE)
    request = Request.model_validate_json(sys.stdin.buffer.readline())
    try:
        made = export(request, lambda done, total: _say(progress=[done, total]), _may_name)
    except ExportError as error:
        _say(problem={"detail": error.detail, "remedy": error.remedy})
        return 1
    _say(result=made.model_dump(mode="json"))
    return 0


def _may_name() -> bool:
    _say(ready={})
    return bool(sys.stdin.buffer.readline())


def _say(**what: Any) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
