"""Whole disks written in any of the formats; layers flattened, and compared."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Final

from bootlink_disks import Disk, ImageInfo, create_raw, create_vhd_dynamic, create_vhdx
from bootlink_disks.chain import NIL
from bootlink_disks.layer import SECTOR
from bootlink_disks.vhd import EPOCH
from bootlink_disks.writing import drafted, scratch
from bootlink_registry.imaging import qemu
from bootlink_registry.imaging.requests import Compare, Flatten, TargetFormat
from bootlink_registry.imaging.results import Compared, Format, Written
from bootlink_registry.imaging.work import Stages, Tell, opened_layers, written

STRIDE: Final = 2 << 20  # bytes of both disks compared at once

FORMATS: Final[dict[TargetFormat, Format]] = {"vhd": "vhd-dynamic", "vhdx": "vhdx", "raw": "raw", "qcow2": "qcow2"}
"""What a target's format is called as a layer's; a qcow2 is for others, and never a layer."""


def flatten(request: Flatten, tell: Tell) -> Written:
    """One whole disk of layers."""
    with opened_layers(request.layers) as disk:
        stages = Stages(tell, disk.size, 1 + stages_of(request.format))
        write_disk(request.target, request.format, disk, stages)
        stages.next()
        return written(request.target, FORMATS[request.format], disk.size, stages)


def stages_of(format_: TargetFormat) -> int:
    """In how many stages `write_disk` writes that format."""
    return 2 if format_ == "qcow2" else 1


def write_disk(
    target: Path,
    format_: TargetFormat,
    disk: Disk,
    stages: Stages,
    unique_id: uuid.UUID | None = None,
    timestamp: int | None = None,
) -> None:
    """Write `disk` to `target`. `unique_id` and `timestamp` are those of the disk that it takes the place of."""
    if format_ == "raw":
        create_raw(target, disk, progress=stages)
    elif format_ == "vhd":
        create_vhd_dynamic(target, disk, unique_id=unique_id, timestamp=timestamp, progress=stages)
    elif format_ == "vhdx":
        create_vhdx(target, disk, unique_id=unique_id, progress=stages)
    else:
        qemu.require_tool()  # before the draft is written
        with scratch(target) as raw:
            create_raw(raw, disk, progress=stages)
            stages.next()
            with raw.open("rb") as source, drafted(target) as draft:
                qemu.convert(source.fileno(), "raw", draft, "qcow2", size=disk.size, tell=stages)


def identity_of(info: ImageInfo) -> tuple[uuid.UUID, int]:
    """By what its children know a disk, for another that takes its place: its UUID (nil where it has none), and when it
    last changed, in seconds since 2000, by its footer or else by the file."""
    return info.uuid or NIL, info.timestamp or max(0, info.mtime_ns // 10**9 - EPOCH)


def compare(request: Compare, tell: Tell) -> Compared:
    """Whether two stacks show the same bytes. Of different sizes they differ where the smaller one ends."""
    with opened_layers(request.a) as a, opened_layers(request.b) as b:
        common = min(a.size, b.size)
        stages = Stages(tell, common)
        for offset in range(0, common, STRIDE):
            length = min(STRIDE, common - offset)
            if not (a.is_empty(offset, length) and b.is_empty(offset, length)):
                one, other = a.read(offset, length), b.read(offset, length)
                if one != other:
                    return Compared(same=False, first_difference=offset + _first(one, other))
            stages(offset + length)
        if a.size != b.size:
            return Compared(same=False, first_difference=common)
        return Compared(same=True)


def _first(one: bytes, other: bytes) -> int:
    """The first sector in which they differ, as an offset."""
    return next(at for at in range(0, len(one), SECTOR) if one[at : at + SECTOR] != other[at : at + SECTOR])
