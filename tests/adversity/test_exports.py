"""S1: an export that ends anywhere leaves the layer whole, or no layer at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from rigs import commits, exports
from rigs.figures import Violation


def test_an_export_that_is_killed_before_any_of_its_calls_leaves_no_half_layer_and_can_begin_again(
    tmp_path: Path,
) -> None:
    figures = exports.killed(60, 20261124, tmp_path)
    assert int(figures["kills"]) >= 60
    assert int(figures["exports"]) >= 2, "a differencing layer, and a whole one"


def test_no_power_cut_leaves_a_half_layer_or_takes_one_away_that_was_done(tmp_path: Path) -> None:
    figures = exports.cut(250, 20261124, tmp_path)
    assert int(figures["states"]) >= 250
    assert int(figures["exports"]) >= 2


def test_a_block_store_that_is_killed_while_it_exports_loses_neither_the_layer_nor_the_clients_disk(
    tmp_path: Path,
) -> None:
    assert commits.run(3, 20261124, tmp_path)["violations"] == 0


@pytest.mark.parametrize("fault", exports.FAULTS)
def test_the_rig_finds_each_fault_that_is_planted(fault: str, tmp_path: Path) -> None:
    with exports.planted(fault), pytest.raises(Violation):
        exports.cut(2000, 1, tmp_path)
