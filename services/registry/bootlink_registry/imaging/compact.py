"""Compaction: a whole disk written anew, without what is zeros and what is free space of its file systems.

The bytes of free space become zeros, and zeros take no room. So the new disk shows other bytes than the old one there,
though the same files: it is a version of its own, and never takes the place of the one that it was made from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bootlink_disks import Stack, free_space
from bootlink_disks.free_space import DiskSpace
from bootlink_disks.writing import PIECE
from bootlink_registry.imaging.disks import FORMATS, stages_of, write_disk
from bootlink_registry.imaging.requests import Compact
from bootlink_registry.imaging.results import Compacted
from bootlink_registry.imaging.work import Stages, Tell, opened_layers, written

_ZEROS: Final = bytes(PIECE)


class Tidied:
    """A disk with zeros where it has free space. It is read once, as by a writer, so what is left out is counted."""

    def __init__(self, disk: Stack, space: DiskSpace) -> None:
        self.size = disk.size
        self.zero_bytes = 0  # stored, in use, and zeros
        self.free_bytes = 0  # stored, and free
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
            data = bytearray(length)
        else:
            data = bytearray(self._disk.read(offset, length))
            for start, stop in free:
                data[start - offset : stop - offset] = bytes(stop - start)
        self._count(offset, data, free)
        return bytes(data)

    def _count(self, offset: int, data: bytearray, free: list[tuple[int, int]]) -> None:
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            low, high = offset + at, offset + at + len(piece)
            if self._disk.is_empty(low, len(piece)):
                continue
            idle = sum(max(0, min(stop, high) - max(start, low)) for start, stop in free)
            self.free_bytes += idle
            if piece == _ZEROS[: len(piece)]:
                self.zero_bytes += len(piece) - idle


def compact(request: Compact, tell: Tell) -> Compacted:
    """One whole disk of layers, without zeros and free space."""
    with opened_layers(request.layers) as disk:
        stages = Stages(tell, disk.size, 1 + stages_of(request.format))
        space = free_space.find(disk.read, disk.size)
        tidied = Tidied(disk, space)
        write_disk(request.target, request.format, tidied, stages)
        stages.next()
        answer = written(request.target, FORMATS[request.format], disk.size, stages)
        return Compacted(
            **answer.model_dump(),
            before=sum(layer.info.disk_usage for layer in disk.layers),
            zero_bytes=tidied.zero_bytes,
            free_bytes=tidied.free_bytes,
            notes=space.notes,
        )
