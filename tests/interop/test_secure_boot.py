"""A PC that enforces Secure Boot: OVMF with the test key of Debian's ovmf in its database, and nothing else there."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootlink_dhcp.settings import DEBIAN_LOADERS
from guest.firmware import UEFI_SECURE
from guest.lan import Lan
from guest.pc import PC
from lab.boot_service import BootService
from lab.secure_boot import put_signed_shim
from lab.sniffer import Sniffer

MAC = "52:54:00:12:34:56"
SHIM = Path("/usr/lib/shim/shimx64.efi")
SHIM_RULES = json.dumps([{"arch": "uefi-x64", "loaders": ["shimx64.efi"]}])

pytestmark = pytest.mark.timeout(300)  # each takes 15 s of emulation, on a busy machine several times that


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan() as made:
        yield made


async def test_a_signed_shim_starts_the_signed_ipxe_beside_it_which_asks_for_its_script(
    lan: Lan, tmp_path: Path
) -> None:
    put_signed_shim(tmp_path / "data" / "tftp" / "loaders", SHIM, DEBIAN_LOADERS / "snponly.efi")
    with (
        BootService(lan, tmp_path, loader_rules=SHIM_RULES),
        BootService(lan, tmp_path, "tftp"),
        contextlib.ExitStack() as stack,
    ):
        pc = PC(lan, MAC, tmp_path, firmware=UEFI_SECURE)
        sniffer = stack.enter_context(Sniffer(lan.namespace, pc.tap))
        async with pc:
            await pc.power_on()
            asked = await sniffer.hears(lambda one: bool(one.file and one.file.endswith(".ipxe")), seconds=120)
        files = [one.file.rpartition("/")[2] for one in sniffer.datagrams if one.file]
    assert asked.file is not None
    assert [name for name in dict.fromkeys(files) if name in ("shimx64.efi", "grubx64.efi", "snponly.efi")] == [
        "shimx64.efi",
        "grubx64.efi",
    ]


async def test_what_nobody_signed_is_refused_by_the_firmware_and_by_a_signed_shim(lan: Lan, tmp_path: Path) -> None:
    """One power-on: PXE brings an unsigned iPXE; then the firmware tries HTTP boot, which brings a signed shim with an
    unsigned iPXE beside it."""
    own = tmp_path / "data" / "tftp" / "loaders"
    put_signed_shim(own, SHIM, DEBIAN_LOADERS / "snponly.efi")
    shutil.copy(DEBIAN_LOADERS / "snponly.efi", own / "grubx64.efi")
    rules = json.dumps([{"arch": "http-x64", "loaders": ["shimx64.efi"]}])
    with (
        BootService(lan, tmp_path, loader_rules=rules, tftp_http_port="80"),
        BootService(lan, tmp_path, "tftp", http_port="80"),
    ):
        async with PC(lan, MAC, tmp_path, firmware=UEFI_SECURE) as pc:
            await pc.power_on()
            await pc.console.expect("failed to load Boot0001 .*: Access Denied", stage="refusal", timeout=120)
            await pc.console.expect("Verification failed.*|.*Security Violation", stage="shim's refusal", timeout=120)
