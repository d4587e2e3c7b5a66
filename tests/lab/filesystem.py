"""A small file system of a test's own, so that it can be full. Needs root, as the network namespaces do."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Kind = Literal["ext4", "tmpfs"]


def mount(kind: Kind, disk: Path, at: Path, size: int) -> None:
    """Mount it; an ext4 that was made before is mounted again as it is."""
    at.mkdir(exist_ok=True)
    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "bootlink-test", at], check=True)
        return
    if not disk.exists():
        with disk.open("wb") as out:
            out.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-m", "0", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, at], check=True)


def unmount(at: Path) -> None:
    subprocess.run(["umount", at], check=True)


@contextlib.contextmanager
def small(kind: Kind, folder: Path, size: int) -> Iterator[Path]:
    """A file system of about `size` bytes for the length of the block."""
    at = folder / "small"
    mount(kind, folder / "small.img", at, size)
    try:
        yield at
    finally:
        # Lazily: a test that failed may have files open there still, and its own error is the one to tell.
        subprocess.run(["umount", "--lazy", at], check=True)
