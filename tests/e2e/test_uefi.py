"""A real UEFI PC: OVMF in QEMU, from its own PXE client to a Linux login prompt on an iSCSI disk.

Its packets are compared with tests/golden on the way, so that what the walkthrough quotes stays what firmware sends.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bootlink_events import mac_token
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import MessageType
from guest.demo import CACHE
from guest.disk import build_disk
from guest.firmware import UEFI, UEFI_HTTP
from guest.lan import Lan
from guest.pc import PC
from guest.system import System
from lab.golden import differs, http_capture, tftp_capture
from lab.sniffer import Sniffer, http_request

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


async def test_ovmf_boots_over_http_and_asks_for_nothing_by_tftp(tmp_path: Path) -> None:
    disk = await asyncio.to_thread(build_disk, CACHE)
    settings = {"BOOTLINK_TFTP_HTTP_PORT": "80", "BOOTLINK_TFTP_SCRIPT_URLS": "http"}
    with Lan() as lan:
        async with (
            System(lan, tmp_path / "data", settings=settings) as system,
            PC(lan, MAC, tmp_path, firmware=UEFI_HTTP) as pc,
        ):
            await system.command("image", "add", "demo", str(disk))
            await system.command("link", "set", "--default", "demo")
            await system.command("client", "add", MAC, "--name", "pc-http")
            with Sniffer(lan.namespace, Lan.BRIDGE) as sniffer:
                await pc.boot()
                packets = sniffer.datagrams
                heads = [head for frame in sniffer.frames if (head := http_request(frame)) is not None]
            await pc.console.login()
            assert (await pc.console.run("hostname")).text == "pc-http"
            (boot,) = await system.query("boot", "list", "--client", "pc-http")
            shown = await system.query("boot", "show", boot["id"])
    kinds = [stage["kind"].removeprefix("boot.") for stage in shown["stages"]]
    assert {"started", "addressed", "loader_sent", "script_served", "disk_attached"} <= {*kinds}
    assert "failed" not in kinds
    assert [one.file for one in packets if one.file] == []
    discover, request = (
        next(one.payload for one in packets if one.message is message)
        for message in (MessageType.DISCOVER, MessageType.REQUEST)
    )
    assert differs(discover, "ovmf-http-discover.hex") == []
    assert differs(request, "ovmf-http-request.hex") == []
    firmware, loader = (f"/boot/{boot['id']}/{name}".encode() for name in ("snponly.efi", f"{mac_token(MAC)}.ipxe"))
    captured = (("ovmf-head.hex", firmware), ("ovmf-get.hex", firmware), ("ipxe-get.hex", loader))
    assert heads == [at_path(http_capture(name), path) for name, path in captured]


def at_path(head: bytes, path: bytes) -> bytes:
    """A captured request, for another path: the second word of its first line."""
    method, _, rest = head.split(b" ", 2)
    return b" ".join((method, path, rest))
