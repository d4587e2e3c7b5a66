"""Chains: whether the layers of a stack belong together, by what their files say.

How it works. What stands on what is the registry's knowledge. A differencing file also says what its parent is, and the
two must agree: a child on another parent, or on one that was written to since, is a disk of two halves that never met.

    VHD    the parent's UUID (of its footer), and when the parent last changed
    VHDX   the parent's data write GUID, which changes with whatever is written to it

The time in a VHD is taken for right if it is that of the parent's footer or that of the parent's file, as both are
written in the field; a time of 0 says nothing. A parent without an identity (a raw image) is named by the nil UUID,
which only our own writer does.

Deliberately not here: looking for a parent. Names and paths in files are shown, and never followed.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from bootlink_disks.errors import DiskError
from bootlink_disks.layer import ImageInfo
from bootlink_disks.vhd import EPOCH

NIL: Final = uuid.UUID(int=0)
TIME_SLACK: Final = 2
"""Seconds. File systems keep times with that precision or better, and writers round either way."""

_NAME_SHOWN: Final = 120  # characters; enough for a path in an error's one line


def require_chain(infos: Sequence[ImageInfo]) -> None:
    """DiskError unless these files, top first, are a disk: each differencing one on its parent, then a whole one."""
    for child, parent in pairwise(infos):
        require_parent(child, parent)
    if infos and infos[-1].parent is not None:
        raise DiskError(
            f"{infos[-1].path}: it is a differencing disk on {describe_parent(infos[-1])}, and nothing is below it",
            "add its parent first, or merge both into one file",
        )


def require_parent(child: ImageInfo, parent: ImageInfo) -> None:
    """DiskError unless `parent` is the file that `child` was made from, unchanged since."""
    stated = child.parent
    if stated is None:
        raise DiskError(
            f"{child.path}: it is a whole disk, and stands on no other",
            f"use it alone, without {parent.path}",
        )
    if (parent.uuid or NIL) not in stated.ids:
        raise DiskError(
            f"{child.path}: it was made on {describe_parent(child)}, and {parent.path} is another disk",
            "give it the parent that it was made on",
        )
    times = (parent.timestamp, parent.mtime_ns // 10**9 - EPOCH)
    if stated.timestamp and not any(abs(stated.timestamp - time) <= TIME_SLACK for time in times):
        raise DiskError(
            f"{child.path}: its parent {parent.path} was changed after the child was made, by their time stamps",
            "restore the parent as it was; if it is the same, link them anew (Hyper-V: Set-VHD -IgnoreIdMismatch)",
        )


def describe_parent(info: ImageInfo) -> str:
    """The parent that a differencing file names, fit for an error's one line."""
    assert info.parent is not None
    name = f"“{info.parent.name[-_NAME_SHOWN:]}”" if info.parent.name else "a parent"
    return f"{name} ({info.parent.ids[0]})"
