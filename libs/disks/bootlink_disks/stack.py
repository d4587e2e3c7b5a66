"""Stacks: layers, top first, read as one disk by plain blocking calls. For imports, exports, merges and comparisons.

How it works. `extents` asks the top layer for its runs and passes what it calls ABSENT to the layer below. What the
lowest one calls ABSENT stays so: it is zeros where the stack is a whole disk, and the parent's where it stands on one.
A layer may be larger than the one below it; past that one's end there is nothing either.

Deliberately not here: caching, and reading without blocking. That is the block store's (`image`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bootlink_disks.layer import Kind, OpenLayer

STRIDE = 64 << 20
"""Bytes of a disk whose runs are asked for at once by `walk`: few calls for a sparse disk, short lists for others."""

PIECE = 1 << 20  # bytes read at once


class Extent(NamedTuple):
    """A part of the disk, and where its bytes are."""

    kind: Kind
    layer: OpenLayer | None  # that holds them; None unless kind is DATA
    file_offset: int  # bytes from the start of its file; 0 unless kind is DATA
    length: int  # bytes


class Stack:
    """Open layers as one disk. Whoever opened them closes them."""

    __slots__ = ("layers", "size")

    def __init__(self, layers: Sequence[OpenLayer]) -> None:
        """`layers` top first, at least one. That they belong together is `chain`'s to say."""
        self.layers = tuple(layers)
        self.size = layers[0].size

    @property
    def path(self) -> Path:
        """The top layer's file."""
        return self.layers[0].info.path

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Where [offset, offset + length) of the disk lives, in disk order. ValueError if that is not within it."""
        return self._below(0, offset, length)

    def _below(self, depth: int, offset: int, length: int) -> Iterator[Extent]:
        layer = self.layers[depth]
        for kind, file_offset, size in layer.locate(offset, length):
            if kind is Kind.ABSENT and depth + 1 < len(self.layers):
                inside = max(0, min(size, self.layers[depth + 1].size - offset))
                if inside:
                    yield from self._below(depth + 1, offset, inside)
                if inside < size:
                    yield Extent(Kind.ABSENT, None, 0, size - inside)
            else:
                yield Extent(kind, layer if kind is Kind.DATA else None, file_offset, size)
            offset += size

    def walk(self, start: int = 0) -> Iterator[tuple[int, Extent]]:
        """(offset, extent) over the whole disk from `start` on."""
        while start < self.size:
            length = min(STRIDE, self.size - start)
            at = start
            for extent in self.extents(start, length):
                yield at, extent
                at += extent.length
            start += length

    def changes(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of all that the layers have to say, ascending and apart, in pieces of at most PIECE."""
        for start, (kind, layer, file_offset, length) in self.walk():
            if kind is Kind.ABSENT:
                continue
            for at in range(0, length, PIECE):
                size = min(PIECE, length - at)
                yield start + at, bytes(size) if layer is None else layer.read_file(file_offset + at, size)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes [offset, offset + length); what no layer has is zeros. DiskError if a file cannot be read."""
        parts = [
            bytes(size) if layer is None else layer.read_file(file_offset, size)
            for _, layer, file_offset, size in self.extents(offset, length)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def is_empty(self, offset: int, length: int) -> bool:
        """True if nothing is stored there, in any layer that counts."""
        return all(
            layer is None or layer.is_hole(file_offset, size)
            for _, layer, file_offset, size in self.extents(offset, length)
        )
