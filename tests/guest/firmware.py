"""The firmwares of the demo PCs: what QEMU is told for each, and the table of what a boot with it prints, in order.

    BIOS        SeaBIOS, with the network card's own PXE ROM, which is iPXE
    UEFI        OVMF, with its own PXE client and without the card's ROM, as most PCs of today
    UEFI_HTTP   the same, set to HTTP boot
    UEFI_IA32   OVMF for 32-bit processors
    UEFI_SECURE OVMF with Secure Boot enforced, which trusts the test key in Debian's ovmf and nothing else

OVMF is told through fw_cfg to leave out IPv6, as an administrator does in a PC's setup: it would be tried where IPv4
failed, and hide that. It keeps its variables in a file of each PC's own, since it writes to them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from guest.toolbox import BuildError

OVMF = Path("/usr/share/OVMF")
# Firmware for Secure Boot keeps its variables from the system by SMM, and stops where there is none (ovmf's README).
WITH_SMM = ("-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on")


@dataclass(frozen=True, slots=True)
class Milestone:
    """A stage of a boot: what is printed when it is reached, and how many seconds after the one before at the most.

    The limits are for a busy two-core machine under emulation: ten to twenty times what a quiet one takes.
    """

    stage: str
    pattern: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Firmware:
    """One kind of firmware. `arguments` gives QEMU's, for a PC whose files are kept in a folder under a name."""

    name: str
    card_options: str
    stages: tuple[Milestone, ...]
    arguments: Callable[[Path, str], list[str]]


FROM_THE_DISK = (
    Milestone("disk", r"Booting from SAN device", 90),
    Milestone("GRUB", r"guest: GRUB: loading the kernel", 90),
    Milestone("kernel", r"guest: GRUB: starting the kernel", 180),
    Milestone("network", r"guest: initramfs: .* from the iBFT", 120),
    Milestone("login to the disk", r"guest: initramfs: .* logged in to", 90),
    Milestone("root file system", r"guest: initramfs: .* root is \S+, read-write", 90),
    Milestone("login prompt", r"^\S+ login: ", 90),
)
# The URL before it does not fit one line of the PXE console.
SCRIPT = Milestone("script", r"\.ipxe : \d+ bytes", 90)


def _no_arguments(folder: Path, name: str) -> list[str]:
    return []


def _pxe(folder: Path, name: str) -> list[str]:
    return [*_ovmf(folder, name), *_without("IPv6PXESupport")]


def _http(folder: Path, name: str) -> list[str]:
    return [*_ovmf(folder, name), *_without("IPv4PXESupport"), *_without("IPv6PXESupport")]


def _without(what: str) -> list[str]:
    """OVMF's own switch. Without it PXE comes first, and HTTP boot when that has given up, after two minutes."""
    return ["-fw_cfg", f"name=opt/org.tianocore/{what},string=n"]


def _secure(folder: Path, name: str) -> list[str]:
    return [
        *_ovmf(folder, name, code="OVMF_CODE_4M.secboot.fd", variables="OVMF_VARS_4M.snakeoil.fd"),
        *_without("IPv6PXESupport"),
        *WITH_SMM,
    ]


def _ia32(folder: Path, name: str) -> list[str]:
    return [
        *_ovmf(folder, name, code="OVMF32_CODE_4M.secboot.fd", variables="OVMF32_VARS_4M.fd"),
        *_without("IPv6PXESupport"),
        *WITH_SMM,
    ]


def _ovmf(folder: Path, name: str, *, code: str = "OVMF_CODE_4M.fd", variables: str = "OVMF_VARS_4M.fd") -> list[str]:
    own = folder / f"{name}.vars"
    if not OVMF.is_dir():
        raise BuildError(f"{OVMF} is not there: apt-get install ovmf")
    if not own.exists():
        shutil.copyfile(OVMF / variables, own)
    return [
        *("-drive", f"if=pflash,format=raw,readonly=on,file={OVMF / code}"),
        *("-drive", f"if=pflash,format=raw,file={own}"),
    ]


BIOS = Firmware(
    "BIOS",
    "",
    (
        Milestone("PXE ROM", r"iPXE initialising devices", 60),
        Milestone("address", r"net\d: [\d.]+/[\d.]+", 90),
        Milestone("loader", r"^undionly\.kpxe : \d+ bytes", 90),
        SCRIPT,
        *FROM_THE_DISK,
    ),
    _no_arguments,
)
IPXE = Milestone("iPXE", r"iPXE initialising devices", 90)
UEFI = Firmware(
    "UEFI",
    ",romfile=",
    (
        Milestone("PXE client", r">>Start PXE over IPv4", 120),
        Milestone("address", r"Station IP address is [\d.]+", 120),
        Milestone("loader", r"NBP file downloaded successfully", 120),
        IPXE,
        SCRIPT,
        *FROM_THE_DISK,
    ),
    _pxe,
)
UEFI_HTTP = Firmware(
    "UEFI with HTTP boot",
    ",romfile=",
    (
        Milestone("HTTP client", r">>Start HTTP Boot over IPv4", 120),
        Milestone("address", r"Station IP address is [\d.]+", 120),
        Milestone("loader", r"Downloading\.\.\.100%", 120),
        IPXE,
        SCRIPT,
        *FROM_THE_DISK,
    ),
    _http,
)
UEFI_SECURE = replace(UEFI, name="UEFI with Secure Boot", arguments=_secure)
UEFI_IA32 = replace(UEFI, name="UEFI IA32", arguments=_ia32)
