"""From mounts to physical disks: a made-up /sys with partitions, LVM, RAID, loop devices, Btrfs; and this machine's."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bootlink_blockstore import spindles
from bootlink_events import PhysicalDisk, Storage


class Kernel:
    """A made-up /sys and /proc."""

    def __init__(self, folder: Path) -> None:
        self.sys = folder / "sys"
        self.proc = folder / "proc"
        self._mounts: list[str] = []
        (self.sys / "dev/block").mkdir(parents=True)
        (self.sys / "class/block").mkdir(parents=True)
        (self.proc / "self").mkdir(parents=True)

    def device(self, numbers: str, path: str, *, slaves: tuple[str, ...] = (), **files: str) -> None:
        """A device at `path` below /sys/devices; `files` with __ for a slash."""
        home = self.sys / "devices" / path
        (home / "slaves").mkdir(parents=True)
        (self.sys / "dev/block" / numbers).symlink_to(home)
        (self.sys / "class/block" / home.name).symlink_to(home)
        for slave in slaves:
            (home / "slaves" / slave).symlink_to((self.sys / "class/block" / slave).resolve())
        for name, text in files.items():
            file = home / name.replace("__", "/")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text + "\n")

    def disk(self, numbers: str, name: str, *, rotational: bool) -> None:
        self.device(
            numbers, f"pci/{name}", queue__rotational=str(int(rotational)), device__model=f"{name.upper()} model "
        )

    def partition(self, numbers: str, disk: str, name: str) -> None:
        self.device(numbers, f"pci/{disk}/{name}", partition="1")

    def mount(self, numbers: str, point: str, kind: str = "ext4", source: str = "/dev/x") -> None:
        self._mounts.append(f"27 1 {numbers} / {point} rw,relatime shared:1 - {kind} {source} rw")

    def storage(self, writebacks: str = "/data") -> Storage:
        (self.proc / "self/mountinfo").write_text("\n".join(self._mounts) + "\nrubbish\n")
        told = spindles.storage(Path(writebacks), proc=self.proc, sys=self.sys)
        assert told is not None
        return told


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_a_partition_leads_to_its_disk(kernel: Kernel) -> None:
    kernel.disk("8:0", "sda", rotational=True)
    kernel.partition("8:2", "sda", "sda2")
    kernel.mount("8:2", "/")
    told = kernel.storage()
    assert told.behind("/images/win11.vhd") == {"sda"}
    assert told.disks == (PhysicalDisk(name="sda", rotational=True, model="SDA model"),)
    assert told.writebacks == os.path.realpath("/data")


def test_lvm_upon_raid_upon_partitions_leads_to_all_disks_and_each_is_told_once(kernel: Kernel) -> None:
    for number, disk in enumerate(("sda", "sdb", "sdc")):
        kernel.disk(f"8:{number * 16}", disk, rotational=disk != "sdc")
        kernel.partition(f"8:{number * 16 + 1}", disk, f"{disk}1")
    kernel.device("9:0", "virtual/md0", slaves=("sda1", "sdb1"))
    kernel.device("253:0", "virtual/dm-0", slaves=("md0", "sdc1"))
    kernel.device("253:1", "virtual/dm-1", slaves=("dm-0",))
    kernel.mount("253:1", "/srv")
    kernel.mount("9:0", "/data")
    told = kernel.storage()
    assert told.behind("/srv/images/a") == {"sda", "sdb", "sdc"}
    assert told.behind("/data") == {"sda", "sdb"}
    assert told.behind("/elsewhere") == frozenset()
    assert [(disk.name, disk.rotational) for disk in told.disks] == [("sda", True), ("sdb", True), ("sdc", False)]


def test_a_loop_device_leads_to_the_disk_that_its_file_lies_on(kernel: Kernel) -> None:
    kernel.disk("8:0", "sda", rotational=True)
    kernel.mount("8:0", "/")
    kernel.device("7:0", "virtual/loop0", loop__backing_file="/var/images.ext4")
    kernel.mount("7:0", "/images")
    assert kernel.storage().behind("/images/a") == {"sda"}


def test_a_btrfs_leads_to_all_its_devices(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, disk in enumerate(("sda", "sdb")):
        kernel.disk(f"8:{number * 16}", disk, rotational=True)
        members = kernel.sys / "fs/btrfs/0c6f/devices"
        members.mkdir(parents=True, exist_ok=True)
        (members / disk).symlink_to((kernel.sys / "class/block" / disk).resolve())
    kernel.mount("0:40", "/pool", kind="btrfs", source="/dev/sda")
    assert kernel.storage().behind("/pool/a") == {"sda", "sdb"}


def test_what_has_no_disk_has_none_and_what_lies_on_top_hides_what_is_below(kernel: Kernel) -> None:
    kernel.disk("8:0", "sda", rotational=True)
    kernel.mount("8:0", "/")
    kernel.mount("0:50", "/mnt/nfs\\040share", kind="nfs4", source="nas:/export")
    kernel.mount("0:51", "/proc", kind="proc", source="proc")
    kernel.mount("0:52", "/tmp", kind="tmpfs", source="tmpfs")
    told = kernel.storage()
    assert told.behind("/mnt/nfs share/a") == frozenset()
    assert told.behind("/tmp/a") == frozenset()
    assert told.behind("/tmpfile") == {"sda"}
    assert "/proc" not in {mount.point for mount in told.mounts}
    assert Storage.model_validate_json(told.model_dump_json()) == told


def test_devices_that_go_round_in_a_circle_or_are_gone_end(kernel: Kernel) -> None:
    kernel.device("253:0", "virtual/dm-0")
    kernel.device("253:1", "virtual/dm-1", slaves=("dm-0",))
    (kernel.sys / "devices/virtual/dm-0/slaves/dm-1").symlink_to(kernel.sys / "devices/virtual/dm-1")
    kernel.mount("253:1", "/a")
    kernel.mount("8:99", "/b")
    told = kernel.storage()
    assert told.behind("/a/x") == frozenset()
    assert told.behind("/b/x") == frozenset()


def test_this_machines_root_lies_on_the_disks_that_lsblk_names() -> None:
    told = spindles.storage(Path("/"))
    assert told is not None
    source = subprocess.check_output(["findmnt", "-n", "-v", "-o", "SOURCE", "/"], text=True).strip()
    if not source.startswith("/dev/"):  # a container's overlay: no disk can be named, and none is
        assert told.behind("/") == frozenset()
        return
    lines = json.loads(
        subprocess.check_output(["lsblk", "--json", "-s", "-l", "-o", "NAME,TYPE,ROTA", source], text=True)
    )
    disks = {one["name"]: bool(one["rota"]) for one in lines["blockdevices"] if one["type"] == "disk"}
    assert told.behind("/") == disks.keys()
    assert {disk.name: disk.rotational for disk in told.disks}.items() >= disks.items()
