"""The kinds of jobs there are: the one table. A kind's function lives in the module of its subject."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bootlink_registry import commits, own_layers
from bootlink_registry.flattening import export_image
from bootlink_registry.hashing import hash_layer, verify
from bootlink_registry.imports import import_image
from bootlink_registry.jobs.work import JobKind
from bootlink_registry.merging import compact, merge

_ALL: Final[tuple[JobKind, ...]] = (
    commits.COMMIT,
    own_layers.SEAL,
    JobKind("image.hash", hash_layer, background=True),
    JobKind("image.import", import_image),
    JobKind("image.export", export_image),
    JobKind("image.verify", verify),
    JobKind("image.merge", merge),
    JobKind("image.compact", compact),
)

KINDS: Final[Mapping[str, JobKind]] = {kind.name: kind for kind in _ALL}
