"""What the cache keeps when one PC reads everything once, beside LRU with the same room. Replayed block by block."""

from __future__ import annotations

import random

import pytest

from bootlink_blockstore.cache import BLOCK, ENTRY_COST, GHOST_LEAST
from lab import boot_reads
from lab.replay import Lru, Ours, hits, made_up_boot, scan, uses_of, virus_scan

BOOT = boot_reads.load()


@pytest.mark.parametrize("ahead", [0, 16])
def test_a_virus_scan_leaves_what_pcs_boot_from_where_lru_drops_it(
    ahead: int,
) -> None:
    """The recorded boot's working set, a cache of one and a half of it, and a scan of the whole disk."""
    working = len(BOOT.blocks(BLOCK))
    ours, lru = virus_scan(uses_of(BOOT), room=20, blocks=working * 3 // 2, disk=BOOT.size // BLOCK, ahead=ahead)
    print(ours, lru, sep="\n")
    assert ours.warm == lru.warm == 1.0
    assert ours.after >= 0.99
    assert ours.during >= 0.99
    assert ours.again <= working * BLOCK / 100
    assert lru.again >= working * BLOCK * 0.9


def test_a_scattered_working_set_that_nearly_fills_the_cache_outlives_a_scan_of_a_hundred_times_its_size() -> None:
    boot = made_up_boot(256, 32_768, 4_000, random.Random(7))
    ours, lru = virus_scan(boot, room=5, blocks=300, disk=32_768)
    assert ours.after >= 0.99
    assert lru.again >= 250 * BLOCK


def test_a_room_that_boots_something_else_from_now_on_is_served_from_ram_again() -> None:
    """Keeping is not everything: when the working set changes, the new one must come in."""
    choice = random.Random(3)
    former, now = (made_up_boot(200, 32_768, 2_000, choice) for _ in range(2))
    policy = Ours(250, 32_768)
    for _ in range(20):
        hits(policy, former)
    rates = [hits(policy, now) for _ in range(6)]
    assert rates[-1] == 1.0, rates


def test_a_block_that_was_dropped_too_early_comes_back_to_stay() -> None:
    """What was read once before a scan is lost to it, but remembered: its next reader makes it one of the hot ones."""
    policy = Ours(200, 32_768)
    hits(policy, [(block, 0) for _ in range(4) for block in range(20_000, 20_160)])
    once = [(block, 0) for block in range(30_000, 30_020)]
    hits(policy, once)
    for step, _ in enumerate(scan(policy, 32_768)):
        if step == 30:
            break
    assert hits(policy, once) == 0.0
    for _ in scan(policy, 5_000):
        pass
    assert hits(policy, once) == 1.0


def test_both_policies_of_the_replay_have_the_same_room() -> None:
    ours, lru = Ours(100, 1_000), Lru(100, 1_000)
    for block in range(1_000):
        ours.use(block, 0)
        lru.use(block, 0)
    assert ours.cache.entries == len(lru._held) == 100
    assert ours.cache.budget == 100 * (BLOCK + ENTRY_COST)
    assert GHOST_LEAST < 100
