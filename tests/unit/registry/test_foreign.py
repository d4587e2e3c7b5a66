"""Images of other programs, by their headers: what is let at qemu-img, whatever the bytes are."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bootlink_registry.imaging.foreign import LOOKS, ForeignFormat, recognise, require_alone, require_sound
from bootlink_registry.problems import Problem
from lab.disks import pread_of

MAGICS: dict[ForeignFormat, bytes] = {"qcow2": b"QFI\xfb", "vmdk": b"KDMV", "vdi": bytes(0x40) + b"\x7f\x10\xda\xbe"}
DISK = {"virtual-size": 1 << 20}


def words(magic: bytes) -> st.SearchStrategy[bytes]:
    """Files that begin well, and go on with numbers that matter."""
    numbers = st.sampled_from([0, 1, 2, 3, 4, 20, 512, 1 << 31, (1 << 32) - 1])
    return st.lists(numbers, max_size=160).map(lambda found: magic + struct.pack(f">{len(found)}I", *found))


def judged(data: bytes, format_: ForeignFormat) -> Problem | None:
    try:
        require_alone(pread_of(data), format_, len(data))
    except Problem as problem:
        return problem
    return None


@given(st.sampled_from(sorted(MAGICS)).flatmap(lambda name: st.tuples(st.just(name), words(MAGICS[name]))))
@example(("vmdk", b"KDMV"))
@example(("qcow2", b"QFI\xfb\0\0\0\3"))
def test_any_bytes_are_let_through_or_a_problem(found: tuple[ForeignFormat, bytes]) -> None:
    format_, data = found
    for look in LOOKS:
        problem = judged(data, look)
        assert problem is not None or look == format_
        assert problem is None or (problem.status == 422 and problem.detail and problem.remedy)


@pytest.mark.parametrize("format_", sorted(MAGICS))
def test_they_are_known_by_their_first_bytes(format_: ForeignFormat) -> None:
    assert recognise(pread_of(MAGICS[format_])) == format_
    assert recognise(pread_of(b"")) is None
    assert recognise(pread_of(bytes(4096))) is None


@pytest.mark.parametrize(
    "said",
    [
        {"backing-filename": "/etc/shadow"},
        {"full-backing-filename": "/etc/shadow"},
        {"encrypted": True},
        {"format-specific": {"data": {"data-file": "/etc/shadow"}}},
        {"format-specific": {"data": {"encrypt": {"format": "luks"}}}},
        {"format-specific": {"data": {"extents": [{"filename": "this"}, {"filename": "/etc/shadow"}]}}},
        {"virtual-size": 0},
        {"virtual-size": 1000},
        {"virtual-size": 1 << 62},
        {"virtual-size": None},
    ],
)
def test_what_qemu_img_says_of_it_is_the_second_look(said: dict[str, Any]) -> None:
    assert require_sound({**DISK, "format-specific": {"data": {"extents": [{"filename": "this"}]}}}, "this") == 1 << 20
    with pytest.raises(Problem):
        require_sound({**DISK, **said}, "this")
