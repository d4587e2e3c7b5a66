"""Whole disks made of layers: flattened, and compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bootlink_disks import Disk, create_raw, create_vhd_dynamic
from bootlink_registry.imaging.requests import Compare, Flatten, TargetFormat
from bootlink_registry.imaging.results import Compared, Format, Written
from bootlink_registry.imaging.work import Stages, Tell, opened, written

_STRIDE: Final = 2 << 20  # bytes of both disks compared at once
_SECTOR: Final = 512

FORMATS: Final[dict[TargetFormat, Format]] = {"vhd": "vhd-dynamic", "vhdx": "vhdx", "raw": "raw", "qcow2": "qcow2"}


def flatten(request: Flatten, tell: Tell) -> Written:
    """One whole disk of layers."""
    with opened(request.layers) as disk:
        stages = Stages(tell, disk.size, 2)
        write_disk(request, disk, stages)
        stages.next()
        return written(request.target, FORMATS[request.format], disk.size, stages)


def write_disk(request: Flatten, disk: Disk, tell: Callable[[int], None]) -> None:
    """Write `disk` to the request's target, in its format."""
    if request.format == "raw":
        create_raw(request.target, disk, progress=tell)
    elif request.format == "vhd":
        create_vhd_dynamic(request.target, disk, progress=tell)
    else:
        raise NotImplementedError(request.format)


def compare(request: Compare, tell: Tell) -> Compared:
    """Whether two stacks show the same bytes. Of different sizes they differ where the smaller one ends."""
    with opened(request.a) as a, opened(request.b) as b:
        common = min(a.size, b.size)
        stages = Stages(tell, common)
        for offset in range(0, common, _STRIDE):
            length = min(_STRIDE, common - offset)
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
    return next(at for at in range(0, len(one), _SECTOR) if one[at : at + _SECTOR] != other[at : at + _SECTOR])
