"""The disk format rig in its reduced form, and that it finds what it looks for. See `rigs.disk_formats`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootlink_disks import Kind, Run
from bootlink_disks.layer import LinearMap, Structure
from bootlink_disks.open import FORMATS
from rigs import disk_formats
from rigs.figures import Violation

COUNT = 400
SEED = 20261124


@pytest.mark.timeout(300)  # a busy machine is no error
def test_hostile_files_are_refused_or_served_from_within_in_little_memory_and_time(tmp_path: Path) -> None:
    figures = disk_formats.run(COUNT, SEED, tmp_path)
    assert int(figures["refused"]) > COUNT // 4, "mutations must reach what is refused"
    assert int(figures["served, within the file"]) > COUNT // 20, "and leave files that are served"


class Wrong(LinearMap):
    """A map that breaks the invariant."""

    def __init__(self, runs: list[Run]) -> None:
        super().__init__(1024)
        self._runs = runs

    def locate(self, offset: int, length: int) -> list[Run]:
        return self._runs


@pytest.mark.parametrize(
    "runs",
    [
        [Run(Kind.DATA, 1, 1024)],
        [Run(Kind.DATA, -512, 1024)],
        [Run(Kind.ZERO, 0, 512)],
        [Run(Kind.ZERO, 0, 1024), Run(Kind.ZERO, 0, 0)],
    ],
    ids=["past the end", "before the start", "too little", "empty"],
)
def test_the_rig_tells_a_map_that_leads_out_of_its_file(runs: list[Run]) -> None:
    with pytest.raises(Violation):
        disk_formats.prove_safe(Structure("raw", Wrong(runs), stored=0), 1024)


def test_the_rig_tells_a_parser_that_raises_anything_but_a_disk_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_pread: object, _size: int) -> Structure:
        raise KeyError(1)

    monkeypatch.setitem(FORMATS, "raw", broken)
    with pytest.raises(KeyError):
        disk_formats.judge(lambda _offset, _length: b"", 0)
