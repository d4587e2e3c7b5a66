"""The map of a VHDX, on bytes in memory: what each state of a block reads as, and where the table has it."""

from __future__ import annotations

import random

import pytest

from bootlink_disks import DiskError, Kind, Run, vhdx, vhdx_metadata
from bootlink_disks.layer import Structure
from lab.disks import MIB, pread_of
from lab.vhdx import BLOCKS_AT, DATA_WRITE, FULL, PART, RATIO, UNDEFINED, UNMAPPED, ZERO, Vhdx, locator

PARENT = locator(DATA_WRITE, "gold.vhdx")


def parsed(file: Vhdx) -> Structure:
    data = bytes(file)
    parse = vhdx.parse if file.parent is None else vhdx.parse_differencing
    assert vhdx.has_parent(pread_of(data), len(data)) == (file.parent is not None)
    return parse(pread_of(data), len(data))


def test_a_block_is_found_wherever_the_table_puts_it() -> None:
    structure = parsed(Vhdx(8 * MIB, {6: (FULL, b""), 2: (FULL, b"")}))
    assert structure.format == "vhdx"
    assert (structure.map.size, structure.block_size, structure.stored) == (8 * MIB, MIB, 2 * MIB)
    assert (structure.uuid, structure.creator, structure.parent) == (DATA_WRITE, "bootlink test", None)
    assert structure.map.locate(6 * MIB + 512, 1024) == [Run(Kind.DATA, BLOCKS_AT * MIB + 512, 1024)]
    assert structure.map.locate(MIB, 3 * MIB) == [
        Run(Kind.ZERO, 0, MIB),
        Run(Kind.DATA, (BLOCKS_AT + 1) * MIB, MIB),
        Run(Kind.ZERO, 0, MIB),
    ]


@pytest.mark.parametrize("state", [0, ZERO, UNMAPPED, UNDEFINED])
def test_a_block_that_is_not_in_the_file_of_a_whole_disk_is_zeros(state: int) -> None:
    assert parsed(Vhdx(2 * MIB, {0: (state, b"")})).map.locate(0, 2 * MIB) == [Run(Kind.ZERO, 0, 2 * MIB)]


@pytest.mark.parametrize(
    ("state", "kind"), [(0, Kind.ABSENT), (ZERO, Kind.ZERO), (UNMAPPED, Kind.ZERO), (UNDEFINED, Kind.ZERO)]
)
def test_what_a_client_gave_back_hides_the_parent_and_what_it_never_wrote_does_not(state: int, kind: Kind) -> None:
    structure = parsed(Vhdx(2 * MIB, {0: (state, b"")}, parent=PARENT))
    assert structure.map.locate(0, MIB) == [Run(kind, 0, MIB)]
    assert structure.map.locate(MIB, MIB) == [Run(Kind.ABSENT, 0, MIB)]
    assert structure.parent is not None
    assert structure.parent.ids == (DATA_WRITE,)


def test_a_block_that_is_there_in_part_is_told_sector_by_sector() -> None:
    bits = 0b1_0000_0000_1110
    structure = parsed(Vhdx(2 * MIB, {1: (PART, b""), 0: (FULL, b"")}, parent=PARENT, bits={1: bits}))
    assert structure.format == "vhdx-differencing"
    at = BLOCKS_AT * MIB
    assert structure.map.locate(MIB, MIB) == [
        Run(Kind.ABSENT, 0, 512),
        Run(Kind.DATA, at + 512, 3 * 512),
        Run(Kind.ABSENT, 0, 8 * 512),
        Run(Kind.DATA, at + 12 * 512, 512),
        Run(Kind.ABSENT, 0, MIB - 13 * 512),
    ]
    assert structure.stored == MIB + 4 * 512


