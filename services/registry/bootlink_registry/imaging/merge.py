"""Merging: several layers become one that shows the same.

The new layer takes the place of the top one, also for the children of that: it has its identity, by which a child's
file knows its parent (the UUID and, in VHD, the time of its last change; `bootlink_disks.chain`).
"""

from __future__ import annotations

from typing import Final

from bootlink_disks import ImageInfo, Stack, create_vhd_differencing, require_parent
from bootlink_disks.vhd import MAX_SIZE
from bootlink_registry.imaging.disks import FORMATS, identity_of, write_disk
from bootlink_registry.imaging.requests import Merge, TargetFormat
from bootlink_registry.imaging.results import Written
from bootlink_registry.imaging.work import Stages, Tell, open_ref, opened_layers, written

LARGEST_VHD: Final = MAX_SIZE


def merge(request: Merge, tell: Tell) -> Written:
    """One layer over the request's parent, or a whole disk."""
    with opened_layers(request.layers, whole=request.parent is None) as disk:
        stages = Stages(tell, disk.size, 2)
        top = disk.layers[0].info
        if request.parent is None:
            format_: TargetFormat = "vhd" if disk.size <= LARGEST_VHD else "vhdx"
            write_disk(request.target, format_, disk, stages, *identity_of(top))
            stages.next()
            return written(request.target, FORMATS[format_], disk.size, stages)
        with open_ref(request.parent) as parent:
            _difference(request, disk, parent.info, stages)
        stages.next()
        return written(request.target, "vhd-differencing", disk.size, stages)


def _difference(request: Merge, disk: Stack, parent: ImageInfo, stages: Stages) -> None:
    unique_id, timestamp = identity_of(disk.layers[0].info)
    require_parent(disk.layers[-1].info, parent)
    create_vhd_differencing(
        request.target,
        parent,
        disk.changes(),
        size=disk.size,
        unique_id=unique_id,
        timestamp=timestamp,
        progress=stages,
    )
