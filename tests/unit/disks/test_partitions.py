"""Partition tables: which count, and which are not believed."""

from __future__ import annotations

import struct
import zlib

import pytest

from bootlink_disks import DiskError
from bootlink_disks.partitions import Partition, partitions
from lab.disks import pread_of

SECTORS = 4096


def mbr(*entries: tuple[int, int, int]) -> bytearray:
    """A sector with a table of (type, first sector, sectors)."""
    sector = bytearray(512)
    for number, (kind, start, count) in enumerate(entries):
        struct.pack_into("<B3sB3sII", sector, 446 + 16 * number, 0, b"", kind, b"", start, count)
    sector[510:] = b"\x55\xaa"
    return sector


def disk(*parts: tuple[int, bytes | bytearray], sectors: int = SECTORS) -> bytearray:
    data = bytearray(sectors * 512)
    for sector, part in parts:
        data[sector * 512 : sector * 512 + len(part)] = part
    return data


def gpt(entries: list[tuple[int, int]], *, here: int = 1, there: int = SECTORS - 1, at: int = 2) -> tuple[bytes, bytes]:
    """A header and 128 entries of (first sector, last sector)."""
    table = b"".join(struct.pack("<16s16sQQ80x", b"k" * 16, b"i" * 16, *one) for one in entries).ljust(128 * 128, b"\0")
    fields = (b"EFI PART", 0x10000, 92, 0, 0, here, there, 34, SECTORS - 34, b"g" * 16, at, 128, 128, zlib.crc32(table))
    header = struct.pack("<8sIIIIQQQQ16sQIII", *fields)
    return header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:], table


def found(data: bytearray) -> list[Partition]:
    return partitions(pread_of(data), len(data))


def test_a_disk_without_a_table_is_one_partition() -> None:
    assert found(disk()) == [Partition(0, SECTORS * 512)]
    assert found(disk(sectors=1)) == [Partition(0, 512)]
    assert found(disk((0, mbr()))) == [Partition(0, SECTORS * 512)]


def test_a_file_systems_own_boot_sector_is_no_table() -> None:
    sector = mbr((7, 10, 10))
    sector[3:11] = b"NTFS    "
    assert found(disk((0, sector))) == [Partition(0, SECTORS * 512)]
    sector = mbr((0x6F, 0x72206E65, 0x6F727265))  # text of a boot sector
    sector[446] = 0x20
    assert found(disk((0, sector))) == [Partition(0, SECTORS * 512)]


def test_primary_and_logical_partitions_come_in_disk_order() -> None:
    data = disk(
        (0, mbr((7, 2000, 50), (0x83, 10, 90), (0x0F, 1000, 500))),
        (1000, mbr((0x83, 10, 40), (5, 100, 60))),
        (1100, mbr((0x83, 10, 20))),
    )
    places = [(part.offset // 512, part.length // 512) for part in found(data)]
    assert places == [(10, 90), (1010, 40), (1110, 20), (2000, 50)]


def test_a_chain_of_logical_partitions_that_goes_back_ends() -> None:
    data = disk((0, mbr((5, 1000, 500))), (1000, mbr((0x83, 10, 40), (5, 100, 60))), (1100, mbr((0, 0, 0), (5, 1, 9))))
    assert [part.offset // 512 for part in found(data)] == [1010]


def test_a_gpt_counts_before_its_protective_mbr() -> None:
    header, table = gpt([(40, 99), (2000, 2999)])
    data = disk((0, mbr((0xEE, 1, SECTORS - 1))), (1, header), (2, table))
    assert found(data) == [Partition(40 * 512, 60 * 512), Partition(2000 * 512, 1000 * 512)]


def test_the_gpt_at_the_end_takes_the_place_of_a_damaged_one() -> None:
    header, table = gpt([(40, 99)])
    last, same = gpt([(40, 99)], here=SECTORS - 1, there=1, at=SECTORS - 33)
    data = disk((1, header), (2, table), (SECTORS - 33, same), (SECTORS - 1, last))
    data[2 * 512] ^= 1
    assert found(data) == [Partition(40 * 512, 60 * 512)]
    data[-512 + 20] ^= 1
    with pytest.raises(DiskError, match="both its partition tables"):
        found(data)


def test_a_disk_that_is_shorter_than_its_table_says_is_not_believed() -> None:
    header, table = gpt([(40, 99)])
    with pytest.raises(DiskError, match="is for a disk of 2097152 bytes"):
        found(disk((1, header), (2, table), sectors=SECTORS // 2))
    with pytest.raises(DiskError, match="reaches past the end"):
        found(disk((0, mbr((7, 100, SECTORS)))))


def test_partitions_over_each_other_are_not_believed() -> None:
    with pytest.raises(DiskError, match="lie over each other"):
        found(disk((0, mbr((7, 100, 100), (7, 150, 100)))))
