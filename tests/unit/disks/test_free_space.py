"""Free space: bitmaps, and which file systems are believed."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_disks import ntfs
from bootlink_disks.bitmap import FreeSpace


@given(st.binary(min_size=1, max_size=40), st.integers(0, 7), st.data())
def test_free_ranges_are_those_of_the_clear_bits(bits: bytes, short: int, data: st.DataObject) -> None:
    count = len(bits) * 8 - short
    space = FreeSpace(1024, 512, count, bits).moved(512)
    offset = data.draw(st.integers(0, 1536 + count * 512))
    length = data.draw(st.integers(1, 1536 + count * 512))
    found = list(space.within(offset, length))
    model = {
        at
        for block in range(count)
        if not bits[block >> 3] & 1 << (block & 7)
        for at in range(1536 + block * 512, 1536 + (block + 1) * 512, 1)
        if offset <= at < offset + length
    }
    assert {at for start, stop in found for at in range(start, stop)} == model
    assert all(stop < start for (_, stop), (start, _) in pairwise(found))


def page(number: int, in_use: int, flags: int = 0, at: int = 48) -> bytes:
    """A restart page of NTFS's log."""
    head = struct.pack("<4sHHQIIH", b"RSTR", 30, 9, 0, 4096, 4096, at).ljust(at, b"\0")
    return (head + struct.pack("<QHHHH", number, 1, 0xFFFF, in_use, flags)).ljust(4096, b"\0")


@pytest.mark.parametrize(
    ("log", "closed"),
    [
        (b"\xff" * 8192, True),  # never used
        (page(1, 0xFFFF) + page(2, 0xFFFF), True),
        (page(1, 0) + page(2, 0xFFFF), True),  # the newer one counts
        (page(2, 0) + page(1, 0xFFFF), False),
        (page(1, 0, ntfs.LOG_CLEAN) + page(1, 0, ntfs.LOG_CLEAN), True),
        (page(1, 0xFFFF) + bytes(4096), True),
        (bytes(8192), False),
        (b"", False),
        (page(1, 0xFFFF, at=3000) + page(1, 0xFFFF, at=8), False),  # not where such a thing can be
        (page(1, 0xFFFF).replace(b"RSTR", b"CHKD") + bytes(4096), False),
    ],
)
def test_a_volume_is_closed_when_its_newer_restart_page_says_so(log: bytes, closed: bool) -> None:
    assert ntfs._is_closed(log) is closed
