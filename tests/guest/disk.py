"""Builds the demo PC's disk: a small Linux on a dynamic VHD, without root tricks, loop devices or mounts.

From the disk's first sector on:

    0            MBR: GRUB's boot code and two partition entries
    1 ...        GRUB's core image (its own first sector loads the rest), with `grub.cfg` built in: BIOS starts here
    1 MiB ...    partition 1: ext4 with the kernel and initramfs in /boot and a BusyBox system
    last 4 MiB   partition 2: the EFI system partition, FAT with /EFI/BOOT/BOOTX64.EFI: UEFI starts here. It is GRUB
                 once more, with `grub-efi.cfg` built in

These two files are all that GRUB runs: no menu, no file on the disk. Their lines are explained here, for the parser in
the core image knows no comments:

- `--port`: SeaBIOS, which prints on that port itself when the PC has no screen, hides it from the BIOS's list.
- `linux16`, not `linux`: the latter moves the whole area that the unpacked kernel will take (50 MiB), byte by byte,
  which costs three to seven seconds under emulation; the 16-bit protocol moves the packed file alone. EFI has
  `linuxefi`, which hands the packed file over to the kernel's own EFI stub.
- No `terminal_output` for EFI: the firmware's console is on the serial line already.
- The kernel's options are for speed, which software emulation lacks: no mitigations, no address randomisation, no
  crypto self-tests, emulated timers believed, no EDD probing (which reads the disk through the firmware). `panic=5`:
  nobody is there to press a key.

The firmware reads GRUB, the kernel and the initramfs through iPXE: one command at a time, 8 KiB per PDU. So what is
read there is kept small. `initramfs/` and `root/` hold the guest's own files, as they appear there; BusyBox, the iSCSI
initiator (with the libraries that `ldd` names) and the kernel's modules come from Debian packages.

A finished disk is kept in the cache under a hash of all its inputs and never written again: a second build of the same
disk only looks it up. The file appears under its name when it is whole, not before.
"""

import fcntl
import hashlib
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from guest import stage
from guest.kernel import Kernel, unpack_kernel
from guest.toolbox import BuildError, run

HERE = Path(__file__).parent
GRUB = Path("/usr/lib/grub/i386-pc")
GRUB_PREFIX = "(hd0,msdos1)/boot/grub"  # what is booted from is GRUB's first disk, with BIOS and with EFI
SECTOR = 512
PARTITION_START = 1 << 20  # the gap before it holds GRUB's core image (140 KiB); 1 MiB is every partitioner's choice
DISK_SIZE = 512 << 20  # virtual; the VHD holds only what is used. Leaves a guest 450 MiB to write to
EFI_SIZE = 4 << 20  # GRUB is 200 KiB
EFI_START = DISK_SIZE - EFI_SIZE
LINUX_PARTITION = 0x83
EFI_PARTITION = 0xEF  # UEFI 2.10 section 5.2.2: a partition that the firmware looks for a loader in, on a disk with MBR
BOOT_CODE_SIZE = 440  # bytes of the MBR before the disk signature
MAX_CHS = b"\xfe\xff\xff"  # "beyond CHS", as every partitioner writes it: readers take the LBA fields
DISK_SIGNATURE = 0xB0071111
EFI_VOLUME_ID = "B0071112"
FILE_SYSTEM_UUID = "b0071111-0000-4000-8000-000000000001"
FILE_SYSTEM_TIME = "1767225600"  # 2026-01-01, so that one set of inputs gives one file system

# Files of these packages end up on the disk or shape it: another version is another disk.
PACKAGES = (
    "busybox-static", "open-iscsi", "libc6", "libssl3", "grub-pc-bin", "grub-efi-amd64-bin", "e2fsprogs", "dosfstools",
    "mtools", "qemu-utils",
)  # fmt: skip
GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "linux16", "serial", "terminal", "echo", "boot", "reboot")
GRUB_EFI_MODULES = ("part_msdos", "ext2", "linuxefi", "echo", "boot", "reboot")

# ext4 that GRUB 2.06 reads: it knows no metadata_csum_seed and no orphan_file.
EXT4_FEATURES = "^metadata_csum_seed,^orphan_file"
# The journal takes the guest's flushes and FUA writes to the block store, as a real PC's does. 4 MiB is ext4's least.
EXT4_OPTIONS = ("-b", "4096", "-m", "0", "-N", "4096", "-J", "size=4")


