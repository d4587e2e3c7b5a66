"""The log of a VHDX, replayed in memory: what counts in it, and what its entries change."""

from __future__ import annotations

import random
import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_disks import DiskError, Kind, vhdx
from bootlink_disks.layer import Structure
from bootlink_disks.vhdx_header import Region
from bootlink_disks.vhdx_log import MAX_CHANGES, Change, Replayed, replay
from lab.disks import MIB, pread_of
from lab.vhdx import FULL, LOG, PAGE, Vhdx, log_entry

BAT_AT, BLOCK_AT = 3 * MIB, 4 * MIB  # of the files that are made here
PAGES = [random.Random(seed).randbytes(PAGE) for seed in range(4)]


def dirty(log: bytes, *, cut: int = 0, **fields: object) -> bytes:
    """A VHDX with one block, and this log."""
    file = Vhdx(2 * MIB, {0: (FULL, b"a" * MIB)}, log=log, log_guid=LOG)
    data = bytes(file)
    return data[: len(data) - cut]


def parsed(data: bytes) -> Structure:
    return vhdx.parse(pread_of(data), len(data))


def disk_of(data: bytes) -> bytes:
    """The whole disk, by its map."""
    disk = parsed(data).map
    return b"".join(
        data[run.file_offset : run.file_offset + run.length] if run.kind is Kind.DATA else bytes(run.length)
        for run in disk.locate(0, disk.size)
    )


def table_page(*entries: int) -> bytes:
    return struct.pack(f"<{len(entries)}Q", *entries).ljust(PAGE, b"\0")


def test_an_entry_changes_the_table_that_the_disk_is_read_by() -> None:
    data = dirty(log_entry(1, [(BAT_AT, table_page(0, BLOCK_AT | FULL))], flushed=5 * MIB, last=5 * MIB))
    structure = parsed(data)
    assert disk_of(data) == bytes(MIB) + b"a" * MIB
    assert structure.notes == ("it was not closed well; its log is replayed in memory whenever it is opened",)


def test_an_entry_may_change_blocks_of_the_disk_which_are_then_read_from_the_log_itself() -> None:
    log = log_entry(1, [(BLOCK_AT + PAGE, PAGES[0])], [(BLOCK_AT + 4 * PAGE, 2 * PAGE)])
    expected = bytearray(b"a" * MIB)
    expected[PAGE : 2 * PAGE] = PAGES[0]
    expected[4 * PAGE : 6 * PAGE] = bytes(2 * PAGE)
    assert disk_of(dirty(log)) == expected + bytes(MIB)


def test_later_entries_cover_earlier_ones() -> None:
    first = log_entry(7, [(BLOCK_AT, PAGES[0]), (BLOCK_AT + PAGE, PAGES[1])], [(BLOCK_AT + 2 * PAGE, 9 * PAGE)])
    second = log_entry(8, [(BLOCK_AT + PAGE, PAGES[2]), (BLOCK_AT + 5 * PAGE, PAGES[3])])
    expected = bytearray(PAGES[0] + PAGES[2] + bytes(3 * PAGE) + PAGES[3] + bytes(5 * PAGE) + b"a" * (MIB - 11 * PAGE))
    assert disk_of(dirty(first + second)) == expected + bytes(MIB)


def test_the_whole_sequence_with_the_highest_number_counts_from_its_tail_on() -> None:
    old = log_entry(3, [(BLOCK_AT, PAGES[0])])
    before = log_entry(20, [(BLOCK_AT + PAGE, PAGES[1])], tail=len(old))
    tail = len(old) + len(before)
    new = log_entry(21, [(BLOCK_AT + 2 * PAGE, PAGES[2])], tail=tail)
    data = disk_of(dirty(old + before + new))
    assert data[: 3 * PAGE] == b"a" * 2 * PAGE + PAGES[2], "what comes before the tail is in its place already"


def test_a_sequence_goes_around_the_end_of_the_ring() -> None:
    first = log_entry(1, [(BLOCK_AT, PAGES[0])], tail=MIB - 3 * PAGE)
    second = log_entry(2, [(BLOCK_AT + PAGE, PAGES[1])], tail=MIB - 3 * PAGE)
    assert (len(first), len(second)) == (2 * PAGE, 2 * PAGE)
    ring = bytearray(MIB)
    ring[-3 * PAGE :] = (first + second)[: 3 * PAGE]
    ring[:PAGE] = second[PAGE:]
    assert disk_of(dirty(bytes(ring)))[: 2 * PAGE] == PAGES[0] + PAGES[1]


@pytest.mark.parametrize("at", [3, 4, 8, 16, 24, 40, 64, 70, 90, PAGE, PAGE + 100, 2 * PAGE - 1])
def test_a_torn_entry_ends_the_log_before_it(at: int) -> None:
    whole, torn = log_entry(1, [(BLOCK_AT, PAGES[0])]), bytearray(log_entry(2, [(BLOCK_AT, PAGES[1])]))
    torn[at] ^= 1
    assert disk_of(dirty(whole + torn))[:PAGE] == PAGES[0]


