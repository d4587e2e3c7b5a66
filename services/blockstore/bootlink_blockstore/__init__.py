"""The block store: an iSCSI target over cached images and private write-backs. See `portal`, `session` and `disk`."""

from bootlink_blockstore.service import SERVICE

__all__ = ["SERVICE"]
