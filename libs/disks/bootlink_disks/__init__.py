"""Disk formats: raw, VHD and VHDX, whole and differencing. Probe, check, open for reading, create. See `layer`."""

from bootlink_disks.chain import describe_parent, require_chain, require_parent
from bootlink_disks.create import create_vhd_dynamic, write_vhd_dynamic
from bootlink_disks.create_differencing import bitmaps_fit, create_vhd_differencing, write_vhd_differencing
from bootlink_disks.create_raw import create_raw
from bootlink_disks.create_vhdx import create_vhdx
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import Disk, Format, ImageInfo, Kind, Map, OpenLayer, ParentReference, Run
from bootlink_disks.open import CheckReport, check, open_layer, probe
from bootlink_disks.stack import Extent, Stack

__all__ = [
    "CheckReport",
    "Disk",
    "DiskError",
    "Extent",
    "Format",
    "ImageInfo",
    "Kind",
    "Map",
    "OpenLayer",
    "ParentReference",
    "Run",
    "Stack",
    "bitmaps_fit",
    "check",
    "create_raw",
    "create_vhd_differencing",
    "create_vhd_dynamic",
    "create_vhdx",
    "describe_parent",
    "open_layer",
    "probe",
    "require_chain",
    "require_parent",
    "write_vhd_differencing",
    "write_vhd_dynamic",
]
