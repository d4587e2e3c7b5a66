"""Mode pages: their bytes, and that only what may be changed is changed, and all or nothing (SPC-4, section 6.11)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire import scsi_modes as codec
from bootlink_wire.scsi_modes import Modes
from bootlink_wire.scsi_sense import CheckCondition

SECTORS = 32768
WCE_OFF = bytes((0x08, 0x12, 0x00)) + bytes(17)
D_SENSE = bytes((0x0A, 0x0A, 0x04, 0x10)) + bytes(8)
SWP = bytes((0x0A, 0x0A, 0x00, 0x10, 0x08)) + bytes(7)


def select(*pages: bytes, descriptor: bytes = b"", long_header: bool = False, modes: Modes | None = None) -> Modes:
    size = len(descriptor)
    header = bytes((0, 0, 0, 0, 0, 0)) + size.to_bytes(2, "big") if long_header else bytes((0, 0, 0, size))
    return (modes or Modes()).select(header + descriptor + b"".join(pages), SECTORS, long_header=long_header)


def refused(*pages: bytes, descriptor: bytes = b"") -> tuple[int, int | None]:
    with pytest.raises(CheckCondition) as caught:
        select(*pages, descriptor=descriptor)
    return caught.value.sense.code, caught.value.sense.field


def test_all_pages_come_in_ascending_order_and_only_three_bits_can_be_changed() -> None:
    pages, mask = Modes().pages(codec.ALL_PAGES, codec.CURRENT), Modes().pages(codec.ALL_PAGES, codec.CHANGEABLE)
    assert pages is not None
    assert mask is not None
    codes, changeable = [], {}
    at = 0
    while at < len(pages):
        codes.append(pages[at])
        assert mask[at : at + 2] == pages[at : at + 2]
        for index in range(2, pages[at + 1] + 2):
            if mask[at + index]:
                changeable[pages[at], index] = mask[at + index]
        at += 2 + pages[at + 1]
    assert codes == [0x08, 0x0A, 0x1C]
    assert changeable == {(0x08, 2): codec.WCE, (0x0A, 2): codec.D_SENSE, (0x0A, 4): codec.SWP}
    assert Modes().pages(0x05, codec.CURRENT) is None


def test_the_write_cache_is_announced() -> None:
    caching = Modes().pages(0x08, codec.CURRENT)
    assert caching is not None
    assert (caching[0], caching[1], caching[2] & 0x04) == (0x08, 18, 0x04)
    assert len(caching) == 20


def test_the_header_says_that_fua_counts_and_whether_writes_are_refused() -> None:
    short = Modes().sense_6(b"", 1000, descriptor=True)
    assert short.hex() == "0b001008" + "000003e8" + "00000200"
    long = Modes(write_protected=True).sense_10(b"", 1 << 33, descriptor=True, long_lba=True)
    assert long.hex() == "0016009001000010" + "0000000200000000" + "00000000" + "00000200"


@pytest.mark.parametrize("long_header", [False, True])
def test_each_changeable_bit_is_taken_and_shown(long_header: bool) -> None:
    assert select(WCE_OFF, long_header=long_header) == Modes(write_cache=False)
    assert select(D_SENSE, long_header=long_header) == Modes(descriptor_sense=True)
    assert select(SWP, long_header=long_header) == Modes(write_protected=True)
    both = select(WCE_OFF, SWP, long_header=long_header)
    assert both == Modes(write_cache=False, write_protected=True)
    assert both.pages(0x08, codec.CURRENT) == WCE_OFF
    assert both.pages(0x08, codec.DEFAULT) == Modes().page(0x08)


def test_a_page_that_is_wrong_leaves_everything_as_it_was() -> None:
    assert refused(WCE_OFF, bytes((0x0A, 0x0A, 0x00, 0x00)) + bytes(8)) == (0x2600, 4 + 20 + 3)
    assert refused(WCE_OFF[:2] + b"\x01" + WCE_OFF[3:]) == (0x2600, 6)  # RCD is not ours to change
    assert refused(b"\x08\x11" + bytes(17)) == (0x2600, 5)  # of another length
    assert refused(b"\x05\x02\0\0") == (0x2600, 4)
    assert refused(b"\x48" + WCE_OFF[1:]) == (0x2600, 4)  # a subpage


def test_a_parameter_list_that_ends_too_soon_is_refused() -> None:
    assert refused(WCE_OFF[:10]) == (0x1A00, None)
    assert refused(descriptor=bytes(8))[0] == 0x2600
    with pytest.raises(CheckCondition):
        Modes().select(b"\0\0", SECTORS, long_header=False)
    with pytest.raises(CheckCondition):
        Modes().select(b"\0\0\0\x08\0", SECTORS, long_header=False)
    assert Modes().select(b"", SECTORS, long_header=False) == Modes()


def test_a_block_descriptor_may_only_say_what_is_so() -> None:
    for count in (0, SECTORS, 0xFFFFFFFF):
        descriptor = count.to_bytes(4, "big") + (512).to_bytes(4, "big")
        assert select(D_SENSE, descriptor=descriptor) == Modes(descriptor_sense=True)
    assert refused(descriptor=bytes(6) + b"\x10\0") == (0x2600, 9)  # blocks of 4 KiB
    assert refused(descriptor=(SECTORS - 1).to_bytes(4, "big") + (512).to_bytes(4, "big")) == (0x2600, 4)


@given(st.binary(max_size=80), st.booleans())
def test_no_parameter_list_raises_anything_but_sense(data: bytes, long_header: bool) -> None:
    with contextlib.suppress(CheckCondition):
        Modes().select(data, SECTORS, long_header=long_header)
