"""The outbox: what was committed is published once, wherever the registry is killed in between."""

from __future__ import annotations

from pathlib import Path

from rigs import relay_kills
from rigs.dying_relay import KINDS


def test_a_registry_killed_at_each_step_between_commit_and_publish_loses_and_doubles_no_event(tmp_path: Path) -> None:
    figures = relay_kills.run(KINDS, 0, tmp_path)
    assert figures["events"] == relay_kills.CHANGES * KINDS
    assert int(figures["found again by a later life"]) > 0
