"""The log of a VHDX file, replayed in memory: the file as it would be after its writer had recovered it.

Source: [MS-VHDX] v20180912, section 2.3. The log is a ring of 4 KiB pages. Whoever changes BAT, metadata, region tables
or sector bitmaps first writes an **entry** with the new bytes into the log, and then the bytes to their place; so after
a crash the places may hold anything, and the log is what is true.

    entry        "loge", CRC-32C over all of it, length, tail, sequence number, log GUID, sizes of the file; then
      descriptors  32 bytes each: "zero" (so many bytes at an offset are zeros) or "desc" (a page at an offset)
      data pages   one per "desc": "data", sequence number's upper half, 4084 bytes, its lower half. The 8 bytes that
                   the first two displace, and the 4 of the last, stand in the descriptor

Entries with numbers that follow on one another are a **sequence**; it is whole if the tail that its last entry names is
where one of them begins. The whole sequence with the highest number is the active one, and what is replayed, from that
tail on. An entry with a wrong checksum was torn and ends a sequence: what it would have changed has not been written.

How it works here. The file is never written. `replay` reads the log and yields a `Replayed`: intervals of the file that
are not what the file holds there, each with the place in the log where its bytes do stand (8, 4084 and 4 of them for a
page), or zeros. Structures are parsed through it (`Replayed.pread`); and where an entry changes a block of the disk,
the map leads to the log itself (`ReplayedMap`). Nothing of a log is kept in memory but these intervals.

A file may be shorter than the last entry says that it will be: what is missing reads as zeros.

A log that is named, and holds no whole sequence, has nothing to be replayed. The specification calls such a file
corrupt; but QEMU names a log before it writes the first entry, and leaves such files when it is stopped between the two
(recorded at every write of its: the disk is whole then, as nothing is changed before its entry is safe).

Deliberately not here: writing, and logs that change the headers or the log itself, which no writer makes.
"""

from __future__ import annotations

import struct
import uuid
from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

from bootlink_disks.blocks import DAMAGED
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import Kind, Map, Pread, Run
from bootlink_disks.vhdx_header import HEADER_SIZE, HEADERS_AT, MIB, NIL, Region, is_sealed, require_place

PAGE: Final = 4096

MAX_LOG: Final = 16 * MIB
"""Bytes of a log that is replayed. Hyper-V and QEMU make logs of 1 MiB; it is read whole, once."""

MAX_CHANGES: Final = 16_384
"""Descriptors that are replayed: 64 MiB of changed pages, more than fit into MAX_LOG. A forged log could name half a
million ranges of zeros."""

CHECKED: Final = 4
"""Times the length of the log that is checksummed at most. A forged log could have an entry of the log's length begin
at each page; in a real one what is not an entry ends after one look."""

_AFTER_HEADERS: Final = HEADERS_AT[1] + HEADER_SIZE
_ENTRY = struct.Struct("<4sIIIQI4x16sQQ")
_DESCRIPTOR = struct.Struct("<4s4sQQQ")  # signature, trailing bytes, leading bytes or length of zeros, offset, sequence
_IN_HEADER_PAGE: Final = (PAGE - _ENTRY.size) // _DESCRIPTOR.size
_ZEROS: Final = -1  # the source of an interval that is zeros


class Change(NamedTuple):
    start: int  # bytes in the file
    stop: int
    source: int  # where in the file the bytes stand, or _ZEROS


class Entry(NamedTuple):
    at: int  # bytes from the start of the log
    length: int
    sequence: int
    tail: int
    flushed: int  # bytes that the file had, safely, when the entry was written
    last: int  # bytes that the file will have
    changes: list[Change]