def test_bits_are_read_right_wherever_a_look_up_begins_and_ends() -> None:
    rng = random.Random(1)
    bits = {0: rng.getrandbits(2048), 1: (1 << 2048) - 1, 2: 0, 3: rng.getrandbits(2048)}
    file = Vhdx(4 * MIB - 512, dict.fromkeys(bits, (PART, b"")), parent=PARENT, bits=bits)
    disk = parsed(file).map
    for _ in range(300):
        offset = rng.randrange(disk.size)
        end = min(disk.size, offset + rng.choice([1, 700, 32 << 10, 3 * MIB]))
        at = offset
        for kind, place, length in disk.locate(offset, end - offset):
            for byte in (at, at + length - 1, *range(-(-at // 512) * 512, at + length, 512)):
                block, within = divmod(byte, MIB)
                assert (kind is Kind.DATA) == bool(bits[block] >> within // 512 & 1)
                assert kind is not Kind.DATA or place + byte - at == (BLOCKS_AT + block) * MIB + within
            at += length
        assert at == end


def test_the_table_has_a_bitmap_entry_after_each_chunk() -> None:
    blocks = {RATIO - 1: (FULL, b""), RATIO: (FULL, b""), RATIO + 5: (PART, b"")}
    whole = parsed(Vhdx((2 * RATIO) * MIB, {k: v for k, v in blocks.items() if v[0] == FULL}))
    assert whole.map.locate((RATIO - 1) * MIB, MIB)[0] == Run(Kind.DATA, BLOCKS_AT * MIB, MIB)
    assert whole.map.locate(RATIO * MIB, MIB)[0] == Run(Kind.DATA, (BLOCKS_AT + 1) * MIB, MIB)
    child = parsed(Vhdx((2 * RATIO) * MIB, blocks, parent=PARENT, bits={RATIO + 5: 1}))
    assert child.map.locate((RATIO + 5) * MIB, 1024) == [
        Run(Kind.DATA, (BLOCKS_AT + 2) * MIB, 512),
        Run(Kind.ABSENT, 0, 512),
    ]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (Vhdx(sector=4096), "4096-byte sectors"),
        (Vhdx(sector=1024), "sectors of 1024 bytes"),
        (Vhdx(block_size=0), "block size is 0"),
        (Vhdx(block_size=MIB + 1), "block size is 1048577"),
        (Vhdx(block_size=512 * MIB), "block size is"),
        (Vhdx(size=MIB + 7), "has 1048583 bytes"),
        (Vhdx(items={vhdx_metadata.VIRTUAL_SIZE: bytes(8)}), "has 0 bytes"),
        (Vhdx(items={vhdx_metadata.VIRTUAL_SIZE: b"\xff" * 8}), "no VHDX has"),
        (Vhdx(items={vhdx_metadata.VIRTUAL_SIZE: (1 << 45).to_bytes(8, "little")}), "33554432 blocks"),
        (Vhdx(items={vhdx_metadata.VIRTUAL_SIZE: (1 << 38).to_bytes(8, "little")}), "too short"),
        (Vhdx(items={vhdx_metadata.LOGICAL_SECTOR: b"\0\2"}), "has 2 bytes at"),
        (Vhdx(items={DATA_WRITE: b"?"}), "needs the metadata"),
        (Vhdx(items={vhdx_metadata.FILE_PARAMETERS: b"\0\0\x10\0\2\0\0\0"}), "names no parent"),
        (Vhdx(blocks={0: (4, b"")}), "the state 4"),
        (Vhdx(blocks={0: (5, b"")}), "the state 5"),
        (Vhdx(blocks={0: (PART, b"")}), "the state 7"),
        (Vhdx(blocks={0: (PART, b"")}, parent=PARENT), "no sector bitmap for chunk 0"),
    ],
)
def test_a_disk_that_cannot_be_is_refused(file: Vhdx, says: str) -> None:
    data = bytes(file)
    parse = vhdx.parse if file.parent is None else vhdx.parse_differencing
    with pytest.raises(DiskError, match=says):
        parse(pread_of(data), len(data))


def test_a_disk_is_whole_or_differencing_as_it_was_when_it_was_added() -> None:
    whole, child = bytes(Vhdx()), bytes(Vhdx(parent=PARENT))
    with pytest.raises(DiskError, match="was a differencing one"):
        vhdx.parse_differencing(pread_of(whole), len(whole))
    with pytest.raises(DiskError, match="was a whole one"):
        vhdx.parse(pread_of(child), len(child))
