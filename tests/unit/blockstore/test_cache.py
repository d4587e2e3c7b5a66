"""The RAM cache: its budget, and what a scan may not do to it."""

from __future__ import annotations

import random
from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from bootlink_blockstore.cache import BLOCK, ENTRY_COST, ZEROS, Cache

ONE = BLOCK + ENTRY_COST


def block(key: int) -> bytes:
    return (key + 1).to_bytes(8, "big") * (BLOCK // 8)


def use(cache: Cache, key: int, at: int = 0) -> bool:
    """Read from byte `at` of a block; whether it was a hit."""
    entry = cache.entries.get(key)
    if entry is None:
        cache.put(key, block(key), at)
        return False
    entry.touch(at)
    return True


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 4096, 8192])), max_size=400), st.integers(1, 12))
def test_the_budget_holds_and_every_block_is_what_was_put(uses: list[tuple[int, int]], blocks: int) -> None:
    cache = Cache(blocks * ONE)
    for key, at in uses:
        use(cache, key, at)
        assert cache.used <= cache.budget
        assert cache.used == sum(entry.cost for entry in cache.entries.values())
        assert cache.entries[key].view == block(key)


def test_a_block_of_zeros_costs_an_entry_only() -> None:
    cache = Cache(4 * ONE)
    for key in range(100):
        cache.put(key, bytes(BLOCK), 0)
    assert len(cache.entries) == 100
    assert cache.used == 100 * ENTRY_COST
    assert cache.entries[0].view.obj is ZEROS


def test_an_evicted_block_that_is_being_sent_stays_alive() -> None:
    cache = Cache(ONE)
    cache.put(1, block(1), 0)
    view = cache.entries[1].view[:4096]
    cache.put(2, block(2), 0)
    assert 1 not in cache.entries
    assert view == block(1)[:4096]


def test_the_second_put_of_a_block_keeps_the_first() -> None:
    cache = Cache(4 * ONE)
    first = cache.put(1, block(1), 0)
    assert cache.put(1, block(1), 0) is first
    assert cache.used == ONE


def test_reading_a_block_in_pieces_from_front_to_back_is_one_use() -> None:
    cache = Cache(4 * ONE)
    for at in range(0, BLOCK, 4096):
        use(cache, 1, at)
    assert cache.entries[1].uses == 0
    use(cache, 1, 0)
    assert cache.entries[1].uses == 1


def test_a_block_that_was_read_ahead_is_not_used_by_its_first_reader() -> None:
    cache = Cache(4 * ONE)
    cache.put(1, block(1), -1)
    use(cache, 1, 0)
    assert cache.entries[1].uses == 0


def test_forgetting_a_layer_frees_its_blocks_and_no_others() -> None:
    cache = Cache(100 * ONE)
    for key in range(20):
        use(cache, key)
    cache.forget(5, 15)
    assert sorted(cache.entries) == [0, 1, 2, 3, 4, 15, 16, 17, 18, 19]
    assert cache.used == 10 * ONE
    for key in range(200):
        use(cache, key)
    assert cache.used <= cache.budget


def test_a_virus_scan_does_not_push_out_what_clients_boot_from() -> None:
    """A hot set that fits, then every block of a disk twenty times the cache read once in 4 KiB steps; against LRU."""
    hot, blocks, randomness = 60, 100, random.Random(7)
    cache = Cache(blocks * ONE)
    lru: OrderedDict[int, None] = OrderedDict()

    def lru_use(key: int) -> bool:
        hit = key in lru
        lru[key] = None
        lru.move_to_end(key)
        if len(lru) > blocks:
            lru.popitem(last=False)
        return hit

    for _ in range(10):
        for key in randomness.sample(range(hot), hot):
            use(cache, key, randomness.randrange(8) * 4096)
            lru_use(key)
    for key in range(1000, 1000 + 20 * blocks):
        for at in range(0, BLOCK, 4096):
            use(cache, key, at)
            lru_use(key)
    ours = sum(key in cache.entries for key in range(hot))
    theirs = sum(key in lru for key in range(hot))
    assert theirs == 0
    assert ours >= hot * 0.9
