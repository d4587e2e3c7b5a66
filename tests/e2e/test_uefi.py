"""A real UEFI PC: OVMF in QEMU, from its own PXE client to a Linux login prompt on an iSCSI disk.

Its packets are compared with tests/golden on the way, so that what the walkthrough quotes stays what firmware sends.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import MessageType
from guest.demo import CACHE
from guest.disk import build_disk
from guest.firmware import UEFI
from guest.lan import Lan
from guest.pc import PC
from guest.system import System
from lab.golden import differs, tftp_capture
from lab.sniffer import Sniffer

pytestmark = pytest.mark.timeout(400)  # the boot takes 20 s of emulation, on a busy machine several times that

MAC = "52:54:00:b0:07:31"


async def test_ovmf_boots_the_image_that_bios_pcs_boot_too_over_pxe(tmp_path: Path) -> None:
    disk = await asyncio.to_thread(build_disk, CACHE)
    with Lan() as lan:
        async with System(lan, tmp_path / "data") as system, PC(lan, MAC, tmp_path, firmware=UEFI) as pc:
            await system.command("image", "add", "demo", str(disk))
            await system.command("link", "set", "--default", "demo")
            await system.command("client", "add", MAC, "--name", "pc-uefi")
            with Sniffer(lan.namespace, Lan.BRIDGE) as sniffer:
                await pc.boot()
                packets = sniffer.datagrams
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
    firmware, ipxe = (
        [one.payload for one in packets if one.dhcp and (opt.USER_CLASS.code in one.dhcp.options) is loader]
        for loader in (False, True)
    )
    assert differs(firmware[0], "ovmf-x64-discover.hex") == []
    assert differs(ipxe[0], "snponly-discover.hex") == []
    (request,) = [one.payload for one in packets if one.message is MessageType.REQUEST and one.payload in firmware][:1]
    assert differs(request, "ovmf-x64-request.hex") == []
    asked = [one.payload.partition(b"octet")[2] for one in packets if (one.file or "").endswith("snponly.efi")]
    assert asked == [tftp_capture(name).partition(b"octet")[2] for name in ("ovmf-rrq-probe.hex", "ovmf-rrq.hex")]
