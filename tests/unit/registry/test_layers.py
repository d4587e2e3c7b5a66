"""What became of a layer's file since it was added."""

from __future__ import annotations

import os
from pathlib import Path

from bootlink_registry.catalogue import Version
from bootlink_registry.layers import state_of


def added(path: Path) -> Version:
    seen = path.stat()
    return Version("demo", 1, None, "layer", str(path), "raw", 512, seen.st_size, seen.st_mtime_ns)


def test_a_file_as_it_was_added_is_well(tmp_path: Path) -> None:
    file = tmp_path / "a.img"
    file.write_bytes(bytes(512))
    assert state_of(added(file)) is None


def test_a_file_that_went_is_missing_and_one_of_another_size_or_time_is_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.img"
    file.write_bytes(bytes(512))
    version = added(file)
    os.utime(file, ns=(version.mtime_ns, version.mtime_ns + 1))
    assert state_of(version) == "changed"
    file.write_bytes(bytes(1024))
    os.utime(file, ns=(version.mtime_ns, version.mtime_ns))
    assert state_of(version) == "changed"
    file.unlink()
    assert state_of(version) == "missing"
