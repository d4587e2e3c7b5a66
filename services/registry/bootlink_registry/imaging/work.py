"""What the work functions share: opening layers, telling progress, looking at what was written."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

from bootlink_disks import DiskError, OpenLayer, Stack, open_layer, require_chain, require_parent
from bootlink_disks.open import opened
from bootlink_registry.imaging.requests import LayerRef
from bootlink_registry.imaging.results import Format, Written
from bootlink_registry.problems import Problem, invalid

TELL_SECONDS: Final = 0.2  # between two words of progress
CHUNK: Final = 1 << 20  # bytes read at once for a checksum: past that it gets no faster

Tell = Callable[[int, int | None], None]
"""(done, total) in bytes."""


class Stages:
    """Progress over work in stages, each an equal share of the whole, so that a bar never goes back."""

    def __init__(self, tell: Tell, size: int, stages: int = 1) -> None:
        """`size` is what each of `stages` has to do, in bytes."""
        self._tell = tell
        self._size = max(size, 1)
        self._stages = stages
        self._before = 0
        self._told = float("-inf")

    def __call__(self, done: int, of: int | None = None) -> None:
        """`done` bytes of this stage are done, of `of` (None: of `size`)."""
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            share = done if of is None else done * self._size // max(of, 1)
            self._tell(self._before + min(share, self._size), self._size * self._stages)

    def next(self) -> None:
        """This stage is done."""
        self._before += self._size
        self._told = float("-inf")
        self(0)


@contextmanager
def opened_layers(layers: Sequence[LayerRef], *, whole: bool = True) -> Iterator[Stack]:
    """Layers, top first, as a disk; each must be as it was recorded, also at the end, and made on the next.

    `whole`: nothing is below the last. DiskError; Problem if a layer changed meanwhile.
    """
    with ExitStack() as stack:
        found = [stack.enter_context(open_ref(layer)) for layer in layers]
        infos = [layer.info for layer in found]
        for child, parent in pairwise(infos):
            require_parent(child, parent)
        if whole:
            require_chain(infos[-1:])
        before = [os.fstat(layer.fd) for layer in found]
        yield Stack(found)
        for layer, state in zip(found, before, strict=True):
            require_still(layer.path, state, os.fstat(layer.fd))


def open_ref(layer: LayerRef) -> OpenLayer:
    """The layer, opened as what it was recorded as. DiskError."""
    return open_layer(
        layer.path,
        layer.format,
        virtual_size=layer.virtual_size,
        file_size=layer.file_size,
        mtime_ns=layer.mtime_ns,
    )


def digest(path: Path, tell: Callable[[int, int], None]) -> tuple[str, os.stat_result]:
    """The SHA-256 of a file, and its state. Problem if it changes meanwhile; DiskError if it cannot be read."""
    with opened(path) as (fd, before):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        found = hashlib.sha256()
        buffer = memoryview(bytearray(CHUNK))
        done = 0
        while read := os.readv(fd, [buffer]):
            found.update(buffer[:read])
            done += read
            tell(done, before.st_size)
        require_still(path, before, os.fstat(fd))
    if done != before.st_size:
        raise changed(path)
    return found.hexdigest(), before


def require_still(path: Path, before: os.stat_result, after: os.stat_result) -> None:
    """Problem unless the file is what it was."""
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
        raise changed(path)


def changed(path: Path) -> Problem:
    return Problem(409, f"{path}: another program is writing the file", "wait until it is complete, then repeat")


def wrong_checksum(what: str, expected: str, found: str) -> Problem:
    return invalid(
        f"{what}: its SHA-256 is {found}, and should be {expected}", "get the file anew; if it is right, the sum is not"
    )


def written(path: Path, format_: Format, virtual_size: int, tell: Callable[[int, int], None]) -> Written:
    """What the registry must know about a file that was just written."""
    sha256, state = digest(path, tell)
    return Written(
        path=path,
        format=format_,
        virtual_size=virtual_size,
        file_size=state.st_size,
        mtime_ns=state.st_mtime_ns,
        disk_usage=state.st_blocks * 512,
        sha256=sha256,
    )


def problem_of(error: DiskError | OSError | MemoryError) -> Problem:
    """A failure as the answer to whoever asked."""
    if isinstance(error, MemoryError):
        return Problem(422, "the file takes more memory to read than is given", "convert it elsewhere, and import that")
    cause = error.__cause__ if isinstance(error, DiskError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    full = number in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, DiskError):
        return Problem(507 if full else 422, error.problem, error.remedy)
    where = f"{error.filename}: " if error.filename else ""
    if full:
        return Problem(507, f"{where}the disk is full", "free some space, then repeat")
    if number == errno.EFBIG:
        return Problem(
            422, f"{where}it grew past the size that its disk can have", "the source is damaged; get it anew"
        )
    return Problem(422, f"{where}{error.strerror or error}", "check the path, its file system, and who may use it")
