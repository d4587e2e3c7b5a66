"""The checksum of a file."""

from __future__ import annotations

from bootlink_disks.open import opened
from bootlink_registry.imaging.requests import Hash
from bootlink_registry.imaging.results import Hashed
from bootlink_registry.imaging.work import Stages, Tell, digest


def hash_file(request: Hash, tell: Tell) -> Hashed:
    """The SHA-256 of a file that does not change meanwhile."""
    with opened(request.path) as (_, state):
        stages = Stages(tell, state.st_size)
    sha256, state = digest(request.path, stages)
    return Hashed(sha256=sha256, size=state.st_size, mtime_ns=state.st_mtime_ns)
