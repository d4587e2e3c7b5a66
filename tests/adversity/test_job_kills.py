"""A seal and a compaction are all or nothing, wherever the registry is killed."""

from __future__ import annotations

from pathlib import Path

from rigs import job_kills

EACH = 8  # of so many steps one is died at here, as each death takes seconds; `make soak` does all


def test_a_registry_killed_at_any_step_of_a_seal_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    figures = job_kills.seals(1, 20261124, tmp_path, stride=EACH)
    assert int(figures["seals"]) == 1
    assert int(figures["kills"]) > 3


def test_a_registry_killed_at_any_step_of_a_compaction_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    figures = job_kills.compactions(1, 20261124, tmp_path, stride=EACH)
    assert int(figures["compactions"]) == 1
    assert int(figures["kills"]) > 3
