"""A real UEFI PC: OVMF in QEMU, from its own PXE client to a Linux login prompt on an iSCSI disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from guest.demo import CACHE
from guest.disk import build_disk
from guest.firmware import UEFI
from guest.lan import Lan
from guest.pc import PC
from guest.system import System

pytestmark = pytest.mark.timeout(400)  # the boot takes 20 s of emulation, on a busy machine several times that

MAC = "52:54:00:b0:07:31"


async def test_ovmf_boots_the_image_that_bios_pcs_boot_too_over_pxe(tmp_path: Path) -> None:
    disk = await asyncio.to_thread(build_disk, CACHE)
    with Lan() as lan:
        async with System(lan, tmp_path / "data") as system, PC(lan, MAC, tmp_path, firmware=UEFI) as pc:
            await system.command("image", "add", "demo", str(disk))
            await system.command("link", "set", "--default", "demo")
            await system.command("client", "add", MAC, "--name", "pc-uefi")
            await pc.boot()
            await pc.console.login()
            run = await pc.console.run("ls -d1 /sys/firmware/efi /sys/firmware/ibft; grep ' / ' /proc/mounts; hostname")
            efi, ibft, root, name = run.text.splitlines()
            assert (efi, ibft) == ("/sys/firmware/efi", "/sys/firmware/ibft"), "UEFI found the table that iPXE left"
            assert root.startswith("/dev/sda1 / ext4 rw,"), "the root is the iSCSI disk"
            assert name == "pc-uefi"
            await pc.power_off()
            (boot,) = await system.query("boot", "list", "--client", "pc-uefi")
            shown = await system.query("boot", "show", boot["id"])
    kinds = [stage["kind"].removeprefix("boot.") for stage in shown["stages"]]
    assert {"started", "addressed", "loader_sent", "script_served", "disk_attached"} <= {*kinds}
    assert "failed" not in kinds