class Replayed:
    """A file with its log replayed. `size` may be more than the file's."""

    __slots__ = ("_pread", "_sources", "_starts", "_stops", "entries", "file_size", "size")

    def __init__(self, pread: Pread, file_size: int, size: int) -> None:
        self._pread = pread
        self.file_size = file_size
        self.size = max(file_size, size)
        self.entries = 0  # of the log, that were replayed
        self._starts: list[int] = []  # of intervals that differ from the file, sorted and apart
        self._stops: list[int] = []
        self._sources: list[int] = []

    def apply(self, change: Change) -> None:
        """A later change covers what earlier ones said of the same bytes."""
        low, high = bisect_right(self._stops, change.start), bisect_left(self._starts, change.stop)
        parts = [change]
        if low < high:
            start, source = self._starts[low], self._sources[low]
            if start < change.start:
                parts.insert(0, Change(start, change.start, source))
            start, stop, source = self._starts[high - 1], self._stops[high - 1], self._sources[high - 1]
            if stop > change.stop:
                kept = source if source == _ZEROS else source + change.stop - start
                parts.append(Change(change.stop, stop, kept))
        self._starts[low:high] = [part.start for part in parts]
        self._stops[low:high] = [part.stop for part in parts]
        self._sources[low:high] = [part.source for part in parts]

    def runs(self, offset: int, length: int) -> list[Run]:
        """Where the bytes [offset, offset + length) of the replayed file stand in the file: DATA or ZERO."""
        end = offset + length
        runs: list[Run] = []
        index = bisect_right(self._stops, offset)
        while offset < end:
            if index < len(self._starts) and self._starts[index] <= offset:
                stop, source = min(end, self._stops[index]), self._sources[index]
                if source == _ZEROS:
                    runs.append(Run(Kind.ZERO, 0, stop - offset))
                else:
                    runs.append(Run(Kind.DATA, source + offset - self._starts[index], stop - offset))
                index += 1
            else:
                stop = min(end, self._starts[index]) if index < len(self._starts) else end
                inside = max(0, min(stop, self.file_size) - offset)
                if inside:
                    runs.append(Run(Kind.DATA, offset, inside))
                if offset + inside < stop:
                    runs.append(Run(Kind.ZERO, 0, stop - offset - inside))
            offset = stop
        return runs

    def pread(self, offset: int, length: int) -> bytes:
        """As the file's own, with the log replayed: fewer bytes only at the end."""
        length = min(length, self.size - offset)
        if length <= 0:  # an offset that a file states may be too large for any system call
            return b""
        if not self._starts and self.size == self.file_size:
            return self._pread(offset, length)
        return b"".join(
            self._pread(run.file_offset, run.length) if run.kind is Kind.DATA else bytes(run.length)
            for run in self.runs(offset, length)
        )


class ReplayedMap:
    """A map into a replayed file, made one into the file itself."""

    __slots__ = ("_file", "_inner", "size")

    def __init__(self, inner: Map, file: Replayed) -> None:
        self._inner = inner
        self._file = file
        self.size = inner.size

    def locate(self, offset: int, length: int) -> list[Run]:
        runs: list[Run] = []
        for run in self._inner.locate(offset, length):
            runs += self._file.runs(run.file_offset, run.length) if run.kind is Kind.DATA else [run]
        return runs


def replay(pread: Pread, file_size: int, region: Region, guid: uuid.UUID) -> Replayed:
    """The file with the log in `region`, named by `guid`, replayed. DiskError if it cannot be.

    With the nil GUID the log is empty, and the file is as it is.
    """
    if guid == NIL:
        return Replayed(pread, file_size, file_size)
    require_place("its log", region)
    if region.length > MAX_LOG:
        raise DiskError(
            f"the VHDX was not closed well, and its log of {region.length} bytes is too large to be replayed here",
            "attach it once on a Windows machine, or repair a copy: qemu-img check -r all FILE",
        )
    if region.end > file_size:
        raise DiskError("its log lies past the end of the file", DAMAGED)
    log = _Log(pread(region.offset, region.length), region.offset, guid)
    sequence = _active(log)
    if not sequence:
        return Replayed(pread, file_size, file_size)
    head = sequence[-1]
    flushed = max(entry.flushed for entry in sequence)
    if file_size < flushed:
        raise DiskError(
            f"the file has {file_size} bytes, and by its log it had {flushed}",
            "it is cut short; copy it again from where it came",
        )
    changes = [change for entry in sequence for change in entry.changes]
    if len(changes) > 3 * MAX_CHANGES:
        raise DiskError(f"its log makes more than {MAX_CHANGES} changes", DAMAGED)
    file = Replayed(pread, file_size, max([head.last, *(change.stop for change in changes)]))
    for change in changes:
        if change.start < _AFTER_HEADERS or (change.start < region.end and change.stop > region.offset):
            raise DiskError(f"its log would change byte {change.start}, of the headers or of itself", DAMAGED)
        file.apply(change)
    file.entries = len(sequence)
    return file


