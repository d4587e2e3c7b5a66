"""What a loader's file is, by its first bytes: a BIOS network boot program, or a UEFI program for which processor.

Firmware that is sent the wrong one says nothing that helps: a BIOS jumps into it and hangs, a UEFI says "unsupported"
for a second and goes on. So a file is looked at before it is ever offered. A UEFI program is a PE/COFF image whose
headers tell its machine, its kind and its length (Microsoft's PE format; UEFI 2.10 section 2.1.1), so one that was
cut off is found out. A network boot program (PXE 2.1 section 4.4.4) is bare code that begins with its first
instruction: it carries no length, so all that can be said of it is what it is not. Pure: bytes in, `Image` out,
`LoaderUnfit` for anything else.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

HEAD_SIZE: Final = 64 << 10
"""Bytes of a file that are looked at: PE headers are within the first page or two."""
NBP_MIN: Final = 512  # bytes; the smallest boot program of use is a sector
NBP_MAX: Final = 0xA0000 - 0x7C00
"""Bytes: a BIOS loads it at 0x7C00, below the video memory (PXE 2.1 section 4.4.5). What is larger cannot be loaded."""
_SECTIONS_MAX: Final = 96  # PE format: what the Windows loader takes

_E_LFANEW: Final = 0x3C
_COFF: Final = struct.Struct("<4sHHIIIHH")  # signature, machine, sections, time, symbols (2), optional size, flags
_SECTION: Final = struct.Struct("<8sIIII16s")  # name, virtual size, virtual address, raw size, raw pointer, the rest
_PE32: Final = 0x10B
_PE32_PLUS: Final = 0x20B
_DIRECTORIES_AT: Final = {_PE32: 96, _PE32_PLUS: 112}  # in the optional header
_SUBSYSTEM_AT: Final = 68
_EFI_APPLICATION: Final = 10
_CERTIFICATES: Final = 4  # the directory of signatures; its address is an offset in the file


class Image(IntEnum):
    """Kinds of loaders. UEFI programs by their PE machine type, UEFI 2.10 section 2.1.1."""

    NBP = 0
    IA32 = 0x014C
    ARM32 = 0x01C2
    RISCV64 = 0x5064
    LOONGARCH64 = 0x6264
    X64 = 0x8664
    ARM64 = 0xAA64

    @property
    def text(self) -> str:
        return "a BIOS boot program" if self is Image.NBP else f"a UEFI program for {self.name.lower()}"


class LoaderUnfit(ValueError):
    """This file starts no PC; the text says why."""


_NEVER: Final = (
    (b"\x7fELF", "is a program for Linux"),
    (b"\x1f\x8b", "is compressed with gzip"),
    (b"\xfd7zXZ", "is compressed with xz"),
    (b"PK\x03\x04", "is a ZIP file"),
    (b"\x55\xaa", "is a network card's option ROM"),
    (bytes(16), "begins with nothing but zeros"),  # what a full disk, or a crash while copying, leaves
    (b"<", "is a web page"),  # what a failed download leaves
    (b"#!", "is a script"),
)


def examine(head: bytes, size: int) -> Image:
    """What a file of `size` bytes is; `head` is all of it, or its first `HEAD_SIZE` bytes. Raises LoaderUnfit."""
    if not size:
        raise LoaderUnfit("is empty")
    if head.startswith(b"MZ"):
        return _pe(head, size)
    for magic, what in _NEVER:
        if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(magic):
            raise LoaderUnfit(what)
    if head[0x202:0x206] == b"HdrS":  # Linux boot protocol; iPXE's own .lkrn is one
        raise LoaderUnfit("is a Linux kernel")
    if size < NBP_MIN:
        raise LoaderUnfit(f"has {size} bytes, which is no boot program")
    if size > NBP_MAX:
        raise LoaderUnfit(f"has {size} bytes, more than a BIOS can load ({NBP_MAX})")
    return Image.NBP


def _pe(head: bytes, size: int) -> Image:
    if len(head) < _E_LFANEW + 4:
        raise LoaderUnfit("is cut off within its header")
    (at,) = struct.unpack_from("<I", head, _E_LFANEW)
    if at + _COFF.size > min(size, HEAD_SIZE):
        raise LoaderUnfit("is cut off within its header, or no UEFI program")
    signature, machine, sections, _, _, _, optional_size, _ = _COFF.unpack_from(head, at)
    if signature != b"PE\0\0":
        raise LoaderUnfit("is a DOS program")
    optional_at = at + _COFF.size
    sections_at = optional_at + optional_size
    if sections > _SECTIONS_MAX or sections_at + sections * _SECTION.size > min(size, HEAD_SIZE):
        raise LoaderUnfit("is cut off within its header, or no UEFI program")
    optional = head[optional_at:sections_at]
    if len(optional) < _SUBSYSTEM_AT + 2 or optional[_SUBSYSTEM_AT] != _EFI_APPLICATION:
        raise LoaderUnfit("is a Windows program, or a UEFI driver, and no UEFI application")
    ends = [sections_at + sections * _SECTION.size, _signatures_end(optional)]
    for index in range(sections):
        _, _, _, raw_size, raw_at, _ = _SECTION.unpack_from(head, sections_at + index * _SECTION.size)
        ends.append(raw_at + raw_size if raw_size else 0)
    if max(ends) > size:
        raise LoaderUnfit(f"is cut off: it has {size} bytes of {max(ends)}")
    try:
        return Image(machine)
    except ValueError:
        raise LoaderUnfit(f"is a program for an unknown processor (0x{machine:04x})") from None


def _signatures_end(optional: bytes) -> int:
    """Where the signatures end, 0 if there are none: they come last in a signed file."""
    directories = _DIRECTORIES_AT.get(int.from_bytes(optional[:2], "little"))
    if directories is None or len(optional) < directories + (_CERTIFICATES + 1) * 8:
        return 0
    offset, length = struct.unpack_from("<II", optional, directories + _CERTIFICATES * 8)
    return int(offset + length) if length else 0
