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
from bootlink_disks.vhdx_header import HEADERS_AT, TABLE_SIZE, TABLES_AT, sealed
from lab.disks import DISK_ID, MIB, dynamic_vhd, reseal_footer, reseal_header
from lab.vhdx import DATA_WRITE, FULL, LOG, PART, Vhdx, locator, log_entry

DYNAMIC = bytes(dynamic_vhd(blocks=[(0, b"a" * 4096), (5, b"b" * 4096), (15, b"c" * 4096)]))
WHOLE_VHDX = bytes(Vhdx(2 * MIB, {0: (FULL, b"a" * MIB)}, log=log_entry(3, [(3 * MIB, bytes(4096))]), log_guid=LOG))
CHILD_VHDX = bytes(Vhdx(2 * MIB, {0: (PART, b"a"), 1: (2, b"")}, parent=locator(DATA_WRITE), bits={0: 0xF0F0}))
FIXED = bytes(8192) + bytes(vhd.Footer(vhd.FIXED, 8192, DISK_ID))
MAX_READ = 16 << 20  # bytes: the largest log
MAX_SIZE = 64 << 40  # bytes: the largest VHDX
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
    assert 0 < disk.size <= MAX_SIZE
    assert disk.size % 512 == 0
    for offset in {0, disk.size // 2 // 512 * 512, disk.size - 512}:
        length = min(128 << 10, disk.size - offset)
        runs = disk.locate(offset, length)
        assert sum(run.length for run in runs) == length
        for kind, at, size in runs:
            assert size > 0
            assert kind is not Kind.DATA or 0 <= at <= file_size - size


@settings(max_examples=400, deadline=DEADLINE)
@given(MUTATIONS, st.booleans(), st.sampled_from([vhd.DYNAMIC, vhd.DIFFERENCING]))
@example([("table", 4, 4)], True, vhd.DYNAMIC)
@example([("header", 28, 2**32 - 1)], True, vhd.DIFFERENCING)
def test_a_mutated_vhd_in_blocks_is_refused_or_safe(
    mutations: list[tuple[str, int, int]], sealed: bool, kind: int
) -> None:
    data = bytearray(DYNAMIC)
    data[63] = data[-512 + 63] = kind
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


WIDE = st.sampled_from([0, 1, 6, 7, MIB, 3 * MIB | 6, 2**32, 2**44 - 1, 2**63, 2**64 - MIB, 2**64 - 1])
PLACES = st.one_of(
    st.tuples(st.sampled_from(HEADERS_AT), st.integers(0, 10)),
    st.tuples(st.sampled_from(TABLES_AT), st.integers(0, 10)),
    st.tuples(st.sampled_from([MIB, 2 * MIB, 2 * MIB + (64 << 10), 3 * MIB, 3 * MIB + 8 * 4096]), st.integers(0, 40)),
)


@settings(max_examples=150, deadline=DEADLINE)
@given(
    st.sampled_from([WHOLE_VHDX, CHILD_VHDX]),
    st.lists(st.tuples(PLACES, WIDE | st.integers(0, 2**64 - 1)), min_size=1, max_size=4),
    st.booleans(),
    st.integers(0, 5 * MIB),
)
def test_a_mutated_vhdx_is_refused_or_safe(
    file: bytes, mutations: list[tuple[tuple[int, int], int]], right: bool, size: int
) -> None:
    data = bytearray(file if right else file[:size])
    for (base, field), value in mutations:
        if base + field * 8 + 8 <= len(data):
            struct.pack_into("<Q", data, base + field * 8, value)
    if right:  # checksums, or nothing behind them would ever be tried
        for at, length in [(at, 4096) for at in HEADERS_AT] + [(at, TABLE_SIZE) for at in TABLES_AT] + [(MIB, 8192)]:
            data[at : at + length] = sealed(bytes(data[at : at + length]))
    judge(data)
