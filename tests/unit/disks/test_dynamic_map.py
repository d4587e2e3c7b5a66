"""The map of a dynamic VHD, on bytes in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_disks import Kind, Run, vhd, vhd_dynamic
from bootlink_disks.blocks import BlockMap
from bootlink_disks.layer import Structure
from lab.disks import MIB, dynamic_vhd, pread_of

BLOCK = 4096
SIZE = 9 * BLOCK + 512  # the last block is one sector
PLACES = [(7, b"seven" * 800), (2, b"two" * 1300), (9, b"nine" * 128), (3, b"three" * 800)]


def parsed(data: bytes | bytearray) -> Structure:
    return vhd_dynamic.parse(pread_of(data), len(data))


def contents(size: int, blocks: list[tuple[int, bytes]]) -> bytes:
    disk = bytearray(size + BLOCK)
    for number, data in blocks:
        disk[number * BLOCK : number * BLOCK + len(data)] = data
    return bytes(disk[:size])


def test_a_block_that_is_absent_reads_as_zeros_and_costs_nothing() -> None:
    structure = parsed(dynamic_vhd(SIZE, BLOCK))
    assert structure.map.locate(0, SIZE) == [Run(Kind.ZERO, 0, SIZE)]
    assert structure.stored == 0


def test_a_block_is_found_wherever_the_table_puts_it() -> None:
    data = dynamic_vhd(SIZE, BLOCK, PLACES)
    disk = parsed(data).map
    first = 1536 + 512  # footer copy, header, a table of one sector
    stride = 512 + BLOCK
    assert disk.locate(7 * BLOCK, BLOCK) == [Run(Kind.DATA, first + 512, BLOCK)]
    assert disk.locate(2 * BLOCK + 512, 1024) == [Run(Kind.DATA, first + stride + 1024, 1024)]
    assert disk.locate(BLOCK, 3 * BLOCK) == [
        Run(Kind.ZERO, 0, BLOCK),
        Run(Kind.DATA, first + stride + 512, BLOCK),
        Run(Kind.DATA, first + 3 * stride + 512, BLOCK),
    ]


@given(st.integers(0, SIZE - 1), st.integers(1, SIZE))
def test_runs_add_up_to_what_was_asked_and_lead_to_the_right_bytes(offset: int, length: int) -> None:
    length = min(length, SIZE - offset)
    data = dynamic_vhd(SIZE, BLOCK, PLACES)
    found = b""
    for kind, at, size in parsed(data).map.locate(offset, length):
        assert size > 0
        found += bytes(data[at : at + size]) if kind is Kind.DATA else bytes(size)
    assert found == contents(SIZE, PLACES)[offset : offset + length]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 0), (0, SIZE + 1), (SIZE, 1), (5, -1), (SIZE - 1, 2)])
def test_asking_outside_the_disk_is_the_callers_mistake(offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="within"):
        parsed(dynamic_vhd(SIZE, BLOCK, PLACES)).map.locate(offset, length)


def test_the_size_is_the_footers_current_size_and_not_its_geometry() -> None:
    data = dynamic_vhd(4 * MIB, BLOCK)
    footer = bytes(vhd.Footer(vhd.DYNAMIC, 4 * MIB, vhd.NO_PARENT, 512, geometry=(10, 4, 17), creator_app=b"vbox"))
    data[:512] = data[-512:] = footer
    assert parsed(data).map.size == 4 * MIB


def test_sectors_that_the_bitmap_calls_unwritten_are_read_from_the_file_all_the_same() -> None:
    data = dynamic_vhd(SIZE, BLOCK, PLACES, bitmap=lambda _block: b"\0")
    disk = parsed(data).map
    assert disk.locate(2 * BLOCK, BLOCK)[0].kind is Kind.DATA


def test_check_names_the_blocks_whose_bitmap_denies_their_data() -> None:
    sound = dynamic_vhd(
        SIZE, BLOCK, [(1, bytes(1024) + b"x" * 512), (2, b"y")], bitmap=lambda block: (b"", b"\x20", b"\x80")[block]
    )
    structure = parsed(sound)
    assert isinstance(structure.map, BlockMap)
    assert list(vhd_dynamic.check_bitmaps(pread_of(sound), structure.map)) == []
    wrong = dynamic_vhd(SIZE, BLOCK, [(1, b"x" * 2048), (2, b"y")], bitmap=lambda block: (b"", b"\x20", b"\x80")[block])
    assert list(vhd_dynamic.check_bitmaps(pread_of(wrong), structure.map)) == [
        "3 sectors of block 1 hold data, but its bitmap calls them never written"
    ]


def test_a_footer_lost_at_the_end_is_read_from_its_copy_and_told() -> None:
    data = dynamic_vhd(SIZE, BLOCK, PLACES)
    cut = parsed(data[:-512])
    killed = parsed(data[:-512] + b"\xff" * 512)  # what QEMU leaves: a new block's bitmap where the footer was
    for structure in (cut, killed):
        assert structure.map.locate(7 * BLOCK, BLOCK)[0].kind is Kind.DATA
        assert "missing" in structure.notes[0]
    assert parsed(data).notes == ()


def test_a_footer_damaged_at_the_end_is_read_from_its_copy_and_told() -> None:
    data = dynamic_vhd(SIZE, BLOCK, PLACES)
    data[-512 + 100] ^= 1
    assert "damaged" in parsed(data).notes[0]
