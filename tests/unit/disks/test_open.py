"""Opening a layer that the registry knows: as it was recorded, read-only, or not at all."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from bootlink_disks import DiskError, Format, Kind, Run, check, open_layer, probe, vhd
from lab.disks import DISK_ID, MIB, digest, dynamic_vhd, sparse_disk


@pytest.fixture
def vhd_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.vhd"
    path.write_bytes(dynamic_vhd(blocks=[(3, b"three" * 800)]))
    return path


def test_a_layer_opens_as_it_was_recorded(vhd_file: Path) -> None:
    info = probe(vhd_file)
    with open_layer(
        vhd_file, info.format, virtual_size=info.virtual_size, file_size=info.file_size, mtime_ns=info.mtime_ns
    ) as layer:
        assert layer.info == info
        assert layer.size == 64 << 10
        assert layer.read(0, layer.size) == bytes(3 * 4096) + (b"three" * 800).ljust(13 * 4096, b"\0")


def test_a_layer_that_changed_since_it_was_recorded_is_refused(vhd_file: Path) -> None:
    info = probe(vhd_file)
    with pytest.raises(DiskError, match="changed after it was added") as caught:
        open_layer(vhd_file, info.format, file_size=info.file_size + 512)
    assert "new version" in caught.value.remedy
    with pytest.raises(DiskError, match="changed after it was added"):
        open_layer(vhd_file, info.format, mtime_ns=info.mtime_ns + 1)
    with pytest.raises(DiskError, match="had 512 when it was added"):
        open_layer(vhd_file, info.format, virtual_size=512)


def test_a_layer_is_what_the_registry_says_and_never_what_its_bytes_say(vhd_file: Path, tmp_path: Path) -> None:
    with open_layer(vhd_file, "raw") as layer:
        assert layer.read(0, 8) == b"conectix", "a raw disk may hold anything, a VHD's structures too"
    raw = sparse_disk(tmp_path / "a.img", MIB)
    with pytest.raises(DiskError, match="footer"):
        open_layer(raw, "vhd-fixed")
    with pytest.raises(DiskError, match="footer"):
        open_layer(raw, "vhd-dynamic")
    with pytest.raises(DiskError, match="type is 3"):
        open_layer(vhd_file, "vhd-fixed")


@pytest.mark.parametrize("format_", ["raw", "vhd-fixed"])
def test_raw_and_fixed_disks_are_their_files_first_bytes(format_: Format, tmp_path: Path) -> None:
    path = sparse_disk(tmp_path / "a.img", MIB)
    data = path.read_bytes()
    if format_ == "vhd-fixed":
        path.write_bytes(data + bytes(vhd.Footer(vhd.FIXED, MIB, DISK_ID)))
    assert probe(path).format == format_
    with open_layer(path, format_) as layer:
        assert layer.size == MIB
        assert layer.locate(4096, 8192) == [Run(Kind.DATA, 4096, 8192)]
        assert layer.read(0, MIB) == data
        with pytest.raises(ValueError, match="within"):
            layer.locate(MIB - 512, 1024)


def test_a_layer_is_never_open_for_writing(vhd_file: Path) -> None:
    before = digest(vhd_file)
    with open_layer(vhd_file, "vhd-dynamic") as layer:
        assert fcntl.fcntl(layer.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(layer.fd, b"x", 0)
    assert digest(vhd_file) == before


def test_a_failed_open_and_a_closed_layer_leave_no_descriptor(vhd_file: Path) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    layer = open_layer(vhd_file, "vhd-dynamic")
    layer.close()
    layer.close()
    with pytest.raises(DiskError):
        open_layer(vhd_file, "vhd-fixed")
    assert len(list(descriptors.iterdir())) == before


def test_a_layer_cut_under_our_feet_is_an_error_and_not_zeros(vhd_file: Path) -> None:
    with open_layer(vhd_file, "vhd-dynamic") as layer:
        os.truncate(vhd_file, 3000)
        with pytest.raises(DiskError, match="the file ends before"):
            layer.read(0, layer.size)


def test_check_tells_what_probe_noted_and_what_the_bitmaps_deny(tmp_path: Path) -> None:
    path = tmp_path / "a.vhd"
    path.write_bytes(dynamic_vhd(blocks=[(3, b"x")], bitmap=lambda _block: b"\0")[:-512])
    footer, bitmap = check(path).findings
    assert "footer" in footer
    assert "1 sectors of block 3" in bitmap
    assert check(sparse_disk(tmp_path / "b.img", MIB)).findings == ()
