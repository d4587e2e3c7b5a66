"""qemu-img is the judge of VHDX: what it writes we read byte for byte, after a crash at any of its writes too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bootlink_disks import DiskError, check, open_layer, probe
from lab.disks import MIB, digest, qemu_img, sparse_disk

LAST_WRITE = 34  # of the session below: one more than QEMU 7.2 makes


def raw_of(image: Path, raw: Path) -> bytes:
    """The disk in a VHDX, by qemu-img."""
    qemu_img("convert", "-f", "vhdx", "-O", "raw", image, raw)
    return raw.read_bytes()


@pytest.mark.parametrize("size", [2 * MIB, 33 * MIB + 7 * 512])
@pytest.mark.parametrize("options", ["subformat=dynamic", "subformat=fixed", "subformat=dynamic,block_size=1M"])
def test_we_read_what_qemu_img_wrote_byte_for_byte(size: int, options: str, tmp_path: Path) -> None:
    source = sparse_disk(tmp_path / "a.img", size, seed=size)
    image = tmp_path / "a.vhdx"
    qemu_img("convert", "-f", "raw", "-O", "vhdx", "-o", options, source, image)
    before = digest(image)
    info = probe(image)
    assert (info.format, info.notes, info.parent) == ("vhdx", (), None)
    assert info.virtual_size == int(json.loads(qemu_img("info", "--output=json", image).stdout)["virtual-size"])
    with open_layer(image, info.format) as layer:
        disk = layer.read(0, layer.size)
        assert disk == source.read_bytes().ljust(layer.size, b"\0")
        for offset in range(0, layer.size, 32 << 10):  # as the block store reads
            length = min(32 << 10, layer.size - offset)
            assert layer.read(offset, length) == disk[offset : offset + length]
    assert check(image).findings == ()
    assert digest(image) == before, "reading an image never changes it"


def test_blocks_in_any_order_and_odd_places_are_read_as_qemu_wrote_them(tmp_path: Path) -> None:
    image = tmp_path / "a.vhdx"
    qemu_img("create", "-f", "vhdx", "-o", "block_size=1M", image, "5G")
    writes = [(4 << 30, 512), ((4 << 30) - 512, 1024), (7 * MIB - 3 * 512, 5 * MIB), (0, 512), ((5 << 30) - 512, 512)]
    commands = [part for at, length in writes for part in ("-c", f"write -P {at % 251 + 1} {at} {length}")]
    qemu_img("-f", "vhdx", *commands, image, tool="qemu-io")
    with open_layer(image, probe(image).format) as layer:
        for at, length in writes[1:]:
            assert layer.read(at, length) == bytes([at % 251 + 1]) * length
        assert layer.read(MIB, MIB) == bytes(MIB)
        assert layer.read((4 << 30) - MIB, MIB - 512) == bytes(MIB - 512)


@pytest.mark.parametrize(
    ("size", "block_size", "served"), [("64T", "256M", True), ("32T", "32M", True), ("2T", "1M", False)]
)
def test_the_largest_disks_are_served_and_more_blocks_than_may_be_held_are_refused(
    size: str, block_size: str, served: bool, tmp_path: Path
) -> None:
    image = tmp_path / "large.vhdx"
    qemu_img("create", "-f", "vhdx", "-o", f"block_size={block_size}", image, size)
    if not served:
        with pytest.raises(DiskError, match="2097152 blocks") as caught:
            probe(image)
        assert "block_size=32M" in caught.value.remedy
        return
    qemu_img("-f", "vhdx", "-c", f"write -P 9 {int(size[:-1]) - 1}T 64k", image, tool="qemu-io")
    with open_layer(image, probe(image).format) as layer:
        assert layer.size == int(size[:-1]) << 40
        assert layer.read((int(size[:-1]) - 1) << 40, 64 << 10) == b"\x09" * (64 << 10)


def test_a_vhdx_whose_writer_was_stopped_at_any_write_is_the_disk_that_qemu_repairs_it_to(tmp_path: Path) -> None:
    """QEMU's blkdebug lets n writes through and fails all after them: the file as a crash there leaves it."""
    base, image, repaired = (tmp_path / name for name in ("base.vhdx", "a.vhdx", "repaired.vhdx"))
    qemu_img("create", "-f", "vhdx", "-o", "block_size=1M", base, "40M")
    qemu_img("-f", "vhdx", "-c", "write -P 200 0 3M", base, tool="qemu-io")
    session = ["-c", "write -P 1 3M 64k", "-c", "write -P 2 10M 64k", "-c", "write -P 3 20M 2M"]
    seen = {"replayed": 0, "nothing to be replayed": 0}
    for writes in range(1, LAST_WRITE):
        shutil.copy(base, image)
        count = "".join(
            f",file.set-state.{n}.event=pwritev,file.set-state.{n}.state={n + 1},file.set-state.{n}.new_state={n + 2}"
            for n in range(writes)
        )
        fail = ",".join(
            f"file.inject-error.0.{option}"
            for option in ("event=pwritev", f"state={writes + 1}", "iotype=write", "errno=5", "once=off")
        )
        file = f"driver=vhdx,file.driver=blkdebug,file.image.driver=file,file.image.filename={image}"
        qemu_img("--image-opts", "-t", "writethrough", *session, f"{file}{count},{fail}", tool="qemu-io", check=False)
        before = digest(image)
        info = probe(image)
        for words in seen:
            seen[words] += any(words in note for note in info.notes)
        shutil.copy(image, repaired)
        qemu_img("check", "-f", "vhdx", "-r", "all", repaired)
        with open_layer(image, info.format) as layer:
            assert layer.read(0, layer.size) == raw_of(repaired, tmp_path / "a.raw"), f"stopped after {writes} writes"
        assert digest(image) == before, "a log is replayed without writing"
    assert min(seen.values()) >= 3, f"the session left too few logs behind to show anything: {seen}"
