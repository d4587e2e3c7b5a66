"""Files that are something else: what they are, and how to make a disk image of them.

A table of signatures, first match wins. It is asked only about files without a VHD footer.
"""

from __future__ import annotations

from dataclasses import dataclass

from bootlink_disks.errors import DiskError
from bootlink_disks.layer import Pread

_CONVERT = "convert it: qemu-img convert -O vpc -o force_size=on FILE NEW.vhd"
_IMPORT = f"import it, which converts it: bootlink image import NAME FILE; or {_CONVERT}"
_UNPACK = "unpack it first, and give the disk image that is in it"


@dataclass(frozen=True, slots=True)
class Signature:
    offset: int  # bytes from the start of the file
    magic: bytes
    what: str
    remedy: str


SIGNATURES = (
    Signature(0, b"QFI\xfb", "a qcow2 image", _IMPORT),
    Signature(0, b"QED\0", "a QED image", _CONVERT),
    Signature(0, b"KDMV", "a VMDK image", _IMPORT),
    Signature(0, b"COWD", "a VMDK image", _CONVERT),
    Signature(0, b"# Disk DescriptorFile", "a VMDK descriptor, not the disk itself", _CONVERT),
    Signature(0x40, b"\x7f\x10\xda\xbe", "a VirtualBox VDI image", _IMPORT),
    Signature(0, b"WithoutFreeSpace", "a Parallels image", _CONVERT),
    Signature(0, b"WithouFreSpacExt", "a Parallels image", _CONVERT),
    Signature(0x8001, b"CD001", "an ISO 9660 CD image", "install from it onto a disk image, and give that"),
    Signature(
        0, b"MSWIM\0\0\0", "a Windows WIM archive", "apply it to a disk image (dism /Apply-Image), and give that"
    ),
    Signature(0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    Signature(0, b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    Signature(0, b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    Signature(0, b"BZh", "a bzip2 archive", _UNPACK),
    Signature(0, b"PK\x03\x04", "a zip archive", _UNPACK),
    Signature(0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    Signature(257, b"ustar", "a tar archive", _UNPACK),
)

_HEAD = 512
"""Bytes read once for all signatures near the start; only the CD's lies further in."""


def refuse(pread: Pread) -> None:
    """DiskError if the file is one of the things in the table."""
    head = pread(0, _HEAD)
    for sign in SIGNATURES:
        end = sign.offset + len(sign.magic)
        found = head[sign.offset : end] if end <= _HEAD else pread(sign.offset, len(sign.magic))
        if found == sign.magic:
            raise DiskError(f"it is {sign.what}", sign.remedy)
