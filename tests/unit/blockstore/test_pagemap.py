"""The page map against a plain list of states."""

from __future__ import annotations

import itertools
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_blockstore.pagemap import ABSENT, CHUNK, PAGE, PRESENT, ZEROED, PageMap

PAGES = 3 * CHUNK + 100

EDGES = st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK, PAGES])
ENDS = st.tuples(EDGES | st.integers(0, PAGES), EDGES | st.integers(0, PAGES)).map(lambda pair: (min(pair), max(pair)))
STEPS = st.lists(st.tuples(ENDS, st.sampled_from([ABSENT, PRESENT, ZEROED, None])), max_size=12)


@settings(max_examples=150)
@given(STEPS, st.integers(0, PAGES * 8 - 1), st.integers(1, 2 * CHUNK * 8))
def test_a_page_map_is_a_list_of_states(
    steps: list[tuple[tuple[int, int], int | None]], sector: int, sectors: int
) -> None:
    pages, model = PageMap(PAGES * PAGE), [ABSENT] * PAGES
    for (first, end), state in steps:
        if state is None:
            pages.mask(first, end)
            model[first:end] = [held or ZEROED for held in model[first:end]]
        else:
            pages.mark(first, end, state)
            model[first:end] = [state] * (end - first)
        assert pages.pages == model.count(PRESENT)
        assert pages.count(first, end, ZEROED) == model[first:end].count(ZEROED)
    assert [pages.state(page) for page in range(PAGES)] == model
    offset, length = sector * 512, min(sectors, PAGES * 8 - sector) * 512
    runs = list(pages.runs(offset, length))
    assert (runs[0][1], runs[-1][2]) == (offset, offset + length)
    assert all(a[2] == b[1] for a, b in itertools.pairwise(runs))
    for state, start, end in runs:
        assert set(model[start // PAGE : -(-end // PAGE)]) == {state}
    assert pages.touches(offset, length) == any(state != ABSENT for state, _, _ in runs)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 60) | st.integers(1, 6000)), max_size=20), STEPS)
def test_filling_is_marking_run_by_run(
    gaps: list[tuple[int, int]], before: list[tuple[tuple[int, int], int | None]]
) -> None:
    runs, position = [], 0
    for gap, length in gaps:
        if position + gap + length <= PAGES:
            runs.append((position + gap, position + gap + length))
            position += gap + length
    filled, marked = PageMap(PAGES * PAGE), PageMap(PAGES * PAGE)
    for pages in (filled, marked):
        for (first, end), state in before:
            pages.mark(first, end, ZEROED if state is None else state)
    filled.fill(runs)
    for first, end in runs:
        marked.mark(first, end)
    assert filled.pages == marked.pages
    assert {n: bytes(c) for n, c in filled.chunks.items()} == {n: bytes(c) for n, c in marked.chunks.items()}


def test_a_large_disk_that_is_given_back_or_written_whole_costs_next_to_nothing() -> None:
    gigabytes = 60 << 30
    tracemalloc.start()
    try:
        for state in (ZEROED, PRESENT):
            pages = PageMap(gigabytes)
            before = tracemalloc.get_traced_memory()[0]
            for chunk in range(0, gigabytes // PAGE, CHUNK):  # as a trim comes: piece by piece, and in halves
                pages.mark(chunk, chunk + CHUNK // 2, state)
                pages.mask(chunk + CHUNK // 2, chunk + CHUNK)
                pages.mark(chunk + CHUNK // 2, chunk + CHUNK, state)
            assert tracemalloc.get_traced_memory()[0] - before < 512 << 10
    finally:
        tracemalloc.stop()
