"""The kinds of jobs there are: the one table. A kind's function lives in the module of its subject."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bootlink_registry import commits
from bootlink_registry.jobs.work import JobKind

_ALL: Final[tuple[JobKind, ...]] = (commits.COMMIT,)

KINDS: Final[Mapping[str, JobKind]] = {kind.name: kind for kind in _ALL}
