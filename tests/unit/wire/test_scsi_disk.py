"""SCSI codecs: CDBs, sense data, and what Windows' disk stack needs of the pages (FIELD, section 3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire import scsi_sense as sense
from bootlink_wire import scsi_vpd as vpd
from bootlink_wire.scsi_cdb import Blocks, blocks, length, lun, lun_field
from bootlink_wire.scsi_vpd import Identity, Limits

LIMITS = Limits(transfer=8192, unmap=1 << 20, unmap_descriptors=256, write_same=1 << 16, compare_and_write=255)
PC_1, PC_2 = Identity("52:54:00:00:00:01", 0), Identity("52:54:00:00:00:02", 0)


@pytest.mark.parametrize(
    ("cdb", "expected"),
    [
        ("08 1f ff ff 08 00", Blocks(0x1FFFFF, 8, 0)),
        ("0a 00 00 01 00 00", Blocks(1, 256, 0)),  # 0 means 256 in a 6-byte CDB
        ("28 10 00 00 10 00 00 00 08 00", Blocks(0x1000, 8, 0x10)),
        ("2a 08 ff ff ff ff 00 ff ff 00", Blocks(0xFFFFFFFF, 0xFFFF, 0x08)),
        ("a8 00 00 00 00 01 00 01 00 00 00 00", Blocks(1, 0x10000, 0)),
        ("88 08 00 00 00 01 00 00 00 00 00 00 00 40 00 00", Blocks(1 << 32, 64, 0x08)),
        ("35 02 00 00 00 00 00 00 00 00", Blocks(0, 0, 2)),
    ],
)
def test_a_range_of_blocks_is_read_from_every_length_of_cdb(cdb: str, expected: Blocks) -> None:
    raw = bytes.fromhex(cdb)
    assert length(raw[0]) == len(raw)
    assert blocks(raw.ljust(16, b"\0")) == expected


@given(st.binary(min_size=16, max_size=16))
def test_any_cdb_has_a_length_and_a_range(cdb: bytes) -> None:
    assert length(cdb[0]) in (6, 10, 12, 16)
    blocks(cdb)


@pytest.mark.parametrize("number", [0, 1, 255])
def test_a_lun_goes_to_its_field_and_back(number: int) -> None:
    assert lun(lun_field(number)) == number


def test_the_other_ways_to_say_lun_1() -> None:
    assert lun(0x4001_0000_0000_0000) == 1  # flat space addressing
    assert lun(0x0001_0001_0000_0000) == -1  # a second level
    assert lun(0xC101_0000_0000_0000) == -1  # a well-known unit


def test_sense_in_fixed_format() -> None:
    assert sense.POWER_ON.encode().hex(" ") == "70 00 06 00 00 00 00 0a 00 00 00 00 29 00 00 00 00 00"


def test_sense_names_the_byte_at_fault() -> None:
    data = sense.INVALID_FIELD.at(2).encode()
    assert (data[2], data[12:14].hex(), data[15:18].hex()) == (5, "2400", "c00002")


def test_sense_in_descriptor_format_carries_the_information() -> None:
    data = sense.Sense(sense.MISCOMPARE.key, sense.MISCOMPARE.code, information=513).encode(descriptor=True)
    assert data.hex(" ") == "72 0e 1d 00 00 00 00 0c 00 0a 80 00 00 00 00 00 00 00 02 01"


def test_the_inquiry_of_a_disk_to_the_byte() -> None:
    data = vpd.inquiry()
    assert data[:8].hex() == "000006125b000002"
    assert data[8:36] == b"BOOTLINKNetwork disk    1   "
    assert data[4] == len(data) - 5
    assert vpd.inquiry(vpd.NO_DEVICE)[0] == 0x7F


def page(code: int, who: Identity = PC_1) -> bytes:
    data = vpd.vital_product_data(code, who, LIMITS)
    assert data is not None
    assert data[1] == code
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    return data


def test_page_00_is_strictly_ascending_and_every_page_in_it_exists() -> None:
    pages = page(0)[4:]
    assert list(pages) == sorted(set(pages))
    assert {0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2} <= set(pages)
    for code in pages:
        page(code)


def test_windows_finds_the_lengths_that_it_insists_on() -> None:
    assert len(page(0xB1)) - 4 == 0x3C
    assert len(page(0xB0)) - 4 == 0x3C
    assert len(page(0xB2)) >= 8
    assert page(0xB1)[4:6] == b"\0\1"  # no rotation: an SSD


def test_block_limits_promise_atomic_writes_of_one_page_as_a_crash_may_tear_more() -> None:
    assert page(0xB0)[44:64].hex() == "00000008" * 3 + "00" * 8


def test_block_limits_state_the_largest_transfer() -> None:
    assert int.from_bytes(page(0xB0)[8:12], "big") == 8192


def test_pages_80_and_83_are_a_clients_own_and_stable() -> None:
    assert page(0x80)[4:] == b"525400000001-0"
    assert page(0x80, PC_2) != page(0x80)
    assert page(0x83, PC_2) != page(0x83)
    # Pinned: a disk that changes its name between versions of ours is a new disk to Windows.
    assert PC_1.naa.hex() == "31142287904a76c2"


def test_page_83_names_the_unit_by_naa_and_by_vendor() -> None:
    body = page(0x83)[4:]
    assert body[:4].hex() == "01030008"
    assert body[4] >> 4 == 3
    assert body[12:16].hex() == f"020100{len(body) - 16:02x}"
    assert body[16:] == b"BOOTLINK525400000001-0"


def test_an_unknown_page_is_none() -> None:
    assert vpd.vital_product_data(0x90, PC_1, LIMITS) is None


def test_capacity_of_a_disk_too_large_for_32_bits() -> None:
    assert vpd.read_capacity_10(2048).hex() == "000007ff00000200"
    assert vpd.read_capacity_10(1 << 33).hex() == "ffffffff00000200"
    assert vpd.read_capacity_16(1 << 33)[:16].hex() == "00000001ffffffff" + "00000200" + "0003" + "c000"
    assert len(vpd.read_capacity_16(8)) == 32


def test_report_luns() -> None:
    assert vpd.report_luns([0, 3]).hex() == "0000001000000000" + "0" * 16 + "0003" + "0" * 12
