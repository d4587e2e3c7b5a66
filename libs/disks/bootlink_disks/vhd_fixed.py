"""Fixed VHD: the disk's bytes, then a footer. Nothing to map."""

from __future__ import annotations

from bootlink_disks import vhd
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import LinearMap, Pread, Structure


def parse(pread: Pread, file_size: int) -> Structure:
    """The structure of a fixed VHD of `file_size` bytes. DiskError if it is none."""
    if file_size < vhd.FOOTER_SIZE:
        raise DiskError(f"{file_size} bytes are too few for a VHD", "copy it again from where it came")
    footer = vhd.parse_footer(pread(file_size - vhd.FOOTER_SIZE, vhd.FOOTER_SIZE))
    if footer.type != vhd.FIXED:
        raise DiskError(f"the VHD's type is {footer.type}, not fixed ({vhd.FIXED})", "add the image anew")
    room = file_size - vhd.FOOTER_SIZE
    if footer.current_size > room:
        raise DiskError(
            f"the VHD is cut short: its disk has {footer.current_size} bytes, the file holds {room} of them",
            "copy it again from where it came",
        )
    return Structure(
        "vhd-fixed",
        LinearMap(footer.current_size),
        stored=footer.current_size,
        uuid=footer.uuid,
        timestamp=footer.timestamp,
        creator=footer.creator,
    )
