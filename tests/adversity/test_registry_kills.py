"""S1: a commit is all or nothing, wherever the registry is killed."""

from __future__ import annotations

from pathlib import Path

from rigs import registry_kills

EACH = 2  # of so many steps one is died at here, which takes half a minute; `make soak` does all


def test_a_registry_killed_at_any_step_of_a_commit_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    figures = registry_kills.run(1, 20261124, tmp_path, stride=EACH)
    assert int(figures["commits"]) == 1
    assert int(figures["kills"]) > 15
