"""Which physical disks lie behind this machine's file systems. The registry compares them (the spindle rule).

From a file system to its disks: /proc/self/mountinfo names each mount's device by its numbers, /sys/dev/block leads
from there to the kernel's view of it. A partition is a folder within that of its disk; LVM, RAID and encryption name
what they lie upon in `slaves`; a loop device names its file, which lies on a file system again. A file system
over several devices (Btrfs) has no device numbers of its own: its source is looked up, and then its members in
/sys/fs/btrfs. What has no disk at all (memory, network) has none here either.

Nothing is opened but the kernel's own files, and a file system that hangs is not touched.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bootlink_events import Mount, PhysicalDisk, Storage

MOUNTS_MOST: Final = 500  # file systems told of; a machine full of containers has hundreds
DEPTH_MOST: Final = 16  # devices upon devices
PSEUDO: Final = frozenset(
    [
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "ramfs",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "sysfs",
        "tracefs",
    ]
)  # file systems that hold no files of anybody's
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")  # space, tab, newline and backslash in mountinfo, proc(5)


@dataclass(frozen=True, slots=True)
class MountLine:
    """One line of /proc/self/mountinfo, proc(5)."""

    device: str  # "major:minor"; the major is 0 where there is no device of its own
    point: str
    kind: str
    source: str


def storage(writebacks: Path, *, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Storage | None:
    """This machine's mounts and the disks behind them; None if the kernel does not tell."""
    try:
        lines = parse_mounts((proc / "self/mountinfo").read_text(errors="surrogateescape"))
    except OSError:
        return None
    disks: dict[str, PhysicalDisk] = {}
    mounts: list[Mount] = []
    for line in lines[:MOUNTS_MOST]:
        behind = _Search(sys, lines).behind_mount(line)
        disks |= {path.name: _described(path) for path in behind}
        mounts.append(Mount(point=line.point, disks=tuple(sorted(path.name for path in behind))))
    return Storage(
        writebacks=os.path.realpath(writebacks),
        mounts=tuple(mounts),
        disks=tuple(disks[name] for name in sorted(disks)),
    )


def parse_mounts(text: str) -> list[MountLine]:
    """The mounts of file systems that hold files. A line that is not understood is passed over."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) >= 6 and len(kinds) >= 2 and kinds[0] not in PSEUDO:
            found.append(MountLine(fields[2], _plain(fields[4]), kinds[0], _plain(kinds[1])))
    return found


def _plain(text: str) -> str:
    """With its escapes undone; what is no Unicode is shown as a question mark, as it must fit into JSON."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text).encode(errors="replace").decode()


class _Search:
    """From one mount to the folders of its physical disks in /sys. Each device is looked at once."""

    def __init__(self, sys: Path, mounts: list[MountLine]) -> None:
        self._sys = sys
        self._mounts = mounts
        self._seen: set[Path] = set()

    def behind_mount(self, line: MountLine, depth: int = 0) -> set[Path]:
        if not line.device.startswith("0:"):
            return self._behind(self._sys / "dev/block" / line.device, depth)
        device = self._named(line.source)
        if device is None:
            return set()
        members = self._members(device) if line.kind == "btrfs" else []
        return set().union(*(self._behind(member, depth) for member in members or [device]))

    def _named(self, source: str) -> Path | None:
        """The device whose node in /dev is this."""
        if not source.startswith("/dev/"):
            return None
        name = os.path.realpath(source).removeprefix("/dev/").replace("/", "!")
        path = self._sys / "class/block" / name
        return path if path.exists() else None

    def _members(self, device: Path) -> list[Path]:
        """All devices of the Btrfs that this one belongs to."""
        for devices in self._sys.glob("fs/btrfs/*/devices"):
            if (devices / device.name).exists():
                return sorted(devices.iterdir())
        return []

    def _behind(self, link: Path, depth: int) -> set[Path]:
        try:
            device = link.resolve(strict=True)
            if depth > DEPTH_MOST or device in self._seen:
                return set()
            self._seen.add(device)
            if (device / "partition").exists():
                return self._behind(device.parent, depth + 1)
            below = sorted((device / "slaves").iterdir()) if (device / "slaves").is_dir() else []
            if below:
                return set().union(*(self._behind(one, depth + 1) for one in below))
            file = device / "loop/backing_file"
            if file.exists():
                return self._behind_file(_plain(file.read_text(errors="surrogateescape").rstrip("\n")), depth + 1)
        except OSError:  # taken away while we looked
            return set()
        return {device}

    def _behind_file(self, path: str, depth: int) -> set[Path]:
        around = [m for m in self._mounts if path.startswith(m.point.rstrip("/") + "/")]
        return self.behind_mount(max(around, key=lambda m: len(m.point)), depth) if around else set()


def _described(device: Path) -> PhysicalDisk:
    return PhysicalDisk(
        name=device.name,
        rotational=_read(device / "queue/rotational") == "1",
        model=_read(device / "device/model"),
    )


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
