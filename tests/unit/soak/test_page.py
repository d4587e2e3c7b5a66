"""The page that `make soak` writes."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from soak.page import PAGE, Result, render, write
from soak.table import RIGS


def test_a_new_block_takes_the_place_of_the_former_one_and_leaves_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = PAGE.read_text()
    page.write_text(text + "\nafter\n")
    for day in (1, 2):
        write(render([Result(RIGS[0], 200, 61.4, {"kills": 1200, "longest": 1.5})], 77, date(2026, 1, day)), page)
    held = page.read_text()
    assert "kills: 1,200; longest: 1.5" in held
    assert "2026-01-02, seed 77" in held
    assert "2026-01-01" not in held
    assert held.startswith(text.partition("<!--")[0])
    assert held.endswith("\nafter\n")


def test_every_rig_has_a_name_of_its_own() -> None:
    assert len({rig.name for rig in RIGS}) == len(RIGS)
