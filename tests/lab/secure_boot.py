"""Boot loaders signed for a firmware that enforces Secure Boot: with the test key of Debian's ovmf, which only
`UEFI_SECURE` trusts.

A shim takes no second stage without a section `.sbat`, which says by what a build may be revoked (shim's SBAT.md). iPXE
has one since its version 2; Debian's of 2019 is given one here, before it is signed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from guest.toolbox import run
from lab.netns import tool

KEY = Path("/usr/share/ovmf/PkKek-1-snakeoil.key")
CERTIFICATE = Path("/usr/share/ovmf/PkKek-1-snakeoil.pem")
PASSPHRASE = "snakeoil"  # as ovmf's README says
SBAT = (
    "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\nipxe,1,iPXE,ipxe,1,https://ipxe.org\n"
)
SBAT_AT = 0x100000  # behind all sections of iPXE, in memory


def with_sbat(program: Path, made: Path) -> Path:
    """A copy of this UEFI program that a shim takes, once it is signed."""
    table = made.with_suffix(".csv")
    table.write_text(SBAT)
    run(
        *(tool("objcopy", "binutils"), "--add-section", f".sbat={table}"),
        *("--set-section-flags", ".sbat=alloc,load,readonly,data", "--change-section-address", f".sbat+{SBAT_AT}"),
        *(program, made),
    )
    return made


def signed(program: Path, made: Path) -> Path:
    """A copy of this UEFI program with a signature."""
    key = made.with_suffix(".key")
    run(tool("openssl", "openssl"), "rsa", "-in", KEY, "-passin", f"pass:{PASSPHRASE}", "-out", key)
    run(tool("sbsign", "sbsigntool"), "--key", key, "--cert", CERTIFICATE, "--output", made, program)
    return made


def put_signed_shim(folder: Path, shim: Path, ipxe: Path) -> None:
    """This shim and what it loads, both signed, into a loader folder, under the names that Debian's shim asks for."""
    folder.mkdir(parents=True, exist_ok=True)
    work = folder.parent / "signing"
    work.mkdir()
    signed(shim, work / "shimx64.efi")
    signed(with_sbat(ipxe, work / "ipxe.efi"), work / "grubx64.efi")
    for name in ("shimx64.efi", "grubx64.efi"):
        shutil.copy(work / name, folder / name)
