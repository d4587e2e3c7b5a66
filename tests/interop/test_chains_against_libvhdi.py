"""libvhdi is the judge of chains, which QEMU does not read: what it reads of them we read, byte for byte."""

from __future__ import annotations

import random
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest

from bootlink_disks import ImageInfo, create_vhd_differencing, create_vhd_dynamic, open_layer, probe, require_chain
from lab.disks import MIB, apply_changes, changes_of, digest, qemu_img, sparse_disk
from lab.stack import read_stack
from lab.vhdi import ending_at_pages, read_chain
from lab.vhdx import DATA_WRITE, FULL, PART, Vhdx, locator

DEPTH = 4  # each chain is judged from each of its files down, so depths 1 to 4 are


def judge(infos: list[ImageInfo], model: bytes | bytearray) -> None:
    """The chain (top first) is `model` to us and to libvhdi, as is each file's disk by what is below it."""
    before = [digest(info.path) for info in infos]
    require_chain(infos)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_layer(info.path, info.format)) for info in infos]
        assert read_stack(opened, 0, len(model)) == model
        for depth in range(len(infos)):
            below = read_stack(opened[depth:], 0, opened[depth].size)
            assert read_chain(*(info.path for info in infos[depth:])) == below
    assert [digest(info.path) for info in infos] == before


@pytest.mark.parametrize("subformat", ["ours", "dynamic", "fixed"])
def test_a_vhd_chain_that_we_wrote_is_the_same_disk_to_libvhdi(subformat: str, tmp_path: Path) -> None:
    size = 5 * MIB + 7 * 4096 + 512
    rng = random.Random(subformat)
    raw = tmp_path / "base.img"
    raw.write_bytes(rng.randbytes(510) + b"\x55\xaa" + rng.randbytes(size - 512))
    if subformat == "ours":
        infos = [create_vhd_dynamic(tmp_path / "base.vhd", raw, block_size=512 << 10)]
    else:
        options = f"subformat={subformat},force_size=on"
        qemu_img("convert", "-f", "raw", "-O", "vpc", "-o", options, raw, tmp_path / "base.vhd")
        infos = [probe(tmp_path / "base.vhd")]
    model = bytearray(raw.read_bytes())
    for level in range(DEPTH):
        changes = ending_at_pages(changes_of(rng, size, 600), size)
        assert len(changes) > 30
        apply_changes(model, changes)
        block_size = rng.choice([512 << 10, 2 * MIB])
        child = create_vhd_differencing(tmp_path / f"{level}.vhd", infos[0], changes, block_size=block_size)
        infos.insert(0, child)
    judge(infos, model)


@pytest.mark.parametrize("origin", ["specification", "qemu"])
def test_a_vhdx_chain_is_the_same_disk_to_libvhdi(origin: str, tmp_path: Path) -> None:
    size = 5 * MIB - 3 * 512
    rng = random.Random(origin)
    below = DATA_WRITE
    if origin == "qemu":
        size = 5 * MIB
        raw = sparse_disk(tmp_path / "base.img", size, seed=5)
        qemu_img("convert", "-f", "raw", "-O", "vhdx", "-o", "block_size=1M", raw, tmp_path / "base.vhdx")
        model = bytearray(raw.read_bytes())
        found = probe(tmp_path / "base.vhdx").uuid
        assert found is not None
        below = found
    else:
        blocks = {block: rng.randbytes(MIB) for block in (4, 0, 3)}
        model = bytearray(5 * MIB)
        apply_changes(model, [(block * MIB, data) for block, data in blocks.items()])
        del model[size:]
        file = Vhdx(size, {block: (FULL, data) for block, data in blocks.items()})
        (tmp_path / "base.vhdx").write_bytes(bytes(file))
    infos = [probe(tmp_path / "base.vhdx")]
    for level in range(DEPTH):
        child = Vhdx(size, parent=locator(below, "p.vhdx"), data_write=uuid.UUID(int=rng.getrandbits(128)))
        for count, block in enumerate(rng.sample(range(5), 3)):
            whole = count > 0 and rng.random() < 0.4
            bits = (1 << 2048) - 1 if whole else rng.getrandbits(2048) & rng.choice([rng.getrandbits(2048), -1 << 900])
            data = rng.randbytes(MIB)
            child.blocks[block] = (FULL if whole else PART, data)
            if not whole:
                child.bits[block] = bits & (1 << 2048) - 1
            for sector in range(2048):
                at = block * MIB + sector * 512
                if bits >> sector & 1 and at < size:
                    model[at : at + 512] = data[sector * 512 :][:512]
        path = tmp_path / f"{level}.vhdx"
        path.write_bytes(bytes(child))
        infos.insert(0, probe(path))
        below = child.data_write
    judge(infos, model)
