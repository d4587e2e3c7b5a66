"""Disk formats: raw and VHD (fixed, dynamic). Probe, check, open for reading, create. See `layer` for how they work."""

from bootlink_disks.create import create_vhd_dynamic
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import Format, ImageInfo, Kind, Map, OpenLayer, Run
from bootlink_disks.open import CheckReport, check, open_layer, probe

__all__ = [
    "CheckReport",
    "DiskError",
    "Format",
    "ImageInfo",
    "Kind",
    "Map",
    "OpenLayer",
    "Run",
    "check",
    "create_vhd_dynamic",
    "open_layer",
    "probe",
]