def _active(log: _Log) -> list[Entry]:
    """The entries to be replayed, in order; none if no sequence is whole."""
    best: list[Entry] = []
    at = 0
    while at < log.length:
        sequence: list[Entry] = []
        length = 0
        while (entry := log.entry((at + length) % log.length)) is not None:
            length += entry.length
            if length > log.length or (sequence and entry.sequence != sequence[-1].sequence + 1):
                length -= entry.length
                break
            sequence.append(entry)
        if sequence and (not best or sequence[-1].sequence > best[-1].sequence):
            begins = next((index for index, entry in enumerate(sequence) if entry.at == sequence[-1].tail), None)
            if begins is not None:
                best = sequence[begins:]
        # What begins inside an entry is that entry's data. (A sequence that goes around the end is met twice: here
        # without its beginning, as not whole, and later from there.)
        at += length or PAGE
    return best


class _Log:
    """The bytes of a log, and the entries that begin in it."""

    def __init__(self, data: bytes, offset: int, guid: uuid.UUID) -> None:
        self.length = len(data)
        self._data = data
        self._offset = offset  # of the log in the file
        self._guid = guid.bytes_le
        self._found: dict[int, Entry | None] = {}
        self._left = CHECKED * len(data)

    def entry(self, at: int) -> Entry | None:
        """The entry that begins at a page of the log; None if none does, or it is torn. Each is looked at once."""
        if at not in self._found:
            self._found[at] = self._parse(at)
        return self._found[at]

    def _parse(self, at: int) -> Entry | None:
        sign, _, length, tail, sequence, count, guid, flushed, last = _ENTRY.unpack_from(self._data, at)
        if sign != b"loge" or guid != self._guid or not sequence:
            return None
        pages = 1 + -(-max(0, count - _IN_HEADER_PAGE) // (PAGE // _DESCRIPTOR.size))
        if length % PAGE or not pages * PAGE <= length <= self.length or tail % PAGE or tail >= self.length:
            return None
        self._left -= length
        if self._left < 0:
            raise DiskError("its log has entries within entries", DAMAGED)
        data = self._data[at : at + length]
        data += self._data[: length - len(data)]  # around the end of the ring
        if not is_sealed(data):
            return None
        if count > MAX_CHANGES:
            raise DiskError(f"an entry of its log makes {count} changes; the limit is {MAX_CHANGES}", DAMAGED)
        changes = self._changes(data, at, count, pages, sequence)
        return None if changes is None else Entry(at, length, sequence, tail, flushed, last, changes)

    def _changes(self, data: bytes, at: int, count: int, pages: int, sequence: int) -> list[Change] | None:
        """What an entry changes; None if a descriptor or a data page is none of this entry's."""
        changes: list[Change] = []
        page = pages * PAGE  # where the next data page is, from the entry's start
        for place in range(_ENTRY.size, _ENTRY.size + count * _DESCRIPTOR.size, _DESCRIPTOR.size):
            sign, _, zeros, target, number = _DESCRIPTOR.unpack_from(data, place)
            if number != sequence or target % PAGE:
                return None
            if sign == b"zero":
                if zeros % PAGE:
                    return None
                if zeros:
                    changes.append(Change(target, target + zeros, _ZEROS))
            elif sign == b"desc":
                body = data[page : page + PAGE]
                high, low = sequence >> 32, sequence & 0xFFFF_FFFF
                if len(body) != PAGE or body[:8] != b"data" + high.to_bytes(4, "little"):
                    return None
                if body[-4:] != low.to_bytes(4, "little"):
                    return None
                descriptor, content = self._in_file(at + place), self._in_file(at + page)
                changes += (
                    Change(target, target + 8, descriptor + 8),
                    Change(target + 8, target + PAGE - 4, content + 8),
                    Change(target + PAGE - 4, target + PAGE, descriptor + 4),
                )
                page += PAGE
            else:
                return None
        return changes

    def _in_file(self, at: int) -> int:
        """The offset in the file of a place in the ring."""
        return self._offset + at % self.length