def build_disk(cache: Path, say: Callable[[str], None] = print) -> Path:
    """The demo PC's disk, a dynamic VHD below `cache`; built when it is not there yet (20 s), otherwise looked up.

    Raises BuildError that says what is missing. `say` is told what is being done, in words for a person.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "disk.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two that build at once make two disks, and one replaces the other in use
        return _built(cache, say)


def _built(cache: Path, say: Callable[[str], None]) -> Path:
    kernel = unpack_kernel(cache / "kernel", say)
    disk = cache / f"demo-pc-{_key(kernel)}.vhd"
    if disk.exists():
        return disk
    say("building the demo PC's disk")
    with tempfile.TemporaryDirectory(dir=cache, prefix="disk-") as name:
        work = Path(name)
        raw = work / "disk.raw"
        root = _stage_root(work / "root")
        shutil.copyfile(kernel.image, root / "boot" / "vmlinuz")
        (root / "boot" / "initramfs").write_bytes(stage.initramfs(work / "initramfs", kernel, HERE / "initramfs"))
        _write_boot_sectors(raw, work)
        _write_file_system(raw, root)
        _write_efi_partition(raw, work)
        vhd = work / "disk.vhd"
        # force_size: VHD's CHS geometry would otherwise round the size that we chose.
        run("qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "subformat=dynamic,force_size=on", raw, vhd)
        vhd.replace(disk)
    say(f"built {disk.name} ({disk.stat().st_size >> 20} MiB)")
    return disk


@dataclass(frozen=True, slots=True)
class Partition:
    """One entry of a master boot record: its type, and its place in sectors. BIOS boots from the active one."""

    kind: int
    first: int
    count: int
    active: bool = False

    def entry(self) -> bytes:
        status = 0x80 if self.active else 0
        return struct.pack("<B3sB3sII", status, MAX_CHS, self.kind, MAX_CHS, self.first, self.count)


def boot_record(boot_code: bytes, *partitions: Partition) -> bytes:
    """A master boot record, 512 bytes: GRUB's `boot_code` and up to four partitions.

    GRUB's code needs no patching: it loads sector 1, where we put its core image.
    """
    table = b"".join(partition.entry() for partition in partitions)
    return (
        boot_code[:BOOT_CODE_SIZE].ljust(BOOT_CODE_SIZE, b"\0")
        + struct.pack("<IH", DISK_SIGNATURE, 0)
        + table.ljust(64, b"\0")
        + b"\x55\xaa"
    )


def _key(kernel: Kernel) -> str:
    """A short hash of everything that decides what the disk holds."""
    digest = hashlib.sha256(kernel.release.encode())
    # Fails for a package that is missing, and names it.
    installed = run("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n", *PACKAGES)
    for line in installed.splitlines():
        package, _, state = line.partition(" ")
        if not state.endswith(" installed"):
            raise BuildError(f"the demo PC's disk needs a Debian package: apt-get install {package}")
    digest.update(installed.encode())
    own = [Path(__file__), Path(stage.__file__), HERE / "kernel.py", HERE / "grub.cfg", HERE / "grub-efi.cfg"]
    for path in own + sorted(_files(HERE / "initramfs")) + sorted(_files(HERE / "root")):
        digest.update(f"\0{path.relative_to(HERE)}\0{path.stat().st_mode & 0o111}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _files(tree: Path) -> Iterable[Path]:
    return (path for path in tree.rglob("*") if path.is_file())


def _stage_root(root: Path) -> Path:
    """The real root: BusyBox with all its applets, and iscsid, which repairs broken connections to the disk."""
    shutil.copytree(HERE / "root", root)
    stage.make_directories(root, "boot", "root", "mnt", "var", "etc/iscsi")
    stage.install_busybox(root)
    stage.install_program(root, "iscsid")
    (root / "var" / "run").symlink_to("/run")
    return root


def _write_boot_sectors(raw: Path, work: Path) -> None:
    core = work / "core.img"
    run("grub-mkimage", "-O", "i386-pc", "-p", GRUB_PREFIX, "-c", HERE / "grub.cfg", "-o", core, *GRUB_MODULES)
    if SECTOR + core.stat().st_size > PARTITION_START:
        raise BuildError("GRUB's core image does not fit before the partition")
    linux, efi, end = PARTITION_START // SECTOR, EFI_START // SECTOR, DISK_SIZE // SECTOR
    with raw.open("wb") as disk:
        disk.write(
            boot_record(
                (GRUB / "boot.img").read_bytes(),
                Partition(LINUX_PARTITION, linux, efi - linux, active=True),
                Partition(EFI_PARTITION, efi, end - efi),
            )
        )
        disk.write(core.read_bytes())
        disk.truncate(DISK_SIZE)


def _write_file_system(raw: Path, root: Path) -> None:
    # lazy_itable_init=0: otherwise the guest's kernel would write the inode tables itself, in the background.
    extended = f"offset={PARTITION_START},hash_seed={FILE_SYSTEM_UUID},lazy_itable_init=0,nodiscard"
    size = f"{(EFI_START - PARTITION_START) >> 10}k"
    run(
        "mke2fs", "-q", "-F", "-t", "ext4", "-L", "bootlink-demo", "-U", FILE_SYSTEM_UUID, "-O", EXT4_FEATURES,
        *EXT4_OPTIONS, "-E", extended, "-d", root, raw, size,
        env={"E2FSPROGS_FAKE_TIME": FILE_SYSTEM_TIME},
    )  # fmt: skip


def _write_efi_partition(raw: Path, work: Path) -> None:
    loader, fat = work / "BOOTX64.EFI", work / "efi.fat"
    run(
        "grub-mkimage", "-O", "x86_64-efi", "-p", GRUB_PREFIX, "-c", HERE / "grub-efi.cfg", "-o", loader,
        *GRUB_EFI_MODULES,
    )  # fmt: skip
    with fat.open("wb") as volume:
        volume.truncate(EFI_SIZE)
    run("mkfs.fat", "--invariant", "-i", EFI_VOLUME_ID, fat)
    when = {"SOURCE_DATE_EPOCH": FILE_SYSTEM_TIME}
    run("mmd", "-i", fat, "::/EFI", "::/EFI/BOOT", env=when)
    run("mcopy", "-i", fat, loader, "::/EFI/BOOT/", env=when)
    with raw.open("r+b") as disk:
        disk.seek(EFI_START)
        disk.write(fat.read_bytes())
