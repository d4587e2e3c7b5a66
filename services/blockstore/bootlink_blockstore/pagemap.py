"""The state of each page of one client's disk, in memory.

Theory of operation. A page of 4 KiB is in one of three states:

    ABSENT    the client did nothing to it: the image has its bytes
    PRESENT   the client wrote it: the overlay has all of it
    ZEROED    the client gave it back (UNMAP): it reads as zeros, and neither overlay nor image is asked

The map has two levels: a dictionary of chunks of 4,096 pages (16 MiB of disk), each with one byte per page. A chunk
that nothing happened in has no entry, so a client that wrote nothing costs nothing, and what most reads ask ("did it do
anything here at all?") is one look-up. A chunk whose pages are all in one state is a constant that all clients share:
a guest that trims a whole disk of 60 GB costs a dictionary of 3,840 entries, and not 15 MB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

PAGE_BITS: Final = 12
PAGE: Final = 1 << PAGE_BITS
CHUNK_BITS: Final = 12
CHUNK: Final = 1 << CHUNK_BITS  # pages
ABSENT: Final = 0
PRESENT: Final = 1
ZEROED: Final = 2

_UNIFORM: Final = tuple(bytes((state,)) * CHUNK for state in (ABSENT, PRESENT, ZEROED))
_RUN: Final = re.compile(b"\0+|\1+|\2+")
_MASK: Final = bytes.maketrans(bytes((ABSENT,)), bytes((ZEROED,)))


class PageMap:
    """Pages of a disk of `size` bytes. `pages` counts those that are present; `chunks` is public for the hit path."""

    __slots__ = ("chunks", "pages", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.chunks: dict[int, bytearray | bytes] = {}
        self.pages = 0

    def copy(self) -> PageMap:
        """The same states, apart from what happens to this one."""
        other = PageMap(self.size)
        other.pages = self.pages
        other.chunks = {number: chunk[:] for number, chunk in self.chunks.items()}
        return other

    def mark(self, first: int, end: int, state: int = PRESENT) -> None:
        """Pages first..end are in this state."""
        chunk = self.chunks.get(first >> CHUNK_BITS)
        if end - first == 1 and chunk is not None and chunk[first & CHUNK - 1] == state:
            return  # what most writes find
        for number, at, until in _by_chunk(first, end):
            self._mark(number, at, until, state)

    def _mark(self, number: int, at: int, until: int, state: int) -> None:
        uniform = _UNIFORM[state]
        chunk = self.chunks.get(number, _UNIFORM[ABSENT])
        if chunk is uniform:
            return
        self.pages += (until - at if state == PRESENT else 0) - chunk.count(PRESENT, at, until)
        if until - at < CHUNK:
            if isinstance(chunk, bytes):
                chunk = bytearray(chunk)
            chunk[at:until] = uniform[at:until]
            if chunk != uniform:  # they mostly differ within the first pages, so this costs little
                self.chunks[number] = chunk
                return
        if state == ABSENT:
            self.chunks.pop(number, None)
        else:
            self.chunks[number] = uniform

    def fill(self, runs: Iterable[tuple[int, int]]) -> None:
        """Pages first..end of each run are present: `mark`, for as many runs as a large overlay has. In order."""
        number, chunk, held = -1, bytearray(), 0
        for first, end in runs:
            if first >> CHUNK_BITS != number:
                self._filled(number, chunk, held)
                number = first >> CHUNK_BITS
                chunk = bytearray(self.chunks.get(number, _UNIFORM[ABSENT]))
                held = chunk.count(PRESENT)
            at, until = first & CHUNK - 1, end - (number << CHUNK_BITS)
            if until - at == 1:
                chunk[at] = PRESENT
            elif until <= CHUNK:
                chunk[at:until] = _UNIFORM[PRESENT][at:until]
            else:
                self._filled(number, chunk, held)
                number = -1
                self.mark(first, end)
        self._filled(number, chunk, held)

    def _filled(self, number: int, chunk: bytearray, held: int) -> None:
        if number >= 0:
            self.pages += chunk.count(PRESENT) - held
            self.chunks[number] = _UNIFORM[PRESENT] if chunk == _UNIFORM[PRESENT] else chunk

    def mask(self, first: int, end: int) -> None:
        """Pages first..end read as zeros where they are absent, and stay what they are elsewhere."""
        for number, at, until in _by_chunk(first, end):
            chunk = self.chunks.get(number)
            if chunk is None or chunk.count(ABSENT, at, until) == until - at:
                self._mark(number, at, until, ZEROED)
            elif not isinstance(chunk, bytes):
                chunk[at:until] = chunk[at:until].translate(_MASK)

    def state(self, page: int) -> int:
        chunk = self.chunks.get(page >> CHUNK_BITS)
        return ABSENT if chunk is None else chunk[page & CHUNK - 1]

    def count(self, first: int, end: int, state: int) -> int:
        """How many of the pages first..end are in this state."""
        found = 0
        for number, at, until in _by_chunk(first, end):
            chunk = self.chunks.get(number)
            if chunk is not None:
                found += chunk.count(state, at, until)
            elif state == ABSENT:
                found += until - at
        return found

    def touches(self, offset: int, length: int) -> bool:
        """Did the client do anything to this range of bytes?"""
        first, last = offset >> PAGE_BITS, offset + length - 1 >> PAGE_BITS
        number = first >> CHUNK_BITS
        if number == last >> CHUNK_BITS:
            chunk = self.chunks.get(number)
            if chunk is None:
                return False
            if first == last:
                return chunk[first & CHUNK - 1] != ABSENT
            at, until = first & CHUNK - 1, (last & CHUNK - 1) + 1
            return chunk.count(ABSENT, at, until) != until - at
        return self.count(first, last + 1, ABSENT) != last + 1 - first

    def runs(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """The range as runs (state, start, end) in bytes, in order. Runs do not cross chunks."""
        position, stop = offset, offset + length
        last = stop - 1 >> PAGE_BITS
        while position < stop:
            page = position >> PAGE_BITS
            number, at = page >> CHUNK_BITS, page & CHUNK - 1
            chunk = self.chunks.get(number)
            if chunk is None:
                state, end = ABSENT, CHUNK
            else:
                state = chunk[at]
                if page == last:
                    yield state, position, stop
                    return
                run = _RUN.match(chunk, at, min(CHUNK, last + 1 - (number << CHUNK_BITS)))
                assert run is not None
                end = run.end()
            until = min(stop, (number << CHUNK_BITS) + end << PAGE_BITS)
            yield state, position, until
            position = until

    def touched(self) -> Iterator[tuple[int, int, int]]:
        """Runs (state, first, end) in pages of all that is not absent, in order. Runs do not cross chunks."""
        for number in sorted(self.chunks):
            for state, start, end in self.runs(number << CHUNK_BITS + PAGE_BITS, CHUNK << PAGE_BITS):
                if state != ABSENT:
                    yield state, start >> PAGE_BITS, end >> PAGE_BITS


def _by_chunk(first: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Pages first..end as (chunk, first and end within it)."""
    while first < end:
        number, at = first >> CHUNK_BITS, first & CHUNK - 1
        until = min(CHUNK, at + end - first)
        yield number, at, until
        first += until - at
