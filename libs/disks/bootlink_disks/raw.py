"""Raw images (`.img`): the file is the disk."""

from __future__ import annotations

from bootlink_disks.errors import DiskError
from bootlink_disks.layer import SECTOR, LinearMap, Pread, Structure

BOOT_SIGNATURE = b"\x55\xaa"  # at byte 510: an MBR, or the boot sector of a disk without partitions
BOOT_SIGNATURE_OFFSET = 510
GPT_SIGNATURE = b"EFI PART"  # in sector 1 (UEFI 2.10, section 5.3.2)
LARGE_SECTOR = 4096


def parse(pread: Pread, file_size: int) -> Structure:
    """The structure of a raw image. A raw image has no structure: only its size can be wrong (DiskError)."""
    if file_size == 0 or file_size % SECTOR:
        raise DiskError(
            f"a raw disk is a whole number of {SECTOR}-byte sectors, and {file_size} bytes are not",
            "if it was downloaded or copied, do so again; it may be cut short",
        )
    return Structure("raw", LinearMap(file_size), stored=file_size)


def require_boot_signature(pread: Pread) -> None:
    """DiskError unless the first sectors are those of a disk. For files that are added; raw has no other mark."""
    head = pread(0, 2 * SECTOR)
    if head[BOOT_SIGNATURE_OFFSET : BOOT_SIGNATURE_OFFSET + 2] == BOOT_SIGNATURE:
        return
    if head[SECTOR : SECTOR + 8] == GPT_SIGNATURE:
        return
    if pread(LARGE_SECTOR, 8) == GPT_SIGNATURE:
        raise DiskError(
            "its partition table is for 4096-byte sectors, and clients see 512-byte sectors",
            "make the image from a disk with 512-byte sectors",
        )
    raise DiskError(
        "it is no disk: neither a known image format, nor a partition table or boot signature (0x55AA) at its start",
        "give a disk image: raw (.img) with a partition table, VHD or VHDX",
    )
