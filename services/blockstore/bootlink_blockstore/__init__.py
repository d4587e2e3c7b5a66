"""The block store: an iSCSI target over cached images and private write-backs. See `portal`, `session` and `disk`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bootlink_blockstore.service import SERVICE

__all__ = ["SERVICE"]


def __getattr__(name: str) -> object:
    """SERVICE, when it is asked for: a process that exports (`exporting`) starts in a third of the time without."""
    if name != "SERVICE":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bootlink_blockstore.service import SERVICE

    return SERVICE
