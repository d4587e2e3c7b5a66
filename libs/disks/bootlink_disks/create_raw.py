"""Writing a raw image of a disk: the disk's bytes, and holes where they are zeros."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bootlink_disks.layer import Disk, ImageInfo
from bootlink_disks.open import open_layer
from bootlink_disks.writing import appearing, stored_blocks, write_sparse

_BLOCK = 2 << 20  # bytes; read and looked at at once


def create_raw(
    path: str | os.PathLike[str], source: Disk, *, progress: Callable[[int], None] | None = None
) -> ImageInfo:
    """Make `path` a raw image with the bytes of `source`.

    `progress` is called now and then with the bytes of the disk done so far. Blocks: call it in a thread.
    DiskError if the source cannot be read, `path` exists, or it cannot be written.
    """
    path = Path(path)
    with appearing(path) as fd:
        os.ftruncate(fd, source.size)
        for block, data in stored_blocks(source, _BLOCK, progress or (lambda _done: None)):
            write_sparse(fd, block * _BLOCK, data)
    with open_layer(path, "raw") as layer:  # not probed: that would ask for a boot signature
        return layer.info