def test_entries_under_another_guid_or_with_a_gap_in_their_numbers_do_not_count() -> None:
    whole = log_entry(1, [(BLOCK_AT, PAGES[0])])
    stale = log_entry(2, [(BLOCK_AT, PAGES[1])], guid=uuid.UUID(int=5))
    assert disk_of(dirty(whole + stale))[:PAGE] == PAGES[0]
    late = log_entry(3, [(BLOCK_AT, PAGES[1])], tail=0)
    assert disk_of(dirty(whole + late))[:PAGE] == PAGES[0], "the one that its tail names does not lead to it"


def test_a_log_that_was_named_before_its_first_entry_was_written_changes_nothing() -> None:
    for log in (b"", log_entry(2, [(BLOCK_AT, PAGES[1])])[:-512]):
        data = dirty(log)
        assert disk_of(data) == b"a" * MIB + bytes(MIB)
        assert parsed(data).notes == ("it was not closed well; its log holds nothing to be replayed",)


def test_a_file_that_was_to_grow_reads_as_zeros_where_it_did_not() -> None:
    entries = table_page(BLOCK_AT | FULL, 5 * MIB | FULL)
    data = dirty(log_entry(1, [(BAT_AT, entries)], flushed=5 * MIB, last=6 * MIB))
    assert disk_of(data) == b"a" * MIB + bytes(MIB)
    with pytest.raises(DiskError, match="but the data ends at"):
        parsed(dirty(log_entry(1, [(BAT_AT, entries)], flushed=5 * MIB, last=5 * MIB)))


def test_a_file_that_lost_its_end_after_the_log_was_written_is_refused() -> None:
    with pytest.raises(DiskError, match="by its log it had"):
        parsed(dirty(log_entry(1, [(BAT_AT, table_page())], flushed=5 * MIB, last=5 * MIB), cut=PAGE))


@pytest.mark.parametrize("target", [0, 64 << 10, 128 << 10, MIB, 2 * MIB - PAGE])
def test_a_log_that_would_change_the_headers_or_itself_is_refused(target: int) -> None:
    with pytest.raises(DiskError, match="of the headers or of itself"):
        parsed(dirty(log_entry(1, [(target, PAGES[0])])))


def test_an_entry_with_many_descriptors_has_its_data_behind_them() -> None:
    pages = [(BLOCK_AT + PAGE * index, bytes([index & 255]) * PAGE) for index in range(200)]
    entry = log_entry(1, pages)
    assert len(entry) == 202 * PAGE, "126 descriptors in the first page, 74 in the second"
    assert disk_of(dirty(entry))[: 200 * PAGE] == b"".join(data for _, data in pages)


def test_a_forged_log_costs_little() -> None:
    zeros = [(BLOCK_AT, PAGE)] * (MAX_CHANGES + 1)
    with pytest.raises(DiskError, match="makes 16385 changes"):
        parsed(dirty(log_entry(1, (), zeros)))
    huge = log_entry(1, (), [(BLOCK_AT, 1 << 62)])
    assert disk_of(dirty(huge))[:MIB] == bytes(MIB)
    nested = bytearray(MIB)
    head = log_entry(1, [(BLOCK_AT, PAGES[0])])[:128]
    for at in range(0, MIB, PAGE):
        nested[at : at + 128] = head
        struct.pack_into("<I", nested, at + 8, MIB)
    with pytest.raises(DiskError, match="entries within entries"):
        parsed(dirty(bytes(nested)))


def test_a_log_too_large_to_be_replayed_is_refused_with_a_way_out() -> None:
    with pytest.raises(DiskError, match="too large to be replayed") as caught:
        replay(pread_of(bytes(64 * MIB)), 64 * MIB, Region(MIB, 32 * MIB), LOG)
    assert "qemu-img check -r all" in caught.value.remedy


RANGES = st.tuples(st.integers(0, 60), st.integers(1, 30), st.integers(-1, 60))


@given(st.lists(RANGES, max_size=12), st.integers(40, 90))
def test_changes_read_as_if_they_had_been_written(ranges: list[tuple[int, int, int]], size: int) -> None:
    data = random.Random(size).randbytes(64)
    file = Replayed(pread_of(data), len(data), size)
    model = bytearray(data.ljust(max(size, 64), b"\0"))
    for start, length, source in ranges:
        stop = min(start + length, file.size)
        source = min(source, 64 - length)  # the log lies within the file
        file.apply(Change(start, stop, source if source >= 0 else -1))
        model[start:stop] = data[source : source + stop - start] if source >= 0 else bytes(stop - start)
    assert file.pread(0, 200) == model
    for offset in range(0, file.size, 7):
        assert file.pread(offset, 13) == model[offset : offset + 13]
        assert all(run.length > 0 for run in file.runs(offset, 13))
