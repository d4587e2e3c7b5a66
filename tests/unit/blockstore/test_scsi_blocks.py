"""Commands on blocks beyond READ and WRITE: atomics, thin provisioning, copies, write protection (SBC-3, SPC-4)."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from bootlink_blockstore.scsi.blocks import ATOMIC_LIMIT, ORWRITE_LIMIT, UNMAP_LIMIT, WRITE_SAME_LIMIT
from bootlink_blockstore.scsi.device import Nexus, Outcome
from bootlink_blockstore.scsi.provisioning import PIECE
from bootlink_wire import scsi_sense as sense
from lab.session_bench import SIZE
from lab.unit_bench import UnitBench

SECTORS = SIZE // 512
A, B = b"A" * 512, b"B" * 512


@pytest.fixture
def lab() -> UnitBench:
    return UnitBench()


def form_10(op: int, lba: int, sectors: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIBHB", op, flags, lba, 0, sectors, 0)


def form_16(op: int, lba: int, sectors: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQIBB", op, flags, lba, sectors, 0, 0)


def atomic(lba: int, sectors: int, boundary: int = 0) -> bytes:
    return struct.pack(">BBQHHBB", 0x9C, 0, lba, boundary, sectors, 0, 0)


def unmap(*extents: tuple[int, int]) -> tuple[bytes, bytes]:
    body = b"".join(struct.pack(">QI4x", *extent) for extent in extents)
    data = struct.pack(">HH4x", len(body) + 6, len(body)) + body
    return struct.pack(">B6xHx", 0x42, len(data)), data


# COMPARE AND WRITE, ORWRITE, WRITE ATOMIC


def test_compare_and_write_writes_what_was_expected_to_be_replaced(lab: UnitBench) -> None:
    assert lab(form_16(0x89, 5, 1), bytes(512) + A) == Outcome()
    assert lab.at(5) == A
    assert lab.code(form_16(0x89, 5, 1), bytes(512) + B) == 0x1D00
    assert lab.at(5) == A


@pytest.mark.parametrize("at", [0, 1, 511, 512, 1023])
def test_a_miscompare_tells_the_offset_in_the_information(lab: UnitBench, at: int) -> None:
    lab.disk.data[at] = 1
    outcome = lab(form_16(0x89, 0, 2), bytes(2048))
    assert outcome.sense[2] == 0x0E
    assert outcome.sense[0] & 0x80
    assert int.from_bytes(outcome.sense[3:7], "big") == at


def test_compare_and_write_is_for_255_blocks_and_data_of_the_right_length(lab: UnitBench) -> None:
    assert lab.code(form_16(0x89, 0, 255), bytes(2 * 255 * 512)) == 0
    assert lab.code(form_16(0x89, 0, 2), bytes(1024)) == 0x2400
    assert lab.code(form_16(0x89, 0, 1), bytes(2048)) == 0x2400
    assert lab.code(form_16(0x89, 0, 0), bytes(512 * 512)) == 0x2400  # 256 blocks: the count does not hold them
    assert lab.code(form_16(0x89, SECTORS, 1), bytes(1024)) == 0x2100


def test_orwrite_sets_bits_and_clears_none(lab: UnitBench) -> None:
    lab.disk.data[:512] = b"\x81" * 512
    assert lab(form_16(0x8B, 0, 1), b"\x18" * 512) == Outcome()
    assert lab.at(0) == b"\x99" * 512
    assert lab.code(form_16(0x8B, 0, 2), bytes(512)) == 0x2400
    assert lab.code(form_16(0x8B, 0, ORWRITE_LIMIT + 1), bytes((ORWRITE_LIMIT + 1) * 512)) == 0x2400


def test_write_atomic_writes_whole_pages_up_to_its_limit_and_has_no_boundary(lab: UnitBench) -> None:
    assert lab(atomic(8, ATOMIC_LIMIT), A * ATOMIC_LIMIT) == Outcome()
    assert lab.at(8, ATOMIC_LIMIT) == A * ATOMIC_LIMIT
    assert lab.code(atomic(0, ATOMIC_LIMIT + 8), A * (ATOMIC_LIMIT + 8)) == 0x2400
    assert lab.code(atomic(0, 8, boundary=8), A * 8) == 0x2400
    assert lab.code(atomic(0, 16), A * 8) == 0x2400
    assert lab.code(atomic(0, 1), A) == 0x2400
    assert lab.code(atomic(1, 8), A * 8) == 0x2400
    assert lab.code(atomic(SECTORS, 8), A * 8) == 0x2100


@pytest.mark.parametrize("flags", [0x00, 0x08])
def test_the_atomics_honour_fua(lab: UnitBench, flags: int) -> None:
    lab(form_16(0x89, 0, 1, flags), bytes(512) + A)
    lab(form_16(0x8B, 0, 1, flags), B)
    assert lab.disk.stable == (2 if flags else 0)


# WRITE AND VERIFY, PRE-FETCH


@pytest.mark.parametrize("op", [0x2E, 0x8E])
@pytest.mark.parametrize("byte_check", [0x00, 0x02, 0x06])
def test_write_and_verify_writes_to_the_medium(lab: UnitBench, op: int, byte_check: int) -> None:
    form = form_10 if op == 0x2E else form_16
    assert lab(form(op, 1, 2, byte_check), A + B) == Outcome()
    assert lab.at(1, 2) == A + B
    assert lab.disk.stable == 1
    assert lab.code(form(op, 1, 2, 0x04), A + B) == 0x2400


def test_write_and_verify_finds_a_disk_that_keeps_something_else(lab: UnitBench) -> None:
    lab.disk.write = lambda offset, data, fua=False: None  # type: ignore[method-assign,misc]
    assert lab.code(form_10(0x2E, 1, 1, 0x02), A) == 0x1D00


@pytest.mark.parametrize(("sectors", "flags", "status"), [(8, 0, 4), (0, 0, 0), (8, 2, 0), (8192, 0, 4), (8193, 0, 0)])
def test_prefetch_says_whether_all_of_it_is_in_the_cache(lab: UnitBench, sectors: int, flags: int, status: int) -> None:
    assert lab(form_16(0x90, 0, sectors, flags)) == Outcome(status)
    assert lab(form_10(0x34, 0, sectors, flags)) == Outcome(status)
    assert lab.code(form_16(0x90, SECTORS, 1)) == 0x2100


# UNMAP, WRITE SAME, GET LBA STATUS


def test_unmapped_blocks_read_as_zeros_and_are_deallocated(lab: UnitBench) -> None:
    lab.disk.data[: 32 * 512] = A * 32
    assert lab(*unmap((8, 8), (24, 1))) == Outcome()
    assert lab.at(0, 32) == A * 8 + bytes(8 * 512) + A * 8 + bytes(512) + A * 7
    outcome = lab(struct.pack(">BBQI2x", 0x9E, 0x12, 4, 1024))
    data = b"".join(outcome.data)
    found = [struct.unpack_from(">QIB", data, at) for at in range(8, len(data), 16)]
    assert found == [(4, 4, 0), (8, 8, 1), (16, 8, 0), (24, 1, 1), (25, SECTORS - 25, 0)]


def test_get_lba_status_gives_as_much_as_there_is_room_for(lab: UnitBench) -> None:
    lab(*unmap((8, 8)))
    assert len(b"".join(lab(struct.pack(">BBQI2x", 0x9E, 0x12, 0, 24)).data)) == 24
    assert lab.code(struct.pack(">BBQI2x", 0x9E, 0x12, SECTORS, 24)) == 0x2100


def test_unmap_does_nothing_where_one_range_is_wrong(lab: UnitBench) -> None:
    lab.disk.data[:512] = A
    assert lab.code(*unmap((0, 1), (SECTORS, 1))) == 0x2100
    assert lab.code(*unmap((0, UNMAP_LIMIT), (0, 1))) in (0x2100, 0x2600)
    assert lab.at(0) == A
    assert lab(*unmap((0, 0))) == Outcome()


def test_unmap_is_bounded_in_blocks_and_in_ranges(lab: UnitBench) -> None:
    assert lab.code(*unmap(*[(0, SECTORS)] * (UNMAP_LIMIT // SECTORS))) == 0
    assert lab.code(*unmap(*[(0, SECTORS)] * (UNMAP_LIMIT // SECTORS), (0, 1))) == 0x2600
    assert lab.code(*unmap(*[(0, 1)] * 257)) == 0x2600


def test_a_parameter_list_that_is_longer_than_what_was_announced_is_refused(lab: UnitBench) -> None:
    cdb, data = unmap((0, 1))
    assert lab.code(cdb, data[:16]) == 0x1A00
    cdb, data = out(0, 0, 1)
    assert lab.code(cdb, data[:16]) == 0x1A00


def test_nothing_can_be_anchored(lab: UnitBench) -> None:
    cdb, data = unmap((0, 1))
    assert lab.code(cdb[:1] + b"\x01" + cdb[2:], data) == 0x2400
    assert lab.code(form_10(0x41, 0, 1, 0x18), A) == 0x2400
    assert lab.code(form_16(0x93, 0, 1, 0x18), A) == 0x2400


@pytest.mark.parametrize("flags", [0x00, 0x08])
@pytest.mark.parametrize(("op", "form"), [(0x41, form_10), (0x93, form_16)])
def test_write_same_fills_the_range_and_lets_zeros_go(lab: UnitBench, op: int, form: Any, flags: int) -> None:
    count = PIECE // 512 + 3
    assert lab(form(op, 2, count, flags), A) == Outcome()
    assert lab.at(1, count + 2) == bytes(512) + A * count + bytes(512)
    assert lab(form(op, 3, 8, flags), bytes(512)) == Outcome()
    assert lab.at(2, 10) == A + bytes(8 * 512) + A
    assert all(lab.disk.zeroed[3:11])


def test_write_same_without_data_is_zeros(lab: UnitBench) -> None:
    lab.disk.data[:512] = A
    assert lab(form_16(0x93, 0, 1, 0x01)) == Outcome()
    assert lab.at(0) == bytes(512)
    assert lab.code(form_10(0x41, 0, 1, 0x01), A) == 0x2400  # NDOB is of the long form


def test_write_same_has_limits(lab: UnitBench) -> None:
    assert lab.code(form_16(0x93, 0, 0), A) == 0x2400  # WSNZ
    lab = UnitBench((WRITE_SAME_LIMIT + 8) * 512)
    assert lab.code(form_16(0x93, 0, WRITE_SAME_LIMIT), bytes(512)) == 0
    assert lab.code(form_16(0x93, 0, WRITE_SAME_LIMIT + 1), bytes(512)) == 0x2400
    assert lab.code(form_16(0x93, 0, 1), bytes(1024)) == 0x2400


def test_without_a_write_cache_unmap_and_write_same_end_in_a_flush(lab: UnitBench) -> None:
    select(lab, bytes((0x08, 0x12, 0x00)) + bytes(17))
    before = lab.disk.flushes
    lab(*unmap((0, 1)))
    lab(form_16(0x93, 0, 1), A)
    assert lab.disk.flushes == before + 2


# Modes


def select(lab: UnitBench, page: bytes, nexus: Nexus | None = None) -> None:
    data = bytes(4) + page
    assert lab(bytes((0x15, 0x10, 0, 0, len(data), 0)), data, nexus=nexus) == Outcome()


def test_a_write_protected_disk_refuses_every_write_and_nothing_else(lab: UnitBench) -> None:
    select(lab, bytes((0x0A, 0x0A, 0x00, 0x10, 0x08)) + bytes(7))
    for cdb, data in (
        (form_10(0x2A, 0, 1), A),
        (form_10(0x2E, 0, 1), A),
        (form_16(0x89, 0, 1), A + B),
        (form_16(0x8B, 0, 1), A),
        (atomic(0, 8), A * 8),
        (form_16(0x93, 0, 1), A),
        unmap((0, 1)),
    ):
        outcome = lab(cdb, data)
        assert (outcome.sense[2], outcome.sense[12:14].hex()) == (7, "2702")
    assert lab(form_10(0x28, 0, 1)).status == 0
    assert b"".join(lab(b"\x1a\x00\x08\x00\xff\x00").data)[2] & 0x80
    assert lab(form_10(0x35, 0, 0)) == Outcome()


def test_d_sense_changes_the_format_of_sense_for_everybody(lab: UnitBench) -> None:
    select(lab, bytes((0x0A, 0x0A, 0x04, 0x10)) + bytes(8))
    outcome = lab(form_16(0x89, 0, 1), A + B)
    assert outcome.sense[:3].hex() == "720e1d"
    assert int.from_bytes(outcome.sense[12:20], "big") == 0
    assert lab(form_10(0x28, SECTORS, 1)).sense[:3].hex() == "720521"


def test_the_others_are_told_of_changed_modes_once(lab: UnitBench) -> None:
    other = Nexus(attentions=[])
    lab.unit.nexuses.add(other)
    select(lab, bytes((0x0A, 0x0A, 0x04, 0x10)) + bytes(8))
    assert (lab.nexus.attentions, other.attentions) == ([], [sense.MODE_PARAMETERS_CHANGED])
    other.attentions.clear()
    select(lab, bytes((0x0A, 0x0A, 0x04, 0x10)) + bytes(8))  # as it is
    assert other.attentions == []


def test_a_reset_brings_the_modes_back_and_ends_reserve_6(lab: UnitBench) -> None:
    select(lab, bytes((0x0A, 0x0A, 0x04, 0x10, 0x08)) + bytes(7))
    lab(bytes((0x16, 0, 0, 0, 0, 0)))
    lab.unit.reset()
    assert lab.unit.modes == type(lab.unit.modes)()
    assert lab.unit.reservations.unit_holder is None
    assert lab.nexus.attentions == [sense.BUS_DEVICE_RESET]


# Reservations, by their commands


def out(action: int, key: int, action_key: int = 0, kind: int = 0) -> tuple[bytes, bytes]:
    return struct.pack(">BBBxxIx", 0x5F, action, kind, 24), struct.pack(">QQ8x", key, action_key)


def test_a_conflict_is_a_status_and_comes_before_a_unit_attention(lab: UnitBench) -> None:
    other = Nexus(attentions=[sense.POWER_ON], port="iqn.b,i,0x2")
    lab.unit.nexuses.add(other)
    lab(*out(0, 0, 1))
    lab(*out(1, 1, kind=3))
    assert lab(form_10(0x28, 0, 1), nexus=other) == Outcome(0x18)
    assert other.attentions == [sense.POWER_ON]
    assert lab(bytes(6), nexus=other).status == 2
    assert lab(bytes(6), nexus=other).status == 0  # TEST UNIT READY is allowed
    assert lab(form_10(0x28, 0, 1)).status == 0


def test_who_loses_its_registration_is_told_and_its_tasks_are_named_for_abortion(lab: UnitBench) -> None:
    other = Nexus(attentions=[], port="iqn.b,i,0x2")
    lab.unit.nexuses.add(other)
    lab(*out(0, 0, 1))
    lab(*out(0, 0, 2), nexus=other)
    outcome = lab(*out(5, 1, 2, kind=1))
    assert outcome == Outcome(abort=(other,))
    assert other.attentions == [sense.REGISTRATIONS_PREEMPTED]


@pytest.mark.parametrize(
    ("action", "kind", "length", "expected"),
    [(1, 2, 24, 0x2400), (1, 0x11, 24, 0x2400), (2, 9, 24, 0x2400), (0, 0, 23, 0x1A00), (0, 0, 25, 0x1A00)],
)
def test_a_reservation_of_no_known_type_or_length_is_refused(
    lab: UnitBench, action: int, kind: int, length: int, expected: int
) -> None:
    assert lab.code(struct.pack(">BBBxxIx", 0x5F, action, kind, length), bytes(length)) == expected


def test_register_and_move_is_refused_clearly(lab: UnitBench) -> None:
    assert lab.code(*out(7, 0, 1)) == 0x2400


def test_reservations_end_with_the_unit_and_reserve_6_with_its_session(lab: UnitBench) -> None:
    lab(bytes((0x16, 0, 0, 0, 0, 0)))
    lab.unit.leave(lab.nexus)
    other = Nexus(attentions=[], port="iqn.b,i,0x2")
    assert lab(form_10(0x28, 0, 1), nexus=other).status == 0
    assert UnitBench().unit.reservations.keys == {}  # a new boot: a new unit


# EXTENDED COPY


def copy(
    lab: UnitBench, source: int, target: int, sectors: int, *, identifier: int = 1, name: bytes | None = None
) -> Any:
    naa = lab.unit.identity.naa if name is None else name
    one = struct.pack(">BBHBBBB20s4x", 0xE4, 0, 0, 1, 3, 0, len(naa), naa)
    what = struct.pack(">BBHHHHHQQ", 2, 0, 24, 0, 0, 0, sectors, source, target)
    data = struct.pack(">BBHIII", 1, 0, len(one), 0, len(what), 0) + one + what
    return struct.pack(">BB8xIxx", 0x83, 0, len(data)), data


def status(lab: UnitBench, identifier: int) -> Outcome:
    return lab(struct.pack(">BBB7xIxx", 0x84, 0, identifier, 64))


def test_a_disk_copies_its_own_blocks_and_tells_once_how_it_went(lab: UnitBench) -> None:
    count = 2 * PIECE // 512 + 5
    lab.disk.data[: count * 512] = bytes(range(256)) * (count * 2)
    assert lab(*copy(lab, 0, count, count)) == Outcome()
    assert lab.at(count, count) == lab.at(0, count)
    assert b"".join(status(lab, 1).data).hex() == "00000008" + "01" + "0001" + "01" + f"{count * 512 >> 10:08x}"
    assert status(lab, 1).status == 2


def test_a_copy_from_or_to_elsewhere_is_aborted_before_it_begins(lab: UnitBench) -> None:
    for wrong in (copy(lab, 0, SECTORS - 1, 2), copy(lab, SECTORS, 0, 1), copy(lab, 0, 8, 8, name=bytes(8))):
        outcome = lab(*wrong)
        assert outcome.sense[2] == 0x0A
    assert not any(lab.disk.data)


# Logs and the like


def test_log_sense_lists_its_pages_and_reports_no_exception(lab: UnitBench) -> None:
    assert b"".join(lab(bytes.fromhex("4d 00 00 00 00 00 00 00 ff 00")).data).hex() == "00000002" + "002f"
    assert b"".join(lab(bytes.fromhex("4d 00 6f 00 00 00 00 00 ff 00")).data)[:4].hex() == "2f000008"
    for wrong in ("4d 00 41", "4d 01 40", "4d 00 6f 01", "4d 00 2f", "4d 00 6f 00 00 00 01"):
        assert lab.code(bytes.fromhex(wrong).ljust(8, b"\0") + b"\xff\0") == 0x2400


def test_there_are_no_defects(lab: UnitBench) -> None:
    assert b"".join(lab(bytes.fromhex("37 00 1d 00 00 00 00 00 ff 00")).data).hex() == "001d0000"
    assert b"".join(lab(bytes.fromhex("b7 1d 00 00 00 00 00 00 00 ff 00 00")).data).hex() == "001d000000000000"


def test_the_task_management_functions_are_listed(lab: UnitBench) -> None:
    assert b"".join(lab(bytes.fromhex("a3 0d 00 00 00 00 00 00 00 10 00 00")).data).hex() == "d8000000"
    assert b"".join(lab(bytes.fromhex("a3 0d 80 00 00 00 00 00 00 10 00 00")).data).hex() == "d800000c" + "00" * 12
    assert lab.code(bytes.fromhex("a3 0d 00 00 00 00 00 00 00 03 00 00")) == 0x2400
