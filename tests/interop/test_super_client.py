"""A super client's writes become a version: over iSCSI, by commands over NATS, and judged by libvhdi and qemu-img."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from bootlink_disks import create_vhd_dynamic
from bootlink_events import BootPlan, LayerPlan
from bootlink_events.commands import DisconnectClient, DropWriteback, ListWritebacks, RestoreWriteback
from bootlink_runtime import CommandError
from lab.blockstore import MAC, digest, layer_plan, make_image, plan
from lab.disks import qemu_img
from lab.iscsi import Initiator
from lab.super_client import export_command, hour_ago, lab, layer_of, whole, write_at_random
from lab.vhdi import read_chain

SIZE = 12 << 20
OTHER = "52:54:00:00:00:02"


def base_vhd(folder: Path) -> LayerPlan:
    """A dynamic VHD, as images are; libvhdi reads no chain upon a raw one."""
    create_vhd_dynamic(folder / "base.vhd", make_image(folder / "raw.img", SIZE))
    return layer_plan(folder / "base.vhd")


def booting(*layers: LayerPlan, mac: str = MAC, policy: str = "super", content: str) -> BootPlan:
    made = plan(Path(layers[-1].path), mac=mac, content=content)
    disk = made.disks[0].model_copy(update={"layers": layers, "policy": policy, "content": content})
    return made.model_copy(update={"disks": (disk,)})


async def flush(pc: Initiator) -> int:
    """SYNCHRONIZE CACHE(10); its status."""
    pc.send(pc.command(bytes((0x35,)) + bytes(9)))
    return int(getattr(await pc.receive(), "status", -1))


async def test_two_super_clients_one_upon_the_other_and_every_judge_reads_what_they_saw(tmp_path: Path) -> None:
    base = base_vhd(tmp_path)
    before, held, random = digest(Path(base.path)), bytearray((tmp_path / "raw.img").read_bytes()), Random(7)
    layers: tuple[LayerPlan, ...] = (base,)
    async with lab(tmp_path) as running:
        for number, mac in enumerate((MAC, OTHER)):
            content, job, boot = f"branch-{number}", f"job-{number}", hour_ago(number)
            await running.plan(booting(*layers, mac=mac, content=content))
            pc = await running.login(boot, mac)
            assert await whole(pc, SIZE) == held
            await write_at_random(pc, held, random, 60)
            command = export_command(running.images, job, *layers, mac=mac, content=content)
            with pytest.raises(CommandError, match="has the disk open"):
                await running.ask(command)
            assert await flush(pc) == 0
            running_job = export_command(
                running.images, f"job-{number}-on", *layers, mac=mac, content=content, allow_flushed=True
            )
            early = (await running.exported(running_job)).result
            assert early is not None
            assert read_chain(Path(early.path), *(Path(layer.path) for layer in layers)) == held, (
                "of a client that is on"
            )
            await write_at_random(pc, held, random, 10)
            await pc.close()
            while (await running.ask(ListWritebacks(mac=mac))).items[0].state == "in_use":
                await asyncio.sleep(0.02)
            state = await running.exported(command)
            assert state.result is not None, state
            assert (state.result.format, state.result.boot_id) == ("vhd-differencing", boot)
            layers = (layer_of(state.result), *layers)
            paths = [Path(layer.path) for layer in layers]
            assert read_chain(*paths) == held, "libvhdi reads another disk"
            (gone,) = (await running.ask(DropWriteback(mac=mac, content=content))).items
            assert gone.boot_id == boot
        made_whole = export_command(running.images, "job-whole", *layers, mac=OTHER, whole=True)
        await running.plan(booting(*layers, mac=OTHER, content="branch-3"))
        pc = await running.login(hour_ago(5), OTHER)
        assert await whole(pc, SIZE) == held, "the next boot reads another disk"
        await write_at_random(pc, held, random, 10)
        await pc.close()
        await running.ask(DisconnectClient(mac=OTHER))
        flat = (await running.exported(made_whole)).result
        assert flat is not None
        assert (flat.format, bool(flat.whole)) == ("vhd-dynamic", True)
        qemu_img("convert", "-f", "vpc", "-O", "raw", flat.path, tmp_path / "flat.raw")
        assert (tmp_path / "flat.raw").read_bytes() == held, "QEMU reads another disk"
        assert read_chain(Path(flat.path)) == held
    assert digest(Path(base.path)) == before


async def test_a_discarded_boot_comes_back_over_iscsi_and_can_be_made_a_layer_after_the_fact(tmp_path: Path) -> None:
    base = base_vhd(tmp_path)
    held, image = bytearray((tmp_path / "raw.img").read_bytes()), (tmp_path / "raw.img").read_bytes()
    async with lab(tmp_path) as running:
        await running.plan(booting(base, policy="discard", content="v1"))
        pc = await running.login(hour_ago(0))
        await write_at_random(pc, held, Random(3), 30)
        after = await running.login(hour_ago(1))
        assert await whole(after, SIZE) == image
        items = (await running.ask(ListWritebacks(mac=MAC))).items
        assert [item.state for item in items] == ["in_use", "discarded"]
        state = await running.exported(export_command(running.images, "job-1", base, boot_id=items[1].boot_id))
        assert state.result is not None, state
        assert read_chain(Path(state.result.path), Path(base.path)) == held
        (back,) = (await running.ask(RestoreWriteback(mac=MAC))).items
        assert (back.boot_id, back.returning) == (items[1].boot_id, True)
        assert await whole(await running.login(hour_ago(2)), SIZE) == held
