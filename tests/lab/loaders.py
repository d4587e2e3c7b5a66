"""Boot loaders that are none: what the dhcp service takes for a loader, and no PC could run."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from bootlink_dhcp.loader_image import Image

NBP = b"\xea\x05\x00\xc0\x07" + b"\x90" * 1019  # a far jump, as iPXE's begins
SIZE = 1024


def efi_program(image: Image = Image.X64, *, subsystem: int = 10, size: int = SIZE) -> bytes:
    """A PE32+ image of one section that fills it up to `size` bytes."""
    optional = struct.pack("<H66xH", 0x20B, subsystem).ljust(112 + 16 * 8, b"\0")
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", image, 1, 0, 0, 0, len(optional), 0x22)
    at = 512
    section = struct.pack("<8sIIII16x", b".text", size - at, 0x1000, size - at, at)
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + coff + optional + section
    return head.ljust(at, b"\0") + b"\xc3" * (size - at)


def put_loaders(folder: Path, names: Iterable[str] = ("undionly.kpxe", "snponly.efi")) -> Path:
    """Put these into the folder, which is made; each is what firmware expects under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(efi_program() if name.endswith(".efi") else NBP)
    return folder


class AtHand:
    """Loaders that lie there under these names, and fit whatever asks."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def fits(self, name: str, image: Image) -> bool:
        return name in self.names
