"""The structures of a VHD against the specification's own tables: every field at its byte."""

from __future__ import annotations

import struct
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from bootlink_disks import DiskError, create_vhd_dynamic, vhd
from lab.disks import DISK_ID, MIB, sparse_disk

GIB = 1 << 30


def test_a_footer_has_every_field_where_the_specification_puts_it() -> None:
    footer = bytes(vhd.Footer(vhd.DYNAMIC, 5 * GIB, DISK_ID, 512, timestamp=7, original_size=4 * GIB))
    assert len(footer) == 512
    assert footer[0:8] == b"conectix"
    assert struct.unpack_from(">IIQI", footer, 8) == (2, 0x00010000, 512, 7)
    assert (footer[28:32], footer[36:40]) == (b"btlk", b"Wi2k")
    assert struct.unpack_from(">QQHBBI", footer, 40) == (4 * GIB, 5 * GIB, 65535, 16, 255, 3)
    assert footer[68:84] == DISK_ID.bytes
    assert footer[84:] == bytes(428)
    assert struct.unpack_from(">I", footer, 64)[0] == ~(sum(footer[:64]) + sum(footer[68:])) & 0xFFFFFFFF


def test_a_dynamic_header_has_every_field_where_the_specification_puts_it() -> None:
    header = bytes(vhd.DynamicHeader(1536, 2560, 2 * MIB))
    assert len(header) == 1024
    assert header[0:8] == b"cxsparse"
    assert struct.unpack_from(">QQIII", header, 8) == (2**64 - 1, 1536, 0x00010000, 2560, 2 * MIB)
    assert header[40:] == bytes(984)
    assert struct.unpack_from(">I", header, 36)[0] == ~(sum(header[:36]) + sum(header[40:])) & 0xFFFFFFFF


def test_structures_survive_being_written_and_read() -> None:
    footer = vhd.Footer(vhd.FIXED, 3 * MIB, DISK_ID, original_size=MIB, geometry=(90, 4, 17), creator_app=b"win ")
    assert vhd.parse_footer(bytes(footer)) == footer
    header = vhd.DynamicHeader(1536, 77, 512 << 10, uuid.UUID(int=5), 9, "C:\\vm\\gold.vhd")
    assert vhd.parse_dynamic_header(bytes(header)) == header


@pytest.mark.parametrize(
    ("block_size", "bytes_"), [(4096, 512), (512 << 10, 512), (2 * MIB, 512), (4 * MIB, 1024), (16 * MIB, 4096)]
)
def test_a_bitmap_has_a_bit_per_sector_and_whole_sectors(block_size: int, bytes_: int) -> None:
    assert vhd.bitmap_size(block_size) == bytes_


@pytest.mark.parametrize("at", [0, 9, 50, 70, 84, 511])
def test_one_wrong_byte_in_a_footer_is_found(at: int) -> None:
    data = bytearray(bytes(vhd.Footer(vhd.FIXED, MIB, DISK_ID)))
    data[at] ^= 0x40
    with pytest.raises(DiskError, match="footer"):
        vhd.parse_footer(bytes(data))


@pytest.mark.parametrize("at", [0, 17, 33, 200, 1023])
def test_one_wrong_byte_in_a_dynamic_header_is_found(at: int) -> None:
    data = bytearray(bytes(vhd.DynamicHeader(1536, 1, 2 * MIB)))
    data[at] ^= 0x40
    with pytest.raises(DiskError, match="dynamic VHD header"):
        vhd.parse_dynamic_header(bytes(data))


def test_structures_that_are_cut_short_are_refused_at_every_length() -> None:
    footer, header = bytes(vhd.Footer(vhd.FIXED, MIB, DISK_ID)), bytes(vhd.DynamicHeader(1536, 1, 2 * MIB))
    for length in range(512):
        with pytest.raises(DiskError):
            vhd.parse_footer(footer[:length])
    for length in range(1024):
        with pytest.raises(DiskError):
            vhd.parse_dynamic_header(header[:length])


def test_trailing_bytes_after_a_structure_change_nothing() -> None:
    footer = vhd.Footer(vhd.FIXED, MIB, DISK_ID)
    assert vhd.parse_footer(bytes(footer) + b"more") == replace(footer, original_size=MIB)


@pytest.mark.parametrize(
    ("footer", "says"),
    [
        (vhd.Footer(vhd.FIXED, 0, DISK_ID), "0 bytes"),
        (vhd.Footer(vhd.FIXED, 1000, DISK_ID), "1000 bytes"),
        (vhd.Footer(vhd.FIXED, 2040 * GIB + 512, DISK_ID), "2040 GiB"),
        (vhd.Footer(6, MIB, DISK_ID), "type 6"),
    ],
)
def test_a_footer_of_a_disk_that_cannot_be_is_refused(footer: vhd.Footer, says: str) -> None:
    with pytest.raises(DiskError, match=says):
        vhd.parse_footer(bytes(footer))


def test_a_created_vhd_is_laid_out_as_the_specification_says(tmp_path: Path) -> None:
    source = sparse_disk(tmp_path / "a.img", 9 * MIB + 512, islands=0)
    info = create_vhd_dynamic(tmp_path / "a.vhd", source, unique_id=DISK_ID)
    data = (tmp_path / "a.vhd").read_bytes()
    assert data[:512] == data[-512:], "the footer and its copy are one"
    footer, header = vhd.parse_footer(data[:512]), vhd.parse_dynamic_header(data[512:1536])
    assert (footer.type, footer.current_size, footer.original_size) == (vhd.DYNAMIC, 9 * MIB + 512, 9 * MIB + 512)
    assert (footer.data_offset, footer.uuid, header.table_offset, header.entries) == (512, DISK_ID, 1536, 5)
    table = struct.unpack_from(">128I", data, 1536)  # padded to a sector
    assert [entry == 0xFFFFFFFF for entry in table] == [False, True, True, True, False] + [True] * 123
    for block in (0, 4):
        place = table[block] * 512
        assert data[place : place + 512] == b"\xff" * 512, "every sector of a block that is there counts as written"
        assert (place + 512) % 4096 == 0, "an aligned read of the disk is an aligned read of the file"
    assert len(data) == table[4] * 512 + 512 + 2 * MIB + 512, "the last block is whole, then the footer"
    assert info.stored == 4 * MIB
