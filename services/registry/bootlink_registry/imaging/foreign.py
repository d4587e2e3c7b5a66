"""Images of other programs: qcow2, VMDK and VDI. What must be true of one before qemu-img is let at it.

Such a file may name others: a backing file, an external data file, extents, a parent. Whoever made the file would so
choose which of the server's files are copied into an image that PCs read. None is followed: a file that names another
is refused here, by its own header, before qemu-img opens it (which would already open some of them), and once more by
what qemu-img says of it. Encrypted ones are refused too, as there is nobody to ask for the key.

Sources: QEMU's docs/interop/qcow2.txt (version 3, header); VMware's Virtual Disk Format 5.0 (hosted sparse extents,
the descriptor); VirtualBox's VDI header.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, Literal

from bootlink_disks.layer import SECTOR, Pread
from bootlink_registry.problems import Problem, invalid

ForeignFormat = Literal["qcow2", "vmdk", "vdi"]

QEMU_NAMES: Final[dict[ForeignFormat, str]] = {"qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi"}
MAX_SIZE: Final = 64 << 40
"""Bytes of a disk: what VHDX ends at. A header that says more lies."""

MAX_DESCRIPTOR: Final = 64 << 10
"""Bytes of a VMDK's descriptor that are looked at. VMware's have under 2 KiB; QEMU reads 20 sectors."""

_HEAD: Final = 512
_QCOW2: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_QCOW2_V3: Final = struct.Struct(">QQQII")  # from byte 72 on: incompatible, compatible, autoclear, order, length
_EXTERNAL_DATA: Final = 1 << 2
_INCOMPATIBLE: Final = 0b11111  # dirty, corrupt, external data, compression type, extended L2 entries
_CORRUPT: Final = 1 << 1
_VMDK: Final = struct.Struct("<4sIIQQQQ")  # magic, version, flags, capacity, grain, descriptor's place and length
_VDI: Final = struct.Struct("<IIII")  # from byte 0x40 on: signature, version, header's length, image type
_VDI_DATA: Final = struct.Struct("<I20xQIIII")  # from 0x158 on: data's place, disk, block, extra, blocks, those in it
_VDI_WHOLE: Final = (1, 2)  # dynamic, static; 3 undo, 4 differencing

_ALONE: Final = "make one file of it first: qemu-img convert -O qcow2 FILE NEW.qcow2 on the machine that has both"


def recognise(pread: Pread) -> ForeignFormat | None:
    """Which of them a file is, by its first bytes."""
    head = pread(0, _HEAD)
    if head.startswith(b"QFI\xfb"):
        return "qcow2"
    if head.startswith((b"KDMV", b"COWD", b"# Disk DescriptorFile")):
        return "vmdk"
    return "vdi" if head[0x40:0x44] == b"\x7f\x10\xda\xbe" else None


def require_alone(pread: Pread, format_: ForeignFormat, file_size: int) -> None:
    """Problem if the file names another one, is encrypted, is cut short, or is none of this format.

    Of what may be cut short only that is found which `qemu-img check` does not find.
    """
    LOOKS[format_](pread, file_size)


def require_sound(said: dict[str, Any], name: str) -> int:
    """The disk's size in bytes, from what `qemu-img info` says. Problem if that names another file than `name`."""
    size = said.get("virtual-size")
    if not isinstance(size, int) or not 0 < size <= MAX_SIZE or size % SECTOR:
        raise invalid(f"it says that its disk has {size} bytes, which is no disk's size", "get it anew")
    specific = said.get("format-specific", {}).get("data", {})
    named = [said.get(key) for key in ("backing-filename", "full-backing-filename", "encrypted")]
    named += [specific.get("data-file"), specific.get("encrypt")]
    named += [extent.get("filename") for extent in specific.get("extents", ()) if extent.get("filename") != name]
    if any(named):
        raise invalid("it names another file, or is encrypted", _ALONE)
    return size


