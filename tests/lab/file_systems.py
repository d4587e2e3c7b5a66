"""Disks with file systems on them, made by the systems' own tools, and garbage where they are free."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lab.disks import MIB

Kind = Literal["ext4", "ext4 without checksums", "ext2 of 1 KiB", "ntfs", "ntfs of 64 KiB"]
KINDS: tuple[Kind, ...] = ("ext4", "ext4 without checksums", "ext2 of 1 KiB", "ntfs", "ntfs of 64 KiB")

_EXT = ["mke2fs", "-q", "-F", "-E", "nodiscard"]
_MAKE: dict[Kind, list[str]] = {
    "ext4": [*_EXT, "-t", "ext4"],
    "ext4 without checksums": [*_EXT, "-t", "ext4", "-O", "^uninit_bg,^metadata_csum,^64bit"],
    "ext2 of 1 KiB": [*_EXT, "-t", "ext2", "-b", "1024"],
    "ntfs": ["mkntfs", "-q", "-F", "-Q", "-p", "0", "-H", "255", "-S", "63"],
    "ntfs of 64 KiB": ["mkntfs", "-q", "-F", "-Q", "-p", "0", "-H", "255", "-S", "63", "-c", "65536"],
}


def run(*command: str | Path) -> str:
    """What a tool said. Fails, with its words, if it fails."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def file_system(path: Path, kind: Kind, files: dict[str, bytes], size: int = 24 * MIB) -> Path:
    """A file system with these files in its root, over a disk that was full of something else before."""
    path.write_bytes(random.Random(kind).randbytes(size))
    run(*_MAKE[kind], path)
    for name, content in files.items():
        source = path.with_name(f"{path.name}-{name}")
        source.write_bytes(content)
        if kind.startswith("ntfs"):
            run("ntfscp", "-q", path, source, name)
        else:
            run("debugfs", "-w", "-R", f"write {source} {name}", path)
        source.unlink()
    return path


def content_of(path: Path, kind: Kind, name: str) -> bytes:
    """A file's bytes, as the system's own tool reads them."""
    if kind.startswith("ntfs"):
        done = subprocess.run(["ntfscat", path, name], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout
    copy = path.with_name(f"{path.name}-{name}")
    run("debugfs", "-R", f"dump {name} {copy}", path)
    found = copy.read_bytes()
    copy.unlink()
    return found


def require_sound(path: Path, kind: Kind) -> None:
    """Fails if the system's own checker finds something."""
    if kind.startswith("ntfs"):
        run("ntfsfix", "-n", path)
    else:
        run("e2fsck", "-f", "-n", path)


def used_blocks(path: Path, kind: Kind) -> bytes:
    """The partition with zeros in all that is free, by the system's own tools."""
    if kind.startswith("ntfs"):
        copy = path.with_name(f"{path.name}-copy")
        run("ntfsclone", "-q", "-O", copy, path)
        found = copy.read_bytes().ljust(path.stat().st_size, b"\0")
        copy.unlink()
        return found
    words = run("dumpe2fs", path)
    size = int(words.split("Block size:")[1].split()[0])
    disk = bytearray(path.read_bytes())
    for line in re.findall(r"^  Free blocks: (\d.*)$", words, re.MULTILINE):
        for part in line.split(", "):
            low, _, high = part.partition("-")
            start, stop = int(low) * size, (int(high or low) + 1) * size
            disk[start:stop] = bytes(stop - start)
    return bytes(disk)


def disk_of(path: Path, parts: Sequence[Path], table: Literal["gpt", "dos"]) -> list[int]:
    """A disk of these partitions, by sfdisk; where each begins. The last of four and more in an MBR are logical."""
    starts, script = [], [f"label: {table}"]
    at = MIB
    for number, part in enumerate(parts):
        size = part.stat().st_size
        if table == "dos" and number == 3:
            rest = sum(one.stat().st_size + MIB for one in parts[number:])
            script.append(f"start={at // 512}, size={rest // 512 + 2048}, type=f")
        if table == "dos" and number >= 3:
            at += MIB
        script.append(f"start={at // 512}, size={size // 512}")
        starts.append(at)
        at += size
    with path.open("wb") as file:
        file.truncate(at + 2 * MIB)
        for start, part in zip(starts, parts, strict=True):
            file.seek(start)
            file.write(part.read_bytes())
    done = subprocess.run(
        ["sfdisk", "-q", "--no-reread", "--no-tell-kernel", "--wipe", "never", "--wipe-partitions", "never", path],
        input="\n".join(script),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return starts
