"""A boot beside others: what took longer, by how much, and where to look."""

from __future__ import annotations

from typing import Any

from bootlink.waterfall import beside


def step(name: str, took: float, last: float | None = None, peers: float | None = None) -> dict[str, Any]:
    return {"step": name, "at": took, "took": took, "last": last, "peers": peers}


STEPS = [
    step("address", 1.022, 1.018, 1.1),
    step("loader", 0.428, 0.43, None),
    step("login", 4.0, 0.08, 0.081),
    step("idle", 20.0, 19.6, 19.8),
    step("hello", 1.5),
    step("whole", 26.95, 22.0, 23.5),
]


def drawn(*steps: dict[str, Any], last: bool = True, peers: int = 23) -> list[str]:
    return [line.plain.rstrip() for line in beside(steps, last=last, peers=peers, version="win11 v3")]


def test_each_step_tells_how_much_longer_it_took_than_elsewhere() -> None:
    assert drawn(*STEPS) == [
        "step                               this boot   last boot    23 peers",
        "firmware has its address             1.022 s    +0.004 s    -0.078 s",
        "boot loader sent                     0.428 s    -0.002 s",
        "firmware has its disk                4.000 s    +3.920 s    +3.919 s  <",
        "system has read what it needed      20.000 s    +0.400 s    +0.200 s",
        "system says hello                    1.500 s",
        "first packet to system's disk       26.950 s    +4.950 s    +3.450 s",
        "peers: the median of 23 other PCs' latest boots from win11 v3",
    ]


def test_without_a_boot_before_or_without_peers_there_is_no_column_for_them() -> None:
    assert drawn(STEPS[0], last=False, peers=1)[0].split() == ["step", "this", "boot", "1", "peer"]
    assert drawn(STEPS[0], peers=0)[-1] == "no other PC booted this version"
    assert drawn(STEPS[0], last=False, peers=0) == []
    assert drawn() == []


def test_a_step_is_marked_where_it_is_slower_than_all_that_it_is_compared_with() -> None:
    marked = [line.endswith("<") for line in drawn(step("login", 2.0, 1.0, 1.9), step("login", 2.0, 1.0, None))[1:3]]
    assert marked == [False, True]


def test_no_line_is_wider_than_the_narrowest_waterfall() -> None:
    wide = [step("a step that this version does not know, with a very long name", 99_999.5, 1.0, 1.0), *STEPS]
    assert max(len(line) for line in drawn(*wide)) <= 72
