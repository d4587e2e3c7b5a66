"""Disk images that tests are made of, and qemu-img, the judge."""

from __future__ import annotations

import hashlib
import random
import shutil
import struct
import subprocess
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from bootlink_disks import vhd

MIB = 1 << 20
DISK_ID = uuid.UUID("6f0d5a52-13b7-4c0c-8d0a-3f2f0c9a7b11")


def sparse_disk(path: Path, size: int, *, seed: int = 1, islands: int = 12) -> Path:
    """A raw disk that is mostly hole: a boot signature, bytes at both ends, and islands of random bytes between."""
    rng = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for _ in range(islands):
            length = min(rng.choice((512, 4096, 70_000)), size)
            file.seek(rng.randrange(0, size - length + 1))
            file.write(rng.randbytes(length))
        file.seek(size - 512)
        file.write(rng.randbytes(512))
        file.seek(510)
        file.write(b"\x55\xaa")
    return path


def dynamic_vhd(
    size: int = 64 << 10,
    block_size: int = 4096,
    blocks: Iterable[tuple[int, bytes]] = (),
    *,
    bitmap: Callable[[int], bytes] | None = None,
) -> bytearray:
    """A dynamic VHD written down from the specification, tight (no padding), for parsers to be tried on.

    `blocks` are (number, data); `bitmap` makes a block's bitmap, all ones by default.
    """
    entries = -(-size // block_size)
    padded = -(-entries * 4 // 512) * 512
    table = [0xFFFFFFFF] * (padded // 4)
    body = bytearray()
    for number, data in blocks:
        table[number] = (1536 + padded + len(body)) // 512
        bits = bitmap(number) if bitmap else b"\xff" * (block_size // 4096)
        body += bits.ljust(vhd.bitmap_size(block_size), b"\0") + data.ljust(block_size, b"\0")
    footer = bytes(vhd.Footer(vhd.DYNAMIC, size, DISK_ID, 512))
    header = bytes(vhd.DynamicHeader(1536, entries, block_size))
    return bytearray(footer + header + struct.pack(f">{len(table)}I", *table) + body + footer)


def reseal_footer(data: bytearray, at: int) -> None:
    """Make the checksum of the footer at `at` right again."""
    data[at + 64 : at + 68] = bytes(4)
    struct.pack_into(">I", data, at + 64, ~sum(data[at : at + 512]) & 0xFFFFFFFF)


def reseal_header(data: bytearray, at: int = 512) -> None:
    """Make the checksum of the dynamic header at `at` right again."""
    data[at + 36 : at + 40] = bytes(4)
    struct.pack_into(">I", data, at + 36, ~sum(data[at : at + 1024]) & 0xFFFFFFFF)


def pread_of(data: bytes | bytearray) -> Callable[[int, int], bytes]:
    """A `Pread` over bytes in memory."""
    return lambda offset, length: bytes(data[offset : offset + length])


def digest(path: Path) -> str:
    """SHA-256 of a file: what must not change when an image is served."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def qemu_img(*arguments: str | Path, tool: str = "qemu-img", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run qemu-img (or qemu-io). Fails, with its words, if it fails; without the tool it says what to install."""
    found = shutil.which(tool)
    assert found, f"{tool} is missing: apt install qemu-utils"
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, f"{tool} {arguments}: {done.stdout}{done.stderr}"
    return done


def changes_of(rng: random.Random, size: int, count: int) -> list[tuple[int, bytes]]:
    """Runs of whole sectors that were written to a disk, ascending and apart; some of them are zeros."""
    sectors = size // 512
    cuts = sorted(rng.sample(range(sectors + 1), min(2 * count, sectors + 1) // 2 * 2))
    return [
        (start * 512, bytes((stop - start) * 512) if rng.random() < 0.2 else rng.randbytes((stop - start) * 512))
        for start, stop in zip(cuts[::2], cuts[1::2], strict=True)
    ]


def apply_changes(disk: bytearray, changes: Iterable[tuple[int, bytes]]) -> None:
    """The same to a model of the disk."""
    for offset, data in changes:
        disk[offset : offset + len(data)] = data
