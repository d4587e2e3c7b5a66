"""Files whose disk keeps a log of every write, discard and flush, or fails on purpose: QEMU's FUSE export.

Each file is a raw disk of its own with `blklogwrites` (dm-log-writes' format) or `blkdebug` above it. What a log says
was asked by the kernel and written down by QEMU: neither knows anything of the code under test.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.process import Process

SECTOR: Final = 512
MAGIC: Final = 0x6A736677736872  # kernel: drivers/md/dm-log-writes.c
FLUSH: Final = 1
DISCARD: Final = 4
KNOWN_FLAGS: Final = 1 | 2 | 4 | 8  # flush, FUA, discard, mark
LOG_LIMIT: Final = 1 << 30  # bytes; sparse, so it costs what is logged


@dataclass(frozen=True)
class Entry:
    """One entry of the log. Offsets and lengths are bytes of the raw disk."""

    flags: int
    offset: int
    length: int
    data: bytes


class Log:
    """What reached the disk of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def now(self) -> int:
        """How many entries there are."""
        return int(struct.unpack("<QQQ", _read(self._path, 0, 24))[2])

    def entries(self) -> list[Entry]:
        """All of them."""
        magic, _version, count, size = struct.unpack("<QQQI", _read(self._path, 0, 28))
        if magic == 0:
            return []  # its head comes with the first entry
        assert magic == MAGIC
        assert size == SECTOR
        found, at = [], SECTOR
        for _ in range(count):
            sector, sectors, flags, _extra = struct.unpack("<QQQQ", _read(self._path, at, 32))
            assert flags & ~KNOWN_FLAGS == 0
            at += SECTOR
            length = sectors * SECTOR
            data = b"" if flags & DISCARD else _read(self._path, at, length)
            at += len(data)
            found.append(Entry(flags, sector * SECTOR, length, data))
        return found


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(length)
    assert len(data) == length
    return data


@contextlib.contextmanager
def exported(folder: Path, sizes: dict[str, int], *, fail_flush: bool = False) -> Iterator[list[Log]]:
    """Files of these names and sizes (multiples of 512 bytes) in `folder`, each with a log.

    `fail_flush`: without a log; the first flush of each file fails, and every other works.
    """
    nodes, exports, logs, paths = [], [], [], []
    for n, (name, size) in enumerate(sizes.items()):
        path, raw, log = folder / name, folder / f"{name}.raw", folder / f"{name}.log"
        path.touch()
        paths.append(path)
        logs.append(Log(log))
        for file, length in ((raw, size), (log, LOG_LIMIT)):
            with file.open("wb") as out:
                out.truncate(length)
        nodes += [
            f"driver=file,node-name=file{n},filename={raw},discard=unmap",
            f"driver=raw,node-name=raw{n},file=file{n},discard=unmap",
        ]
        if fail_flush:
            keys = {"event": "none", "iotype": "flush", "errno": errno.EIO, "once": "on"}
            error = ",".join(f"inject-error.0.{key}={value}" for key, value in keys.items())
            nodes.append(f"driver=blkdebug,node-name=top{n},image=raw{n},discard=unmap,{error}")
        else:
            nodes += [
                f"driver=file,node-name=logfile{n},filename={log}",
                f"driver=raw,node-name=log{n},file=logfile{n}",
                f"driver=blklogwrites,node-name=top{n},file=raw{n},log=log{n},log-super-update-interval=1,"
                "discard=unmap",
            ]
        exports += ["--export", f"type=fuse,id=export{n},node-name=top{n},mountpoint={path},writable=on"]
    blocks = [word for node in nodes for word in ("--blockdev", node)]
    daemon = Process(["qemu-storage-daemon", *blocks, *exports], log=folder / "daemon.log")
    daemon.start(lambda: all(os.path.ismount(path) for path in paths))
    try:
        yield logs
    finally:
        daemon.stop()
