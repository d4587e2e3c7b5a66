"""What Windows' disk stack (classpnp, disk) insists on, a test for each rule of FIELD, section 3, and PROTOCOLS 2.2."""

from __future__ import annotations

import pytest

from bootlink_blockstore.scsi.blocks import LIMITS
from bootlink_wire.scsi_vpd import Identity
from lab.session_bench import SIZE
from lab.unit_bench import UnitBench

PC_1, PC_2 = "52:54:00:00:00:01", "52:54:00:00:00:02"


@pytest.fixture
def lab() -> UnitBench:
    return UnitBench()


def page(lab: UnitBench, code: int) -> bytes:
    return lab.answer(f"12 01 {code:02x} 04 00 00")


def test_page_00_is_strictly_ascending_or_the_others_count_as_absent(lab: UnitBench) -> None:
    pages = page(lab, 0x00)[4:]
    assert list(pages) == sorted(set(pages))
    assert {0x00, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2} == set(pages)


def test_page_b1_is_exactly_3c_long_and_says_no_rotation(lab: UnitBench) -> None:
    data = page(lab, 0xB1)
    assert int.from_bytes(data[2:4], "big") == 0x3C == len(data) - 4
    assert data[4:6] == b"\x00\x01"


def test_page_b0_is_long_enough_for_unmap_limits_and_states_them(lab: UnitBench) -> None:
    data = page(lab, 0xB0)
    assert len(data) >= 36
    assert int.from_bytes(data[20:24], "big") == LIMITS.unmap > 0
    assert int.from_bytes(data[24:28], "big") == LIMITS.unmap_descriptors > 0
    assert int.from_bytes(data[28:32], "big") == 8  # sectors: a page of the write-back
    assert int.from_bytes(data[32:36], "big") == 1 << 31  # from block 0
    assert int.from_bytes(data[36:44], "big") == LIMITS.write_same
    assert data[5] == 255  # COMPARE AND WRITE


def test_page_b2_is_long_enough_and_says_thin_unmap_and_zeros(lab: UnitBench) -> None:
    data = page(lab, 0xB2)
    assert len(data) >= 8
    assert data[5] == 0xE4  # LBPU, LBPWS, LBPWS10, LBPRZ
    assert data[6] & 7 == 2


def test_pages_80_and_83_are_a_clients_own_and_the_same_at_each_boot() -> None:
    def names(mac: str, lun: int = 0) -> tuple[bytes, bytes]:
        bench = UnitBench()
        bench.unit.identity = Identity(mac, lun)
        return page(bench, 0x80), page(bench, 0x83)

    mine, theirs, second = names(PC_1), names(PC_2), names(PC_1, 1)
    assert names(PC_1) == mine
    assert len({mine[0], theirs[0], second[0]}) == 3
    assert len({mine[1], theirs[1], second[1]}) == 3
    assert mine[1][4 + 4] >> 4 == 3  # an NAA name


def test_mode_page_08_is_there_by_itself_and_within_3f(lab: UnitBench) -> None:
    for cdb in ("1a 00 08 00 ff 00", "5a 00 08 00 00 00 00 00 ff 00"):
        assert b"\x08\x12\x04" in lab.answer(cdb)
    for cdb in ("1a 00 3f 00 ff 00", "5a 00 3f 00 00 00 00 00 ff 00"):
        assert b"\x08\x12\x04" in lab.answer(cdb)


def test_mode_page_1c_is_there(lab: UnitBench) -> None:
    assert lab.answer("1a 08 1c 00 ff 00")[4:6] == b"\x1c\x0a"


def test_the_write_cache_is_honest_without_it_every_write_is_stable(lab: UnitBench) -> None:
    disk = lab.disk
    write = bytes.fromhex("2a 00 00 00 00 00 00 00 01 00")
    assert lab(write, bytes(512)).status == 0
    assert disk.stable == 0
    caching = bytes(4) + bytes((0x08, 0x12, 0x00)) + bytes(17)
    assert lab(bytes((0x15, 0x10, 0, 0, len(caching), 0)), caching).status == 0
    assert disk.flushes == 1  # what was written before
    assert b"\x08\x12\x00" in lab.answer("1a 08 08 00 ff 00")
    assert lab(write, bytes(512)).status == 0
    assert disk.stable == 1


def test_inquiry_with_a_page_code_and_no_evpd_is_refused(lab: UnitBench) -> None:
    outcome = lab(bytes.fromhex("12 00 80 00 ff 00"))
    assert (outcome.status, outcome.sense[2] & 15, outcome.sense[12:14].hex()) == (2, 5, "2400")


def test_request_sense_works_also_when_there_is_nothing_to_tell(lab: UnitBench) -> None:
    assert lab.answer("03 00 00 00 12 00")[:3].hex() == "700000"
    assert lab.answer("03 01 00 00 12 00")[:2].hex() == "7200"


def test_sectors_are_512_bytes_eight_of_them_make_a_physical_one_and_unmapped_ones_are_zeros(lab: UnitBench) -> None:
    data = lab.answer("9e 10" + "00" * 8 + "00 00 00 20 00 00")
    assert int.from_bytes(data[:8], "big") == SIZE // 512 - 1
    assert int.from_bytes(data[8:12], "big") == 512
    assert data[13] & 15 == 3
    assert data[14] & 0xC0 == 0xC0
