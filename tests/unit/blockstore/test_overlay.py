"""The overlay: pages, their map, and its rebuilding from the file system's own record."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_blockstore import overlay as module
from bootlink_blockstore.overlay import ZERO_MARK, HoleError, Overlay, probe, zeros_path
from bootlink_blockstore.pagemap import ABSENT, CHUNK, PAGE, PRESENT, ZEROED

SIZE = 64 << 20


def test_a_new_overlay_has_no_page_and_takes_no_space(tmp_path: Path) -> None:
    overlay = Overlay.create(tmp_path / "o", SIZE)
    assert (overlay.pages, overlay.disk_usage, os.fstat(overlay.fd).st_size) == (0, 0, SIZE)
    assert next(iter(overlay.runs(0, SIZE))) == (ABSENT, 0, CHUNK * PAGE)
    overlay.close()
    overlay.close()


def test_a_disk_that_ends_within_a_page_has_a_whole_last_page(tmp_path: Path) -> None:
    overlay = Overlay.create(tmp_path / "o", PAGE + 512)
    assert os.fstat(overlay.fd).st_size == 2 * PAGE
    overlay.close()


def test_an_overlay_is_never_created_over_another(tmp_path: Path) -> None:
    Overlay.create(tmp_path / "o", SIZE).close()
    with pytest.raises(FileExistsError):
        Overlay.create(tmp_path / "o", SIZE)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 3 * CHUNK), st.integers(1, 40)), max_size=12),
    st.integers(0, 3 * CHUNK),
    st.integers(1, 2 * CHUNK),
)
def test_the_map_after_reopening_is_the_map_before(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int]], first: int, count: int
) -> None:
    path = tmp_path_factory.mktemp("o") / "o"
    overlay = Overlay.create(path, SIZE)
    expected = set()
    for page, pages in writes:
        overlay.write(page * PAGE, [b"x" * PAGE] * pages)
        overlay.mark(page, page + pages)
        expected |= set(range(page, page + pages))
    again = Overlay.reopen(path, SIZE)
    for o in (overlay, again):
        assert o.pages == len(expected)
        assert {page for page in range(SIZE // PAGE) if o.state(page) == PRESENT} == expected
        runs = list(o.runs(first * PAGE + 512, count * PAGE))
        assert runs[0][1] == first * PAGE + 512
        assert runs[-1][2] == (first + count) * PAGE + 512
        assert all(a[2] == b[1] for a, b in itertools.pairwise(runs))
        for state, start, end in runs:
            assert {page in expected for page in range(start // PAGE, -(-end // PAGE))} == {state == PRESENT}
        assert o.touches(first * PAGE, count * PAGE) == bool(expected & set(range(first, first + count)))
        o.close()


def test_a_page_of_zeros_that_was_written_is_present_after_reopening(tmp_path: Path) -> None:
    overlay = Overlay.create(tmp_path / "o", SIZE)
    overlay.write(5 * PAGE, [bytes(PAGE)])
    overlay.close()
    again = Overlay.reopen(tmp_path / "o", SIZE)
    assert again.state(5) == PRESENT
    assert again.pages == 1
    again.close()


def test_an_overlay_of_another_size_is_refused(tmp_path: Path) -> None:
    Overlay.create(tmp_path / "o", SIZE).close()
    with pytest.raises(ValueError, match="bytes, not the"):
        Overlay.reopen(tmp_path / "o", SIZE * 2)
    os.truncate(tmp_path / "o.zeros", 1)
    with pytest.raises(ValueError, match="bytes, not the"):
        Overlay.reopen(tmp_path / "o", SIZE)
    (tmp_path / "o.zeros").unlink()
    with pytest.raises(FileNotFoundError):
        Overlay.reopen(tmp_path / "o", SIZE)


def test_pages_that_were_given_back_are_so_after_reopening_unless_they_were_written_again(tmp_path: Path) -> None:
    overlay = Overlay.create(tmp_path / "o", SIZE)
    overlay.write(4 * PAGE, [b"x" * (4 * PAGE)])
    overlay.mark_zeros(0, 6)
    overlay.punch(0, 6)
    overlay.write(1 * PAGE, [b"y" * PAGE])
    overlay.mark_zeros(2 * CHUNK - 1, 3 * CHUNK + 1)
    overlay.close()
    again = Overlay.reopen(tmp_path / "o", SIZE)
    assert [again.state(page) for page in range(9)] == [ZEROED, PRESENT, *[ZEROED] * 4, PRESENT, PRESENT, ABSENT]
    assert again.count(0, SIZE // PAGE, ZEROED) == 5 + CHUNK + 2
    assert again.pages == 3
    assert again.disk_usage <= 3 * PAGE + 4 * PAGE, "the marks of two chunks and their neighbours, and three pages"
    again.close()


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("held", [0, ZERO_MARK])
def test_any_bit_that_flips_in_the_marks_refuses_the_overlay(tmp_path: Path, bit: int, held: int) -> None:
    overlay = Overlay.create(tmp_path / "o", SIZE)
    overlay.mark_zeros(100, 200)
    overlay.close()
    at = 150 if held else 5000
    with zeros_path(tmp_path / "o").open("r+b") as marks:
        marks.seek(at)
        assert marks.read(1) == bytes((held,))
        marks.seek(at)
        marks.write(bytes((held ^ 1 << bit,)))
    with pytest.raises(ValueError, match=r"o\.zeros: damaged near byte"):
        Overlay.reopen(tmp_path / "o", SIZE)


def test_more_buffers_than_one_system_call_takes_are_written_in_order(tmp_path: Path) -> None:
    overlay = Overlay.create(tmp_path / "o", SIZE)
    buffers = [bytes([n % 251]) * 512 for n in range(1600)]
    overlay.write(0, buffers)
    assert overlay.read(0, 1600 * 512) == b"".join(buffers)
    assert overlay.read_now(0, 1600 * 512) in (None, b"".join(buffers))
    overlay.close()


def test_the_file_system_of_the_tests_reports_holes_page_by_page(tmp_path: Path) -> None:
    probe(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_loses_pages_of_zeros_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.extents
    monkeypatch.setattr(module, "extents", lambda fd, size: list(real(fd, size))[:-1])  # as ZFS with compression
    with pytest.raises(HoleError, match="data at"):
        probe(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_with_blocks_smaller_than_a_page_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.extents

    def small(fd: int, size: int) -> list[tuple[int, int]]:  # as ext4 with blocks of 1 KiB
        return [(start, start + 1024 if start == 60 * PAGE else end) for start, end in real(fd, size)]

    monkeypatch.setattr(module, "extents", small)
    with pytest.raises(HoleError):
        probe(tmp_path)


def test_a_file_system_that_punches_no_holes_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_fd: int, _offset: int, _length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    for stub in (cannot, lambda *_: None):
        monkeypatch.setattr(module, "punch", stub)
        with pytest.raises(HoleError, match="hole"):
            probe(tmp_path)


def test_recall_marks_what_the_file_has_of_a_range_and_nothing_else(tmp_path: Path) -> None:
    overlay = Overlay.create(tmp_path / "o", 1 << 20)
    for page in (1, 4, 5, 9):
        overlay.write(page * PAGE, [b"x" * PAGE])
    overlay.recall(2 * PAGE, 4 * PAGE)
    assert [page for page in range(16) if overlay.state(page) == PRESENT] == [4, 5]
    overlay.close()
