"""PCs that get their address from somebody else's server, and all else from Bootlink as a proxy beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from guest.demo import CACHE
from guest.disk import build_disk
from guest.firmware import BIOS, UEFI, Firmware
from guest.lan import Lan
from guest.pc import PC
from guest.system import System
from lab.address_server import Host, dnsmasq, kea
from lab.process import Process

pytestmark = pytest.mark.timeout(400)  # the boot takes 20 s of emulation, on a busy machine several times that

MAC = "52:54:00:b0:07:41"
PROXY = {"BOOTLINK_DHCP_MODE": "proxy"}


@pytest.mark.parametrize(("firmware", "server"), [(BIOS, dnsmasq), (UEFI, dnsmasq), (UEFI, kea)])
async def test_a_pc_boots_from_us_with_the_others_address(
    tmp_path: Path, firmware: Firmware, server: Callable[[Host, Path], AbstractContextManager[Process]]
) -> None:
    disk = await asyncio.to_thread(build_disk, CACHE)
    with Lan() as lan, Host(lan, "10.77.0.2/24") as other, server(other, tmp_path / "other"):
        async with (
            System(lan, tmp_path / "data", settings=PROXY) as system,
            PC(lan, MAC, tmp_path, firmware=firmware) as pc,
        ):
            await system.command("image", "add", "demo", str(disk))
            await system.command("link", "set", "--default", "demo")
            await system.command("client", "add", MAC, "--name", "pc-guest")
            await pc.boot()
            (boot,) = await system.query("boot", "list", "--client", "pc-guest")
            shown = await system.query("boot", "show", boot["id"])
    stages = {stage["kind"].removeprefix("boot.") for stage in shown["stages"]}
    assert {"started", "addressed", "loader_sent", "script_served", "disk_attached"} <= stages
    assert "failed" not in stages
