"""The structures of a VHDX against the specification's own tables: every field at its byte."""

from __future__ import annotations

import struct
import uuid
from dataclasses import replace

import pytest

from bootlink_disks import DiskError
from bootlink_disks.vhdx_header import (
    BAT,
    IDENTIFIER,
    METADATA,
    MIB,
    NIL,
    Header,
    Region,
    current_header,
    parse_creator,
    parse_header,
    parse_regions,
    region_table,
    sealed,
)
from bootlink_disks.vhdx_metadata import LOCATOR_TYPE, parse_locator
from lab.vhdx import DATA_WRITE, LOG, locator

HEADER = Header(7, LOG, DATA_WRITE, NIL, Region(3 * MIB, 2 * MIB))
REGIONS = {BAT: Region(4 * MIB, MIB), METADATA: Region(2 * MIB, MIB)}


def crc32c(data: bytes) -> int:
    """By the polynomial's definition, bit by bit: an independent judge of the library's."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def test_a_header_has_every_field_where_the_specification_puts_it() -> None:
    data = bytes(HEADER)
    assert len(data) == 4096
    assert data[:4] == b"head"
    assert struct.unpack_from("<I", data, 4)[0] == crc32c(data[:4] + bytes(4) + data[8:])
    assert struct.unpack_from("<Q", data, 8)[0] == 7
    assert (data[16:32], data[32:48], data[48:64]) == (LOG.bytes_le, DATA_WRITE.bytes_le, bytes(16))
    assert struct.unpack_from("<HHIQ", data, 64) == (0, 1, 2 * MIB, 3 * MIB)
    assert data[80:] == bytes(4016)
    assert parse_header(data) == HEADER


@pytest.mark.parametrize("at", [0, 5, 9, 40, 60, 70, 79, 4095])
def test_a_header_with_one_wrong_byte_is_none(at: int) -> None:
    data = bytearray(bytes(HEADER))
    data[at] ^= 0x20
    assert parse_header(bytes(data)) is None
    assert parse_header(bytes(HEADER)[:-1]) is None


def test_the_header_with_the_higher_number_counts_and_a_damaged_one_does_not() -> None:
    old, new = bytes(HEADER), bytes(replace(HEADER, sequence=8, log_guid=LOG))
    assert current_header(old, new)[0].sequence == current_header(new, old)[0].sequence == 8
    header, notes = current_header(old, new[:-1] + b"x")
    assert header == HEADER
    assert "damaged" in notes[0]
    assert current_header(old, old) == (HEADER, ())
    with pytest.raises(DiskError, match="both its VHDX headers"):
        current_header(bytes(4096), bytes(4096))
    with pytest.raises(DiskError, match="one sequence number and differ"):
        current_header(old, bytes(replace(HEADER, log_guid=LOG)))


@pytest.mark.parametrize("at", [64, 66])
def test_a_header_of_an_unknown_version_is_refused(at: int) -> None:
    data = bytearray(bytes(HEADER))
    data[at] = 9
    with pytest.raises(DiskError, match="unknown") as caught:
        parse_header(sealed(bytes(data)))
    assert "convert" in caught.value.remedy


def test_a_region_table_has_every_field_where_the_specification_puts_it() -> None:
    data = region_table(REGIONS)
    assert len(data) == 64 << 10
    assert data[:4] == b"regi"
    assert struct.unpack_from("<I", data, 4)[0] == crc32c(data[:4] + bytes(4) + data[8:])
    assert struct.unpack_from("<II", data, 8) == (2, 0)
    assert data[16:32].hex() == "6677c22d23f600429d64115e9bfd4a08", "the BAT's GUID as it stands in files"
    assert struct.unpack_from("<QII", data, 32) == (4 * MIB, MIB, 1)
    assert data[48:64].hex() == "06a27c8b90479a4bb8fe575f050f886e"
    assert parse_regions(data, data) == (REGIONS, ())


def test_the_second_region_table_is_used_where_the_first_is_damaged() -> None:
    data = region_table(REGIONS)
    regions, notes = parse_regions(bytes(len(data)), data)
    assert regions == REGIONS
    assert "damaged" in notes[0]
    assert parse_regions(data, b"")[1] == notes
    with pytest.raises(DiskError, match="both its VHDX region tables"):
        parse_regions(b"", data[:-1])


UNKNOWN = uuid.UUID(int=9)


@pytest.mark.parametrize(
    ("regions", "says"),
    [
        ({BAT: Region(4 * MIB, MIB)}, "names no metadata"),
        ({METADATA: Region(4 * MIB, MIB)}, "names no block table"),
        ({**REGIONS, UNKNOWN: Region(9 * MIB, MIB)}, "needs the region 0000"),
        ({**REGIONS, BAT: Region(0, MIB)}, "no place in a VHDX"),
        ({**REGIONS, BAT: Region(4 * MIB + 512, MIB)}, "no place in a VHDX"),
        ({**REGIONS, BAT: Region(4 * MIB, MIB + 4096)}, "no place in a VHDX"),
        ({**REGIONS, BAT: Region(4 * MIB, 0)}, "no place in a VHDX"),
    ],
)
def test_regions_that_cannot_be_are_refused(regions: dict[uuid.UUID, Region], says: str) -> None:
    with pytest.raises(DiskError, match=says):
        parse_regions(region_table(regions), b"")


def test_a_region_that_is_not_required_may_be_unknown() -> None:
    data = bytearray(region_table({**REGIONS, UNKNOWN: Region(9 * MIB, MIB)}))
    data[16 + 2 * 32 + 28] = 0
    assert parse_regions(sealed(bytes(data)), b"")[0][BAT] == REGIONS[BAT]


def test_a_region_that_is_named_twice_is_refused() -> None:
    data = bytearray(region_table(REGIONS))
    data[48:64] = data[16:32]
    with pytest.raises(DiskError, match="twice"):
        parse_regions(sealed(bytes(data)), b"")


def test_the_creator_is_shown_without_what_acts_on_a_terminal() -> None:
    name = "Microsoft Windows 10.0\x1b[2J".encode("utf-16-le")
    assert parse_creator(IDENTIFIER + name + bytes(9)) == "Microsoft Windows 10.0[2J"
    assert parse_creator(IDENTIFIER) == ""
    with pytest.raises(DiskError, match="no VHDX identifier"):
        parse_creator(b"vhdxfil")


def test_a_parent_locator_names_the_parent_by_its_data_write_guid_and_a_path_to_show() -> None:
    found = parse_locator(locator(DATA_WRITE, "gold.vhdx"))
    assert (found.ids, found.name) == ((DATA_WRITE,), ".\\gold.vhdx")
    merged = parse_locator(locator(DATA_WRITE, parent_linkage2=f"{{{LOG}}}", absolute_win32_path="\\\\?\\C:\\a.vhdx"))
    assert (merged.ids, merged.name) == ((DATA_WRITE, LOG), "\\\\?\\C:\\a.vhdx")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "cut short"),
        (bytes(20), "unknown type"),
        (LOCATOR_TYPE.bytes_le + struct.pack("<HH", 0, 0), "names no parent"),
        (LOCATOR_TYPE.bytes_le + struct.pack("<HH", 0, 65535), "claims 65535 entries"),
        (LOCATOR_TYPE.bytes_le + struct.pack("<HHIIHH", 0, 1, 2**32 - 1, 0, 9, 9), "past its end"),
        (locator(DATA_WRITE, parent_linkage="../../etc/shadow"), "by no GUID"),
        (locator(DATA_WRITE)[:-1], "past its end"),
    ],
)
def test_parent_locators_that_cannot_be_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(DiskError, match=says):
        parse_locator(data)
