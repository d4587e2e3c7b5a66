"""The layer: one read-only file, and the map from disk offsets to places in it.

How it works. A disk format is a **map**: it answers "where do the bytes [offset, offset + length) of the disk
live?" with a list of runs, each of one kind:

    DATA    the bytes are in the file, `length` of them from `file_offset`
    ZERO    the bytes are zeros; nothing is stored for them
    ABSENT  this layer has nothing to say; ask the layer below it (differencing formats only)

Runs come in disk order, are never empty and add up to exactly what was asked. A DATA run lies inside the file.
A map does no I/O and holds no file: it was parsed from bytes, whole, when the layer was opened, and its size in
memory is bounded by named constants of its format. So `locate` never blocks and may be called on an event loop.

An `OpenLayer` is a map with the file descriptor it speaks of, opened O_RDONLY and never otherwise. Who reads, and how
(`preadv` with RWF_NOWAIT, threads, caches), is the caller's policy. `OpenLayer.read` is the plain blocking way, for
tools, imports and tests.

A stack of layers is top first: ask the top, and pass what it calls ABSENT to the next. What the base calls ABSENT is
zeros. What each file says of its parent is checked against the stack before it is served (`chain`). A new format adds
one file with a `parse` function that returns a `Structure`, and one row in `open.FORMATS`.

Deliberately not here: writing to a layer (layers are immutable), following a parent by the name in a file (the
registry says what a layer's parent is), and caching.
"""

from __future__ import annotations

import enum
import errno
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self

from bootlink_disks.errors import DiskError

SECTOR = 512
"""Bytes. VHD knows no other sector, and BIOS clients boot from no other."""

Format = Literal["raw", "vhd-fixed", "vhd-dynamic", "vhd-differencing", "vhdx", "vhdx-differencing"]

Pread = Callable[[int, int], bytes]
"""(offset, length) -> at most `length` bytes of the file, fewer only at its end."""


class Kind(enum.IntEnum):
    DATA = 0
    ZERO = 1
    ABSENT = 2


class Run(NamedTuple):
    kind: Kind
    file_offset: int  # bytes from the start of the file; 0 unless kind is DATA
    length: int  # bytes


class Map(Protocol):
    size: int  # of the disk, in bytes; a multiple of 512

    def locate(self, offset: int, length: int) -> list[Run]:
        """Where [offset, offset + length) of the disk lives. ValueError if that is not within the disk."""


class Disk(Protocol):
    """A whole disk to be read by blocking calls: one layer, a stack of them, or a view of either."""

    size: int  # bytes; a multiple of 512

    @property
    def path(self) -> Path:
        """The file to name when something is wrong with it."""

    def read(self, offset: int, length: int) -> bytes:
        """The bytes [offset, offset + length). DiskError if they cannot be read."""

    def is_empty(self, offset: int, length: int) -> bool:
        """True if nothing is stored there, so that it reads as zeros; no byte is read to find out."""


class LinearMap:
    """The disk's bytes are the file's first bytes: raw images and fixed VHDs."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size

    def locate(self, offset: int, length: int) -> list[Run]:
        if offset < 0 or length <= 0 or offset + length > self.size:
            raise ValueError(f"{length} bytes at {offset} are not within a disk of {self.size} bytes")
        return [Run(Kind.DATA, offset, length)]


@dataclass(frozen=True, slots=True)
class ParentReference:
    """What a differencing file says of its parent. It is compared and shown, and never followed."""

    ids: tuple[uuid.UUID, ...]  # the parent has one of them; nil for a parent that has none, as a raw image
    name: str = ""  # printable; a path, mostly
    timestamp: int = 0  # VHD: when the parent last changed, in seconds since 2000; 0 if that is not said


@dataclass(frozen=True, slots=True)
class Structure:
    """What a format's parser found in the bytes of one file."""

    format: Format
    map: Map
    stored: int  # bytes of the disk that the file holds; the rest is zeros or the parent's, by the map
    block_size: int | None = None  # bytes, where the format allocates in blocks
    uuid: uuid.UUID | None = None  # by which children name it
    timestamp: int = 0  # VHD: when it last changed as its footer says, in seconds since 2000
    parent: ParentReference | None = None  # None: the file is a whole disk
    creator: str = ""  # the program that made it, as the file says
    notes: tuple[str, ...] = ()  # readable, but worth telling: one line each


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """A file that can serve as a layer. `file_size` and `mtime_ns` are what `open_layer` later insists on."""

    path: Path
    format: Format
    virtual_size: int  # bytes, as the client sees the disk
    file_size: int  # bytes
    mtime_ns: int
    disk_usage: int  # bytes that the file occupies on its file system (less than file_size if sparse)
    stored: int
    block_size: int | None
    uuid: uuid.UUID | None
    timestamp: int
    parent: ParentReference | None
    creator: str
    notes: tuple[str, ...]


class OpenLayer:
    """A layer ready to be read: `fd`, `size`, `info`, and the map's `locate`. Close it, or use it in `with`."""

    __slots__ = ("fd", "info", "locate", "size")

    def __init__(self, fd: int, info: ImageInfo, disk: Map) -> None:
        self.fd = fd
        self.info = info
        self.size = disk.size
        self.locate = disk.locate  # bound once: the block store calls it on every cache miss

    def read(self, offset: int, length: int) -> bytes:
        """The bytes [offset, offset + length) of the disk, by blocking reads; ABSENT reads as zeros.

        ValueError outside the disk; DiskError if the file has become shorter than it was, or the device fails.
        """
        parts = [
            self.read_file(file_offset, size) if kind is Kind.DATA else bytes(size)
            for kind, file_offset, size in self.locate(offset, length)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_file(self, offset: int, length: int) -> bytes:
        """Bytes of the file itself, where a DATA run says they are. DiskError as `read`."""
        parts = []
        while length:
            try:
                part = os.pread(self.fd, length, offset)
            except OSError as error:
                raise DiskError(
                    f"{self.info.path}: it cannot be read ({error.strerror})",
                    "check the disk or file system that it is on",
                ) from error
            if not part:
                raise DiskError(
                    f"{self.info.path}: the file ends before byte {offset + length}",
                    "a published layer must never change; restore it from a copy",
                )
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def is_empty(self, offset: int, length: int) -> bool:
        """True if the layer stores nothing there: no DATA run that is not a hole of the file."""
        return all(
            kind is not Kind.DATA or self.is_hole(start, size) for kind, start, size in self.locate(offset, length)
        )

    def is_hole(self, offset: int, length: int) -> bool:
        """True if the file's bytes there are a hole, which reads as zeros."""
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA) >= offset + length
        except OSError as error:
            # ENXIO: no data from here on. Anything else: a file system without SEEK_DATA, so the bytes must be read.
            return error.errno == errno.ENXIO

    @property
    def path(self) -> Path:
        return self.info.path

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
