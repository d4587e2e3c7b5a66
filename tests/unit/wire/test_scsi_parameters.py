"""Parameter lists: UNMAP, GET LBA STATUS, persistent reservations, EXTENDED COPY; to the byte, and cut anywhere."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire import scsi_copy as copy
from bootlink_wire import scsi_provisioning as provisioning
from bootlink_wire import scsi_reservations as reservations
from bootlink_wire.scsi_provisioning import Extent
from bootlink_wire.scsi_sense import CheckCondition

PORT = "iqn.1993-08.org.debian:01:test,i,0x00023d000001"
NAA = bytes.fromhex("31142287904a76c2")


def unmap_list(*extents: tuple[int, int], cut: int = 0, count: int | None = None) -> bytes:
    body = b"".join(struct.pack(">QI4x", *extent) for extent in extents)
    size = len(body) if count is None else 16 * count
    data = struct.pack(">HH4x", size + 6, size) + body
    return data[: len(data) - cut]


def code(data: bytes, limit: int = 4) -> int:
    with pytest.raises(CheckCondition) as caught:
        provisioning.unmap_list(data, limit)
    return caught.value.sense.code


def test_an_unmap_list_names_ranges() -> None:
    assert provisioning.unmap_list(unmap_list((5, 3), (1 << 40, 9)), 4) == [Extent(5, 3), Extent(1 << 40, 9)]
    assert provisioning.unmap_list(b"", 4) == []
    assert provisioning.unmap_list(bytes(8), 4) == []


def test_an_unmap_list_that_is_cut_or_too_long_is_refused() -> None:
    assert code(bytes(7)) == 0x1A00
    assert code(unmap_list((5, 3), cut=1)) == 0x1A00
    assert code(unmap_list((5, 3), count=2)) == 0x1A00
    assert code(unmap_list(*[(0, 1)] * 5)) == 0x2600


def test_lba_status_to_the_byte() -> None:
    data = provisioning.lba_status([(True, Extent(0, 8)), (False, Extent(8, 0xFFFFFFFF))])
    assert data.hex() == (
        "0000002400000000" + "0000000000000000" + "00000008" + "00000000" + "0000000000000008" + "ffffffff" + "01000000"
    )


def test_a_reservation_list_has_one_length_and_asks_for_nothing_that_is_not_kept() -> None:
    data = bytearray(struct.pack(">QQ8x", 1, 2))
    assert reservations.parse(bytes(data)) == (1, 2)
    for flag in (reservations.SPEC_I_PT, reservations.ALL_TG_PT, reservations.APTPL):
        data[20] = flag
        with pytest.raises(CheckCondition) as caught:
            reservations.parse(bytes(data))
        assert (caught.value.sense.code, caught.value.sense.field) == (0x2600, 20)
    with pytest.raises(CheckCondition) as caught:
        reservations.parse(bytes(23))
    assert caught.value.sense.code == 0x1A00


def test_what_persistent_reserve_in_answers_to_the_byte() -> None:
    assert reservations.keys(7, [1, 2]).hex() == "00000007" + "00000010" + f"{1:016x}{2:016x}"
    assert reservations.reservation(7, 0, 0).hex() == "00000007" + "00000000"
    assert reservations.reservation(7, 1, 5).hex() == "00000007" + "00000010" + f"{1:016x}" + "0000000000050000"
    # CRH, the types by bits, TEST UNIT READY allowed; neither SIP, ATP nor PTPL.
    assert reservations.capabilities().hex() == "00081090ea010000"


def test_full_status_names_the_initiator_port_and_ours() -> None:
    data = reservations.full_status(7, [(PORT, 1, True)], 5)
    name = PORT.encode() + bytes(4 - len(PORT) % 4)
    assert data[:8].hex() == "00000007" + f"{24 + 4 + len(name):08x}"
    assert data[8:32].hex() == f"{1:016x}" + "00000000" + "01" + "05" + "00000000" + "0001" + f"{4 + len(name):08x}"
    assert data[32:36].hex() == "4500" + f"{len(name):04x}"
    assert data[36:] == name
    assert len(data) % 4 == 0


def copy_list(
    targets: int = 1,
    segments: int = 1,
    *,
    target: int = copy.IDENTIFICATION,
    segment: int = copy.BLOCK_TO_BLOCK,
    usage: int = 0,
) -> bytes:
    one = struct.pack(">BBHBBBB20s4x", target, 0, 0, 1, 3, 0, 8, NAA)
    what = struct.pack(">BBHHHHHQQ", segment, 0, 24, 0, 0, 0, 8, 100, 200)
    header = struct.pack(">BBHIII", 9, usage << 3, len(one) * targets, 0, len(what) * segments, 0)
    return header + one * targets + what * segments


def copy_code(data: bytes) -> int:
    with pytest.raises(CheckCondition) as caught:
        copy.parse(data)
    return caught.value.sense.code


def test_a_copy_list_names_disks_and_ranges() -> None:
    job = copy.parse(copy_list())
    assert job.identifier == 9
    assert job.targets == [(1, 3, NAA)]
    assert job.segments == [copy.Segment(0, 0, 8, 100, 200)]
    assert copy.parse(copy_list(usage=3)).identifier is None


def test_a_copy_list_that_cannot_be_followed_is_refused_by_its_fault() -> None:
    assert copy_code(copy_list(3)) == 0x2606
    assert copy_code(copy_list(1, 9)) == 0x2608
    assert copy_code(copy_list(3, 9)) == 0x1A00  # more than may be given at once
    assert copy_code(copy_list(target=0xE0)) == 0x2607
    assert copy_code(copy_list(segment=0x00)) == 0x2609
    for size in range(len(copy_list())):
        assert copy_code(copy_list()[:size]) == 0x1A00


def test_what_receive_copy_results_answers_to_the_byte() -> None:
    assert copy.copy_status(failed=False, segments=2, size=4096).hex() == "00000008" + "01" + "0002" + "01" + "00000004"
    parameters = copy.operating_parameters()
    assert int.from_bytes(parameters[:4], "big") == len(parameters) - 4
    assert parameters[8:16].hex() == f"{copy.TARGETS_LIMIT:04x}{copy.SEGMENTS_LIMIT:04x}{copy.LIST_LIMIT:08x}"
    assert parameters[36] == 1
    assert parameters[37] == 9  # 512 bytes
    assert parameters[43:].hex() == "0202e4"


@given(st.binary(max_size=200))
def test_no_parameter_list_raises_anything_but_sense(data: bytes) -> None:
    for parse in (copy.parse, reservations.parse, lambda d: provisioning.unmap_list(d, 4)):
        with contextlib.suppress(CheckCondition):
            parse(data)


@given(st.integers(0, 2), st.integers(0, 2), st.data())
def test_a_copy_list_with_any_byte_changed_raises_nothing_but_sense(
    targets: int, segments: int, data: st.DataObject
) -> None:
    whole = bytearray(copy_list(targets, segments))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CheckCondition):
        copy.parse(bytes(whole))
