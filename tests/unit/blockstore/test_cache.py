"""The RAM cache: its budget, what counts as a use, and what is forgotten. (For scans see test_replacement.)"""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_blockstore.cache import BLOCK, ENTRY_COST, GHOST_LEAST, SWEEP_BLOCKS, USE, ZEROS, Cache, Shelf

ONE = BLOCK + ENTRY_COST
BLOCKS = 4_096  # of a shelf


def block(key: int) -> bytes:
    return (key + 1).to_bytes(8, "big") * (BLOCK // 8)


def shelf_of(cache: Cache) -> Shelf:
    return cache.shelf(BLOCKS)


def use(cache: Cache, shelf: Shelf, number: int, at: int = 0) -> bool:
    """Read from byte `at` of a block; whether it was a hit."""
    if number not in shelf.blocks:
        cache.put(shelf, number, block(number), at)
        return False
    shelf.touch(number, at)
    return True


def uses(shelf: Shelf, number: int) -> int:
    return shelf.state[number] // USE


Use = tuple[int, int, int]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.sampled_from([-1, 0, 4096, 8192])), max_size=400),
    st.integers(1, 12),
)
def test_the_budget_holds_and_every_block_is_what_was_put(reads: list[Use], blocks: int) -> None:
    cache = Cache(blocks * ONE)
    shelves = [shelf_of(cache) for _ in range(3)]
    for which, number, at in reads:
        shelf = shelves[which]
        if at < 0:
            cache.put(shelf, number, ZEROS if number % 5 == 0 else block(number), -1, marked=number % 3 == 0)
            shelf.claim(number)
        else:
            use(cache, shelf, number, at)
        assert cache.used <= cache.budget
        assert shelf.blocks[number] in (block(number), ZEROS)
        assert cache.entries == sum(len(s.blocks) for s in shelves)
        for s in shelves:
            assert s.bytes_held == sum(ENTRY_COST + (0 if data is ZEROS else BLOCK) for data in s.blocks.values())
        assert cache.used == sum(s.bytes_held for s in shelves)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30), st.booleans()), max_size=300), st.integers(2, 10))
def test_layers_that_come_and_go_leave_nothing_behind(reads: list[tuple[int, int, bool]], blocks: int) -> None:
    cache = Cache(blocks * ONE)
    shelves = [shelf_of(cache), shelf_of(cache)]
    for which, number, forget in reads:
        if forget:
            cache.forget(shelves[which])
            shelves[which] = shelf_of(cache)
        use(cache, shelves[which], number)
        assert number in shelves[which].blocks
        assert cache.used <= cache.budget
    while cache.sweep():
        pass
    for shelf in shelves:
        cache.forget(shelf)
    while cache.sweep():
        pass
    assert cache.entries == 0
    last = shelf_of(cache)
    for number in range(blocks * 100):
        use(cache, last, number)
    keys = len(cache._small) + len(cache._main) - cache.entries
    assert cache.used == last.bytes_held + keys * ENTRY_COST, "keys that wait for their turn, and nothing else"


def test_a_block_of_zeros_costs_an_entry_only() -> None:
    cache = Cache(4 * ONE)
    shelf = shelf_of(cache)
    for number in range(100):
        cache.put(shelf, number, ZEROS, 0)
    assert cache.entries == 100
    assert cache.used == 100 * ENTRY_COST


def test_an_evicted_block_that_is_being_sent_stays_alive() -> None:
    cache = Cache(ONE)
    shelf = shelf_of(cache)
    cache.put(shelf, 1, block(1), 0)
    view = memoryview(shelf.blocks[1])[:4096]
    cache.put(shelf, 2, block(2), 0)
    assert 1 not in shelf
    assert view == block(1)[:4096]


def test_the_second_put_of_a_block_keeps_the_first() -> None:
    cache = Cache(4 * ONE)
    shelf = shelf_of(cache)
    first = cache.put(shelf, 1, block(1), 0)
    assert cache.put(shelf, 1, block(1), 0) is first
    assert cache.used == ONE


@pytest.mark.parametrize("step", [1024, 4096, 32768])
def test_reading_a_block_in_pieces_from_front_to_back_is_one_use(step: int) -> None:
    cache = Cache(4 * ONE)
    shelf = shelf_of(cache)
    for at in range(0, BLOCK, step):
        use(cache, shelf, 1, at)
    assert uses(shelf, 1) == 0
    for n in range(10):
        use(cache, shelf, 1, 0)
        assert uses(shelf, 1) == min(n + 1, 3)


def test_a_block_that_was_read_ahead_is_not_used_by_its_first_reader() -> None:
    cache = Cache(4 * ONE)
    shelf = shelf_of(cache)
    for number, marked in ((1, False), (2, True)):
        cache.put(shelf, number, block(number), -1, marked=marked)
        assert (shelf.claim(number) is not None) == marked
        use(cache, shelf, number, 0)
        assert uses(shelf, number) == 0
        use(cache, shelf, number, 0)
        assert uses(shelf, number) == 1


def test_what_was_read_ahead_and_never_wanted_is_counted_when_it_goes() -> None:
    cache = Cache(10 * ONE)
    shelf = shelf_of(cache)
    for number in range(10):
        cache.put(shelf, number, block(number), -1, marked=number == 5)
    for number in range(3):
        use(cache, shelf, number)
    for number in range(100, 120):
        use(cache, shelf, number)
    assert shelf.wasted == 7
    assert shelf.evicted == 20


def test_a_forgotten_layer_goes_in_slices_or_when_room_is_needed() -> None:
    short = bytes(512)
    cache = Cache(3 * SWEEP_BLOCKS * (ENTRY_COST + len(short)))
    large, other = shelf_of(cache), shelf_of(cache)
    for number in range(3 * SWEEP_BLOCKS):
        cache.put(large, number, short, 0)
    cache.forget(large)
    assert cache.entries == 0, "out of reach at once"
    assert cache.sweep()
    assert len(large.blocks) == 2 * SWEEP_BLOCKS
    while len(large.blocks) == 2 * SWEEP_BLOCKS:
        cache.put(other, len(other.blocks), block(1), 0)
    assert len(large.blocks) == SWEEP_BLOCKS, "there was no room for a new block"
    assert not cache.sweep()
    assert not large.blocks
    assert cache.used <= cache.budget
    assert cache.put(large, 1, block(1), 0) == block(1), "a late read is answered, and not held"
    assert not large.blocks


def test_what_is_remembered_of_evicted_blocks_is_bounded() -> None:
    cache = Cache(50 * ONE)
    shelf = shelf_of(cache)
    for number in range(BLOCKS):
        use(cache, shelf, number)
        use(cache, shelf, number % 7)
    assert len(cache._ghosts) <= max(GHOST_LEAST, len(cache._main))
    assert set(cache._ghosts) >= cache._ghost


def test_the_collector_has_nothing_to_look_at_however_much_is_held() -> None:
    cache = Cache(1 << 30)
    shelf = shelf_of(cache)
    gc.collect()
    before = len(gc.get_objects())
    for number in range(BLOCKS):
        cache.put(shelf, number, ZEROS, 0)
    assert len(gc.get_objects()) - before < 50
