"""K3: what a restart must find out is in the file, and finding it is bounded by what was written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootlink_blockstore.overlay import Overlay
from bootlink_blockstore.pagemap import PAGE
from rigs import rebuild


def test_the_map_is_rebuilt_as_it_was(tmp_path: Path) -> None:
    assert rebuild.run(4096, 0, tmp_path)["pages"] == 4096


def test_reopening_asks_for_what_was_written_and_not_for_the_size_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = Overlay.create(tmp_path / "o.overlay", 60 << 30)
    for number in range(10):
        overlay.write(number << 32, [b"x" * PAGE])
    overlay.mark_zeros(1 << 20, 2 << 20)  # 4 GiB that were given back
    overlay.close()
    calls = 0
    for name in ("lseek", "pread"):
        real = getattr(os, name)

        def counted(*arguments: int, real: object = real) -> object:
            nonlocal calls
            calls += 1
            return real(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(os, name, counted)
    Overlay.reopen(tmp_path / "o.overlay", 60 << 30).close()
    assert calls < 2 * 10 + 256 + 10, "two per extent, and one per 4,096 marks"
