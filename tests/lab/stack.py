"""A stack of layers read as one disk, in the plainest way: what the block store's own way is compared with."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bootlink_disks import Kind, OpenLayer


def read_stack(layers: Sequence[OpenLayer], offset: int, length: int) -> bytes:
    """The bytes [offset, offset + length) of the disk whose top layer is the first."""
    if not layers:
        return bytes(length)
    top = layers[0]
    inside = max(0, min(length, top.size - offset))
    found = b""
    for kind, file_offset, size in top.locate(offset, inside) if inside else ():
        if kind is Kind.ABSENT:
            found += read_stack(layers[1:], offset + len(found), size)
        else:
            found += os.pread(top.fd, size, file_offset) if kind is Kind.DATA else bytes(size)
    return found + bytes(length - inside)
