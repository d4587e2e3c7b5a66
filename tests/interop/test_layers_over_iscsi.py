"""QEMU's iSCSI driver reads through the block store what a stack of layers says the disk is, and writes beside it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from bootlink_disks import ImageInfo, create_vhd_differencing, create_vhd_dynamic, probe
from bootlink_events.plans import BootPlan, DiskPlan
from lab.blockstore import digest, layer_plan, make_image, plan, serving
from lab.disks import MIB, apply_changes, changes_of
from lab.tools import tool
from lab.vhdx import DATA_WRITE, FULL, LOG, PAGE, PART, ZERO, Vhdx, locator, log_entry

SIZE = 6 * MIB


def stacked(infos: list[ImageInfo]) -> BootPlan:
    """A plan whose one disk has these layers, top first."""
    layers = tuple(layer_plan(info.path) for info in infos)
    disk = DiskPlan(lun=0, image="win11", version=len(layers), channel="production", layers=layers)
    return plan(infos[-1].path).model_copy(update={"disks": (disk,)})


def vhd_chain(folder: Path) -> tuple[list[ImageInfo], bytearray]:
    """Four differencing VHDs on a dynamic one, each a little larger than the one below."""
    rng, raw = random.Random(3), make_image(folder / "base.img", SIZE)
    infos, model = [create_vhd_dynamic(folder / "base.vhd", raw)], bytearray(raw.read_bytes())
    for level in range(4):
        model += bytes(4096)
        changes = changes_of(rng, len(model), 300)
        apply_changes(model, changes)
        infos.insert(0, create_vhd_differencing(folder / f"{level}.vhd", infos[0], changes, size=len(model)))
    return infos, model


def vhdx_chain(folder: Path) -> tuple[list[ImageInfo], bytearray]:
    """A differencing VHDX with every kind of block, on a VHDX that was not closed well."""
    rng = random.Random(4)
    noise, page = rng.randbytes(MIB), rng.randbytes(PAGE)
    log = log_entry(1, [(4 * MIB + 3 * PAGE, page)], [(4 * MIB + 9 * PAGE, PAGE)])
    (folder / "base.vhdx").write_bytes(bytes(Vhdx(SIZE, dict.fromkeys(range(6), (FULL, noise)), log=log, log_guid=LOG)))
    model = bytearray(noise * 6)
    model[3 * PAGE : 4 * PAGE] = page
    model[9 * PAGE : 10 * PAGE] = bytes(PAGE)
    top, bits = rng.randbytes(MIB), rng.getrandbits(2048)
    child = Vhdx(SIZE, {0: (PART, top), 2: (FULL, top), 4: (ZERO, b"")}, parent=locator(DATA_WRITE), bits={0: bits})
    (folder / "top.vhdx").write_bytes(bytes(child))
    for sector in range(2048):
        if bits >> sector & 1:
            at = sector * 512
            model[at : at + 512] = top[at : at + 512]
    model[2 * MIB : 3 * MIB], model[4 * MIB : 5 * MIB] = top, bytes(MIB)
    return [probe(folder / "top.vhdx"), probe(folder / "base.vhdx")], model


@pytest.mark.parametrize("make", [vhd_chain, vhdx_chain])
async def test_a_client_reads_the_disk_that_its_layers_make_and_writes_to_none_of_them(
    make: Callable[[Path], tuple[list[ImageInfo], bytearray]], tmp_path: Path
) -> None:
    infos, model = make(tmp_path)
    (tmp_path / "model.img").write_bytes(model)
    before = [digest(info.path) for info in infos]
    async with serving(tmp_path, stacked(infos), cache=2 << 20) as lab:
        said = await tool("qemu-img", "compare", "-f", "raw", "-F", "raw", str(tmp_path / "model.img"), lab.url())
        assert "Images are identical" in said
        steps = ("-c", "write -P 7 1000k 70k", "-c", "read -P 7 1000k 70k", "-c", "flush")
        assert "Pattern verification failed" not in await tool("qemu-io", "-f", "raw", *steps, lab.url())
    assert [digest(info.path) for info in infos] == before, "a layer's bytes have changed"
