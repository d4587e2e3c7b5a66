"""Free space of file systems that are broken in any way: a list of ranges within the disk, or a note; never anything
else, and in bounded time. Disks are made by the systems' own tools; then a few bytes of their structures change."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from bootlink_disks import free_space
from bootlink_disks.layer import Pread
from lab.disks import MIB
from lab.file_systems import Kind, disk_of, file_system

COUNT = 250
SECONDS = 5.0  # of computing, for a disk of 9 MiB; it takes some milliseconds
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, (1 << 31) - 1, (1 << 32) - 1, 1 << 40, (1 << 64) - 1)


def within(data: bytearray, size: int) -> Pread:
    """Reads of the first `size` bytes, and of no other."""

    def read(offset: int, length: int) -> bytes:
        assert 0 <= offset <= size, offset
        assert 0 < length <= size - offset, (offset, length)
        return bytes(data[offset : offset + length])

    return read


@pytest.mark.parametrize("kind", ["ntfs", "ext4", "ext2 of 1 KiB"])
def test_a_broken_file_system_is_a_note_and_never_a_failure(kind: Kind, tmp_path: Path) -> None:
    part = file_system(tmp_path / "part", kind, {"keep": b"x" * 100_000}, 6 * MIB)
    (start,) = disk_of(tmp_path / "disk.img", [part], "gpt")
    sound = (tmp_path / "disk.img").read_bytes()
    mft = start + 4 * 4096
    places = [0, 446, 512, 1024, start, start + 11, start + 40, start + 1024, start + 2048, start + 4096]
    places += [mft, mft + 2048, mft + 3072, mft + 6 * 1024, mft + 6 * 1024 + 64, mft + 6 * 1024 + 256]
    outcomes = set()
    for number in range(COUNT):
        rng = random.Random(f"{kind}/{number}")
        data = bytearray(sound)
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.choice(places) + rng.randrange(rng.choice((16, 64, 512)))
            size = rng.choice((1, 2, 4, 8))
            value = rng.choice((*EDGES, rng.getrandbits(64)))
            data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        size = len(data) if rng.random() < 0.8 else rng.randrange(1, len(data) // 512) * 512
        begun = time.process_time()
        space = free_space.find(within(data, size), size)
        end = 0
        for low, high in space.within(0, size):
            assert end <= low < high <= size, number
            end = high
        assert time.process_time() - begun < SECONDS, number
        assert all(note.isprintable() and len(note) < 1000 for note in space.notes), number
        outcomes.add((bool(end), bool(space.notes)))
    assert outcomes == {(True, False), (False, True), (False, False)}
