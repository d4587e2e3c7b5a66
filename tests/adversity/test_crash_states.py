"""K1, K2, D7: what a power cut may leave of a write-back, whenever it comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootlink_blockstore.writeback import Writebacks
from lab.blockstore import Policy
from rigs import crash_states, drops
from rigs.figures import Violation


def test_no_power_cut_loses_what_was_flushed_or_shows_what_never_was(tmp_path: Path) -> None:
    assert crash_states.run(600, 20261124, tmp_path)["crash states"] == 600


# A workload that shows it, and its policy; all others show in the first with the policy keep.
SHOWN_BY: dict[str, tuple[int, Policy]] = {
    "a flush syncs no marks": (22, "keep"),
    "a flush syncs no marks of the boot before": (110, "keep"),
    "an overlay is removed before its manifest is": (5, "discard"),
}


@pytest.mark.parametrize("fault", crash_states.FAULTS)
def test_the_rig_finds_each_fault_that_is_planted(fault: str, tmp_path: Path) -> None:
    seed, policy = SHOWN_BY.get(fault, (1, "keep"))
    assert crash_states.workload(seed, tmp_path, 10_000, policy) > 0, "without the fault nothing is found"
    with crash_states.planted(fault), pytest.raises(Violation):
        crash_states.workload(seed, tmp_path, 10_000, policy)


def test_no_power_cut_while_a_writeback_is_dropped_lets_the_fence_go_back(tmp_path: Path) -> None:
    assert int(drops.run(300, 20261124, tmp_path)["states"]) >= 300


@pytest.mark.parametrize("fault", ["the ledger comes last", "the ledger's folder is not synced"])
def test_the_rig_of_drops_finds_each_fault_that_is_planted(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "the ledger comes last":
        monkeypatch.setattr(Writebacks, "write_ledger", lambda *_: None)
    else:
        monkeypatch.setattr(Writebacks, "write_ledger", lambda self, mac, entry: entry.write(self.folder(mac)))
    with pytest.raises(Violation):
        drops.run(300, 1, tmp_path)
