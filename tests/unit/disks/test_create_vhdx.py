"""Making a VHDX: the same bytes, small, and as qemu-img and libvhdi read them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bootlink_disks import DiskError, check, create_vhdx, open_layer, probe
from bootlink_disks.blocks import MAX_BLOCKS
from bootlink_disks.create_vhdx import SMALLEST_BLOCK, block_size_for
from lab.disks import DISK_ID, MIB, digest, qemu_img, sparse_disk
from lab.vhdi import read_chain

GIB = 1 << 30


@pytest.mark.parametrize("size", [512, MIB, 2 * MIB, 7 * MIB + 1536])
def test_a_created_vhdx_holds_the_sources_bytes(size: int, tmp_path: Path) -> None:
    source = sparse_disk(tmp_path / "a.img", size, seed=size, islands=4)
    before = digest(source)
    with open_layer(source, "raw") as layer:
        info = create_vhdx(tmp_path / "a.vhdx", layer, unique_id=DISK_ID)
    assert (info.format, info.virtual_size, info.block_size) == ("vhdx", size, SMALLEST_BLOCK)
    assert (info.uuid, info.creator) == (DISK_ID, "bootlink")
    with open_layer(info.path, "vhdx", file_size=info.file_size, mtime_ns=info.mtime_ns) as made:
        assert made.read(0, size) == source.read_bytes()
    assert check(info.path).findings == ()
    qemu_img("compare", "-f", "raw", "-F", "vhdx", source, info.path)
    qemu_img("check", "-f", "vhdx", info.path)
    assert read_chain(info.path) == source.read_bytes()
    assert digest(source) == before


def test_blocks_behind_the_first_chunk_are_where_they_belong(tmp_path: Path) -> None:
    """After the blocks of each 4 GiB the table has an entry for a sector bitmap, which is no block."""
    size = 9 * GIB + 512
    with (tmp_path / "a.img").open("wb") as file:
        file.truncate(size)
        for at in (510, 4 * GIB - 512, 4 * GIB, 8 * GIB, size - 512):
            file.seek(at)
            file.write(random.Random(at).randbytes(512))
    with open_layer(tmp_path / "a.img", "raw") as layer:
        info = create_vhdx(tmp_path / "a.vhdx", layer)
    assert info.stored == 5 * SMALLEST_BLOCK
    assert info.disk_usage < 2 * MIB
    with open_layer(info.path, "vhdx") as made, open_layer(tmp_path / "a.img", "raw") as layer:
        for at in (0, 4 * GIB - MIB, 4 * GIB, 8 * GIB - MIB, 8 * GIB):
            right = layer.read(at, MIB)
            assert made.read(at, MIB) == right
            part = tmp_path / f"{at}.img"
            where = (f"if={info.path}", f"of={part}", "bs=1M", f"skip={at // MIB}", f"count={at // MIB + 1}")
            qemu_img("dd", "-f", "vhdx", "-O", "raw", *where)
            assert part.read_bytes()[:MIB] == right
        assert made.read(size - 512, 512) == layer.read(size - 512, 512)


@pytest.mark.parametrize(("size", "block_size"), [(512, 2), (2 << 40, 2), ((2 << 40) + 512, 4), (64 << 40, 64)])
def test_a_larger_disk_has_larger_blocks(size: int, block_size: int) -> None:
    assert block_size_for(size) == block_size * MIB
    assert -(-size // block_size_for(size)) <= MAX_BLOCKS


def test_a_file_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.vhdx").write_bytes(b"precious")
    source = sparse_disk(tmp_path / "a.img", MIB)
    with open_layer(source, "raw") as layer, pytest.raises(DiskError, match="a file of this name exists"):
        create_vhdx(tmp_path / "a.vhdx", layer)
    assert (tmp_path / "a.vhdx").read_bytes() == b"precious"


def test_what_is_made_can_be_a_parent(tmp_path: Path) -> None:
    with open_layer(sparse_disk(tmp_path / "a.img", MIB), "raw") as layer:
        one, other = create_vhdx(tmp_path / "a.vhdx", layer), create_vhdx(tmp_path / "b.vhdx", layer)
    assert one.uuid != other.uuid
    assert probe(one.path).uuid == one.uuid
