"""A PC with UEFI for IA32, by real firmware. Debian has no iPXE for it: the loader is a GRUB that says that it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bootlink_wire.dhcp import MessageType
from guest.firmware import UEFI_IA32
from guest.lan import Lan
from guest.pc import PC
from guest.toolbox import run
from lab.boot_service import BootService
from lab.golden import differs
from lab.netns import tool
from lab.sniffer import Sniffer

MAC = "52:54:00:12:34:56"
UP = "the loader for IA32 is up"


@pytest.mark.timeout(300)  # 10 s of emulation, on a busy machine several times that
async def test_ia32_firmware_is_sent_the_loader_for_ia32_and_starts_it(tmp_path: Path) -> None:
    own = tmp_path / "data" / "tftp" / "loaders"
    own.mkdir(parents=True)
    (tmp_path / "grub.cfg").write_text(f"echo '{UP}'\nsleep 300\n")
    made = ("-O", "i386-efi", "-p", "/", "-c", tmp_path / "grub.cfg", "-o", own / "ipxe-ia32.efi")
    run(tool("grub-mkimage", "grub-common"), *made, "echo", "sleep")
    with Lan() as lan, BootService(lan, tmp_path), BootService(lan, tmp_path, "tftp") as tftp:
        async with PC(lan, MAC, tmp_path, firmware=UEFI_IA32) as pc:
            with Sniffer(lan.namespace, Lan.BRIDGE) as sniffer:
                await pc.power_on()
                await pc.console.expect(UP, stage="the loader", timeout=150)
                heard = [one for one in sniffer.datagrams if one.dhcp and one.dhcp.chaddr.hex(":") == MAC]
    said = {one.message: one.payload for one in reversed(heard)}  # of each message the first
    assert differs(said[MessageType.DISCOVER], "ovmf-ia32-discover.hex") == []
    assert differs(said[MessageType.REQUEST], "ovmf-ia32-request.hex") == []
    lines = [json.loads(line) for line in tftp.log.read_text().splitlines()]
    (sent,) = [line for line in lines if line["event"] == "sent"]
    assert sent["file"] == "ipxe-ia32.efi", "and not one of Debian's, which are for x64"
