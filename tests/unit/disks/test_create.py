"""Making a dynamic VHD: the same bytes, small, and complete or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bootlink_disks import DiskError, check, create_vhd_dynamic, open_layer, probe
from lab.disks import MIB, digest, dynamic_vhd, sparse_disk


@pytest.mark.parametrize("block_size", [4096, 512 << 10, 2 * MIB, 4 * MIB])
@pytest.mark.parametrize("size", [512, 2 * MIB, 7 * MIB + 1536])
def test_a_created_vhd_holds_the_sources_bytes(size: int, block_size: int, tmp_path: Path) -> None:
    source = sparse_disk(tmp_path / "a.img", size, seed=size, islands=4)
    before = digest(source)
    info = create_vhd_dynamic(tmp_path / "a.vhd", source, block_size=block_size)
    assert (info.virtual_size, info.block_size) == (size, block_size)
    with open_layer(info.path, "vhd-dynamic", file_size=info.file_size, mtime_ns=info.mtime_ns) as layer:
        assert layer.read(0, size) == source.read_bytes()
    assert check(info.path).findings == ()
    assert digest(source) == before


def test_zeros_are_left_out_whether_the_source_has_holes_or_not(tmp_path: Path) -> None:
    source = sparse_disk(tmp_path / "a.img", 64 * MIB, islands=0)
    (tmp_path / "full.img").write_bytes(source.read_bytes())
    for name in ("a.img", "full.img"):
        info = create_vhd_dynamic(tmp_path / f"{name}.vhd", tmp_path / name)
        assert info.stored == 4 * MIB, "the first and the last block"
        assert info.disk_usage < MIB, "and of those only what is not zero"


def test_an_open_layer_of_any_format_can_be_the_source(tmp_path: Path) -> None:
    (tmp_path / "a.vhd").write_bytes(dynamic_vhd(blocks=[(2, b"two" * 1300)]))
    with open_layer(tmp_path / "a.vhd", "vhd-dynamic") as source:
        create_vhd_dynamic(tmp_path / "b.vhd", source)
        with open_layer(tmp_path / "b.vhd", "vhd-dynamic") as copy:
            assert copy.read(0, copy.size) == source.read(0, source.size)


def test_progress_rises_to_the_whole(tmp_path: Path) -> None:
    told: list[int] = []
    create_vhd_dynamic(tmp_path / "a.vhd", sparse_disk(tmp_path / "a.img", 9 * MIB), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 9 * MIB


def test_a_file_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    source = sparse_disk(tmp_path / "a.img", MIB)
    (tmp_path / "a.vhd").write_bytes(b"precious")
    with pytest.raises(DiskError, match="a file of this name exists"):
        create_vhd_dynamic(tmp_path / "a.vhd", source)
    assert (tmp_path / "a.vhd").read_bytes() == b"precious"


def test_a_full_disk_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sparse_disk(tmp_path / "a.img", 8 * MIB)
    real, written = os.pwrite, 0

    def full(fd: int, data: memoryview, offset: int) -> int:
        nonlocal written
        written += 1
        if written > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:100], offset)  # and short writes before

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskError, match="No space left") as caught:
        create_vhd_dynamic(tmp_path / "a.vhd", source)
    assert "free some space" in caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["a.img"]


def test_the_name_appears_only_when_the_file_is_whole(tmp_path: Path) -> None:
    seen: list[bool] = []
    source = sparse_disk(tmp_path / "a.img", 8 * MIB)
    create_vhd_dynamic(tmp_path / "a.vhd", source, progress=lambda _done: seen.append((tmp_path / "a.vhd").exists()))
    assert not any(seen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.img", "a.vhd"]
    assert probe(tmp_path / "a.vhd").format == "vhd-dynamic"


def test_a_missing_source_or_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="there is no such file"):
        create_vhd_dynamic(tmp_path / "a.vhd", tmp_path / "none.img")
    with pytest.raises(DiskError, match="cannot be written"):
        create_vhd_dynamic(tmp_path / "none" / "a.vhd", sparse_disk(tmp_path / "a.img", MIB))


def test_a_disk_too_large_for_the_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with (tmp_path / "a.img").open("wb") as file:
        file.truncate((2040 << 30) + 512)
    with pytest.raises(DiskError, match="does not fit"):
        create_vhd_dynamic(tmp_path / "a.vhd", tmp_path / "a.img")
    assert [path.name for path in tmp_path.iterdir()] == ["a.img"]