def _qcow2(pread: Pread, _file_size: int) -> None:
    head = pread(0, 112)
    if len(head) < 72 or not head.startswith(b"QFI\xfb"):
        raise _no("qcow2 image")
    version, backing, _, _, size, crypt = _QCOW2.unpack_from(head)[1:7]
    if version not in (2, 3):
        raise invalid(f"qcow2 version {version} is unknown", "convert it with the qemu-img that made it")
    if backing:
        raise invalid("it is a qcow2 image on a backing file, which is not followed", _ALONE)
    if crypt:
        raise invalid("it is encrypted", "decrypt it first")
    if size > MAX_SIZE:
        raise invalid(f"it says that its disk has {size} bytes, which no image here has", "use a smaller disk")
    if version == 3 and len(head) >= 104:
        features = _QCOW2_V3.unpack_from(head, 72)[0]
        if features & _EXTERNAL_DATA:
            raise invalid("its data is in another file, which is not followed", _ALONE)
        if features & _CORRUPT:
            raise invalid("it is marked as corrupt", "repair it first: qemu-img check -r all FILE")
        if features & ~_INCOMPATIBLE:
            raise invalid("it has features that are unknown here", "convert it with the qemu-img that made it")


def _vmdk(pread: Pread, _file_size: int) -> None:
    head = pread(0, _HEAD)
    if head.startswith(b"# Disk DescriptorFile"):
        raise invalid(
            "it is a VMDK's descriptor, and the disk is in another file, which is not followed",
            "import the file with the disk itself: NAME-flat.vmdk is a raw disk; of other kinds make one file first "
            "(vmkfstools -i, or qemu-img convert -O qcow2)",
        )
    if not head.startswith(b"KDMV"):
        raise invalid(
            "it is a VMDK of an old kind, of ESX snapshots" if head.startswith(b"COWD") else "it is no VMDK image",
            "make one file of it with its own tools: vmkfstools -i FILE NEW.vmdk",
        )
    if len(head) < _HEAD:
        raise _no("VMDK image")
    _, _, _, capacity, _, at, sectors = _VMDK.unpack_from(head)
    if not capacity:  # then the descriptor inside names other files as its extents
        raise invalid("it is a VMDK whose data is in other files, which are not followed", _ALONE)
    if capacity > MAX_SIZE // SECTOR:
        raise invalid(f"it says that its disk has {capacity} sectors, which no image here has", "use a smaller disk")
    descriptor = pread(at * SECTOR, min(sectors * SECTOR, MAX_DESCRIPTOR)) if 0 < at < 1 << 32 else b""
    said = _descriptor(descriptor)
    if said.get("parentcid", "ffffffff") != "ffffffff" or "parentfilenamehint" in said:
        raise invalid("it is a VMDK snapshot on a parent, which is not followed", _ALONE)


def _descriptor(data: bytes) -> dict[str, str]:
    """The `key = value` lines of a VMDK's descriptor, keys in lower case."""
    lines = data.split(b"\0", 1)[0].decode("latin-1").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key.strip().lower(): value.strip().strip('"').lower() for key, _, value in pairs}


def _vdi(pread: Pread, file_size: int) -> None:
    head = pread(0, _HEAD)
    if len(head) < _HEAD:
        raise _no("VDI image")
    signature, _, _, kind = _VDI.unpack_from(head, 0x40)
    if signature != 0xBEDA107F:
        raise _no("VDI image")
    if kind not in _VDI_WHOLE:
        raise invalid("it is a VDI snapshot on a parent, which is not followed", "clone it: VBoxManage clonemedium")
    data, _, block, extra, _, stored = _VDI_DATA.unpack_from(head, 0x158)
    if data + stored * (block + extra) > file_size:
        raise invalid("it is cut short: its blocks reach past the file's end", "copy it again from where it came")


def _no(what: str) -> Problem:
    return invalid(f"it is no {what}", "leave out the format, so that it is told by the file")


LOOKS: Final[dict[ForeignFormat, Callable[[Pread, int], None]]] = {"qcow2": _qcow2, "vmdk": _vmdk, "vdi": _vdi}
