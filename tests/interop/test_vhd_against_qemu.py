"""qemu-img is the judge: what it writes we read byte for byte, and what we write it finds identical."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bootlink_disks import DiskError, check, create_vhd_dynamic, open_layer, probe
from lab.disks import MIB, digest, qemu_img, sparse_disk

SIZES = [2 * MIB, 33 * MIB + 7 * 512, 100 * MIB]


def qemu_size(path: Path) -> int:
    return int(json.loads(qemu_img("info", "--output=json", "-f", "vpc", path).stdout)["virtual-size"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
@pytest.mark.parametrize("force_size", ["on", "off"])
def test_we_read_what_qemu_img_wrote_byte_for_byte(size: int, subformat: str, force_size: str, tmp_path: Path) -> None:
    source = sparse_disk(tmp_path / "a.img", size, seed=size)
    image = tmp_path / "a.vhd"
    options = f"subformat={subformat},force_size={force_size}"
    qemu_img("convert", "-f", "raw", "-O", "vpc", "-o", options, source, image)
    before = digest(image)

    info = probe(image)
    assert info.format == f"vhd-{subformat}"
    assert info.notes == ()
    assert info.virtual_size == qemu_size(image)
    assert info.virtual_size == size or force_size == "off", "without force_size qemu-img rounds up to a geometry"
    with open_layer(image, info.format) as layer:
        disk = layer.read(0, layer.size)
        assert disk[:size] == source.read_bytes()
        assert disk.count(0, size) == layer.size - size
        for offset in range(0, layer.size, 32 << 10):  # as the block store reads
            length = min(32 << 10, layer.size - offset)
            assert layer.read(offset, length) == disk[offset : offset + length]
    assert check(image).findings == ()
    assert digest(image) == before, "reading an image never changes it"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block_size", [512 << 10, 2 * MIB])
def test_qemu_img_finds_what_we_wrote_identical(size: int, block_size: int, tmp_path: Path) -> None:
    source = sparse_disk(tmp_path / "a.img", size, seed=size + 1)
    create_vhd_dynamic(tmp_path / "a.vhd", source, block_size=block_size)
    assert qemu_size(tmp_path / "a.vhd") == size
    qemu_img("compare", "-f", "raw", "-F", "vpc", source, tmp_path / "a.vhd")


def test_the_largest_vhd_of_qemu_img_is_read(tmp_path: Path) -> None:
    image = tmp_path / "large.vhd"
    qemu_img("create", "-f", "vpc", "-o", "force_size=on", image, "2040G")
    for place in ("0", "1T", "2190433255424"):
        qemu_img("-f", "vpc", "-c", f"write -P 0x5a {place} 64k", image, tool="qemu-io")
    info = probe(image)
    assert info.virtual_size == 2040 << 30
    assert info.stored == 3 * 2 * MIB
    with open_layer(image, "vhd-dynamic") as layer:
        for offset in (0, 1 << 40, layer.size - (64 << 10)):
            assert layer.read(offset, 64 << 10) == b"\x5a" * (64 << 10)
        assert layer.read(1 << 39, 4096) == bytes(4096)


def test_qemu_can_go_on_writing_what_we_made_and_we_read_that(tmp_path: Path) -> None:
    source = sparse_disk(tmp_path / "a.img", 20 * MIB)
    image = tmp_path / "a.vhd"
    create_vhd_dynamic(image, source)
    for where, pattern in ((0, 1), (9 * MIB, 2), (20 * MIB - 4096, 3)):
        qemu_img("-f", "vpc", "-c", f"write -P {pattern} {where} 4096", image, tool="qemu-io")
    expected = bytearray(source.read_bytes())
    for where, pattern in ((0, 1), (9 * MIB, 2), (20 * MIB - 4096, 3)):
        expected[where : where + 4096] = bytes([pattern]) * 4096
    with open_layer(image, probe(image).format) as layer:
        assert layer.read(0, layer.size) == expected


def test_a_vhd_whose_writer_was_killed_while_it_grew_is_read_by_us_as_by_qemu(tmp_path: Path) -> None:
    source = sparse_disk(tmp_path / "a.img", 20 * MIB)
    image = tmp_path / "a.vhd"
    qemu_img("convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", source, image)
    with image.open("r+b") as file:  # QEMU puts a new block's bitmap over the footer, and then writes a new footer
        file.seek(-512, 2)
        file.write(b"\xff" * 512)
    assert "footer at its end is missing" in probe(image).notes[0]
    qemu_img("compare", "-f", "raw", "-F", "vpc", source, image)
    with open_layer(image, "vhd-dynamic") as layer:
        assert layer.read(0, layer.size) == source.read_bytes()


def test_a_vhd_that_qemu_calls_truncated_is_refused_by_us_too(tmp_path: Path) -> None:
    image = tmp_path / "a.vhd"
    qemu_img("convert", "-f", "raw", "-O", "vpc", sparse_disk(tmp_path / "a.img", 20 * MIB), image)
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size - MIB)
    assert qemu_img("info", "-f", "vpc", image, check=False).returncode == 1
    with pytest.raises(DiskError, match="cut short"):
        probe(image)
