"""What became of a layer's file since it was added."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from bootlink_registry.catalogue import Layer
from bootlink_registry.layers import state_of


def added(path: Path) -> Layer:
    seen = path.stat()
    return Layer("layer", None, str(path), "raw", 512, seen.st_size, seen.st_mtime_ns)


def test_a_file_as_it_was_added_is_well(tmp_path: Path) -> None:
    file = tmp_path / "a.img"
    file.write_bytes(bytes(512))
    assert state_of(added(file)) is None


def test_a_file_that_went_is_missing_and_one_of_another_size_or_time_is_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.img"
    file.write_bytes(bytes(512))
    layer = added(file)
    os.utime(file, ns=(layer.mtime_ns, layer.mtime_ns + 1))
    assert state_of(layer) == "changed"
    file.write_bytes(bytes(1024))
    os.utime(file, ns=(layer.mtime_ns, layer.mtime_ns))
    assert state_of(layer) == "changed"
    file.unlink()
    assert state_of(layer) == "missing"


def test_a_file_whose_checksum_was_wrong_stays_so_as_long_as_it_looks_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.img"
    file.write_bytes(bytes(512))
    layer = dataclasses.replace(added(file), fault="corrupt")
    assert state_of(layer) == "corrupt"
    file.unlink()
    assert state_of(layer) == "missing"
