"""K1, K2, D7: what a power cut may leave of a write-back, whenever it comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rigs import crash_states
from rigs.figures import Violation


def test_no_power_cut_loses_what_was_flushed_or_shows_what_never_was(tmp_path: Path) -> None:
    assert crash_states.run(600, 20261124, tmp_path)["crash states"] == 600


# Where a workload comes soon that shows it; all others show in the first.
SEEDS = {"a flush syncs no marks": 22, "a flush syncs no marks of the boot before": 110}


@pytest.mark.parametrize("fault", crash_states.FAULTS)
def test_the_rig_finds_each_fault_that_is_planted(fault: str, tmp_path: Path) -> None:
    with crash_states.planted(fault), pytest.raises(Violation):
        crash_states.run(600, SEEDS.get(fault, 1), tmp_path)
