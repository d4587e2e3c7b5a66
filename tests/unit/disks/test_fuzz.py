"""The one invariant: whatever the bytes of a file, it is refused with DiskError, or every run of its map lies in it.

Nothing else is raised, no more is read at once than MAX_READ, and no case takes longer than DEADLINE.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from datetime import timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bootlink_disks import DiskError, Kind, vhd
from bootlink_disks.layer import Pread, Structure
from bootlink_disks.open import FORMATS, recognise
from lab.disks import DISK_ID, dynamic_vhd, reseal_footer, reseal_header

DYNAMIC = bytes(dynamic_vhd(blocks=[(0, b"a" * 4096), (5, b"b" * 4096), (15, b"c" * 4096)]))
FIXED = bytes(8192) + bytes(vhd.Footer(vhd.FIXED, 8192, DISK_ID))
MAX_READ = 16 << 20  # bytes: the largest BAT
DEADLINE = timedelta(seconds=5)  # no measure of speed: a busy machine passes, an endless loop does not

EDGES = st.sampled_from([0, 1, 3, 511, 512, 4095, 4096, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]) | st.integers(
    0, 2**32 - 1
)
FIELDS = st.sampled_from([8, 12, 16, 20, 40, 44, 48, 52, 56, 60]) | st.integers(0, 508)
HEADER_FIELDS = st.sampled_from([8, 12, 16, 20, 24, 28, 32]) | st.integers(0, 1020)
MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("footer"), FIELDS, EDGES),
        st.tuples(st.just("last"), FIELDS, EDGES),
        st.tuples(st.just("header"), HEADER_FIELDS, EDGES),
        st.tuples(st.just("table"), st.integers(0, 127).map(lambda n: n * 4), EDGES | st.integers(0, 40)),
        st.tuples(st.just("byte"), st.integers(0, len(DYNAMIC) - 1), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.integers(0, len(DYNAMIC)), st.just(0)),
        st.tuples(st.just("grow"), st.integers(0, 70_000), st.just(0)),
    ),
    min_size=1,
    max_size=4,
)


def judge(data: bytes | bytearray) -> None:
    def pread(offset: int, length: int) -> bytes:
        assert offset >= 0
        assert 0 <= length <= MAX_READ
        return bytes(data[offset : offset + length])

    def probed(pread: Pread, size: int) -> Structure:
        return FORMATS[recognise(pread, size, "a.bin")](pread, size)

    for parse in (probed, *FORMATS.values()):
        with suppress(DiskError):
            prove_safe(parse(pread, len(data)), len(data))


def prove_safe(structure: Structure, file_size: int) -> None:
    disk = structure.map
    assert 0 < disk.size <= vhd.MAX_SIZE
    assert disk.size % 512 == 0
    for offset in {0, disk.size // 2 // 512 * 512, disk.size - 512}:
        length = min(128 << 10, disk.size - offset)
        runs = disk.locate(offset, length)
        assert sum(run.length for run in runs) == length
        for kind, at, size in runs:
            assert size > 0
            assert kind is not Kind.DATA or 0 <= at <= file_size - size


@settings(max_examples=400, deadline=DEADLINE)
@given(MUTATIONS, st.booleans())
@example([("table", 4, 4)], True)
@example([("header", 28, 2**32 - 1)], True)
def test_a_mutated_dynamic_vhd_is_refused_or_safe(mutations: list[tuple[str, int, int]], sealed: bool) -> None:
    data = bytearray(DYNAMIC)
    for what, at, value in mutations:
        if what == "byte":
            data[min(at, len(data) - 1) : at + 1] = bytes([value])
        elif what == "cut":
            del data[at:]
        elif what == "grow":
            data += bytes(at)
        else:
            base = {"footer": 0, "header": 512, "table": 1536, "last": len(data) - 512}[what]
            if base >= 0 and base + at + 4 <= len(data):
                struct.pack_into(">I", data, base + at, value)
    if sealed and len(data) >= 2048:  # right checksums, or nothing behind them would ever be tried
        reseal_footer(data, 0)
        reseal_footer(data, len(data) - 512)
        reseal_header(data)
    judge(data)


@settings(deadline=DEADLINE)
@given(st.integers(0, 508), EDGES, st.booleans(), st.integers(0, 9000))
def test_a_mutated_fixed_vhd_is_refused_or_safe(at: int, value: int, sealed: bool, cut: int) -> None:
    data = bytearray(FIXED[min(cut, 8192) :] if sealed else FIXED[: len(FIXED) - cut // 8])
    footer = len(data) - 512
    if footer >= 0:
        struct.pack_into(">I", data, footer + at, value)
        if sealed:
            reseal_footer(data, footer)
    judge(data)


@settings(deadline=DEADLINE)
@given(st.binary(max_size=4096))
def test_any_bytes_are_refused_or_safe(data: bytes) -> None:
    judge(data)
