"""Compaction: a whole disk written anew, without what is zeros and what is free space of its file systems.

The bytes of free space become zeros, and zeros take no room. Where there were any, the new disk shows other bytes than
the old one, though the same files: it is another content, with an identity of its own. Where there were none it shows
the same, and has the identity of the old one, whose place it may take.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bootlink_disks import Stack, free_space
from bootlink_disks.free_space import DiskSpace
from bootlink_disks.writing import PIECE
from bootlink_registry.imaging.disks import FORMATS, identity_of, stages_of, write_disk
from bootlink_registry.imaging.requests import Compact
from bootlink_registry.imaging.results import Compacted
from bootlink_registry.imaging.work import Stages, Tell, opened_layers, written

_ZEROS: Final = bytes(PIECE)


class Tidied:
    """A disk with zeros where it has free space. It is read once, as by a writer, so what is left out is counted."""

    def __init__(self, disk: Stack, space: DiskSpace) -> None:
        self.size = disk.size
        self.zero_bytes = 0  # stored, in use, and zeros
        self._disk = disk
        self._space = space

    @property
    def path(self) -> Path:
        return self._disk.path

    def is_empty(self, offset: int, length: int) -> bool:
        return self._disk.is_empty(offset, length)

    def read(self, offset: int, length: int) -> bytes:
        free = list(self._space.within(offset, length))
        if free == [(offset, offset + length)]:
            return bytes(length)
        data = bytearray(self._disk.read(offset, length))
        for start, stop in free:
            data[start - offset : stop - offset] = bytes(stop - start)
        for at in range(0, length, PIECE):
            piece = data[at : at + PIECE]
            if piece == _ZEROS[: len(piece)] and not self._disk.is_empty(offset + at, len(piece)):
                self.zero_bytes += len(piece) - _overlap(free, offset + at, len(piece))
        return bytes(data)

    def free_bytes(self, tell: Stages) -> int:
        """Bytes that are free, and not zeros; of each piece all of a free range, if any of it is not."""
        found = 0
        for offset in range(0, self.size, PIECE):
            length = min(PIECE, self.size - offset)
            tell(offset + length)
            if self._disk.is_empty(offset, length):
                continue
            for start, stop in self._space.within(offset, length):
                if self._disk.read(start, stop - start) != _ZEROS[: stop - start]:
                    found += stop - start
        return found


def _overlap(ranges: list[tuple[int, int]], start: int, length: int) -> int:
    """Bytes of [start, start + length) that lie in one of the ranges."""
    return sum(max(0, min(stop, start + length) - max(begin, start)) for begin, stop in ranges)


def compact(request: Compact, tell: Tell) -> Compacted:
    """One whole disk of layers, without zeros and free space."""
    with opened_layers(request.layers) as disk:
        stages = Stages(tell, disk.size, 2 + stages_of(request.format))
        space = free_space.find(disk.read, disk.size)
        tidied = Tidied(disk, space)
        free_bytes = tidied.free_bytes(stages)
        stages.next()
        identity = identity_of(disk.layers[0].info) if not free_bytes else (None, None)
        write_disk(request.target, request.format, tidied, stages, *identity)
        stages.next()
        answer = written(request.target, FORMATS[request.format], disk.size, stages)
        return Compacted(
            **answer.model_dump(),
            before=sum(layer.info.disk_usage for layer in disk.layers),
            zero_bytes=tidied.zero_bytes,
            free_bytes=free_bytes,
            notes=space.notes,
        )
