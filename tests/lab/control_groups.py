"""Control groups of a test's own, taken away when it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

END_SECONDS: Final = 20.0  # the kernel takes a moment to end what was killed in them


def remove(roots: Iterable[Path]) -> list[Path]:
    """Remove these groups and all inside them, once their processes have ended. Returns those that stay."""
    roots = list(roots)
    deadline = time.monotonic() + END_SECONDS
    while left := [group for root in roots for group in _inner_first(root)]:
        for group in left:
            with contextlib.suppress(OSError):  # a process in it has yet to end
                group.rmdir()
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return []


def _inner_first(root: Path) -> list[Path]:
    inside = [path for path in root.rglob("*") if path.is_dir()]
    return [*sorted(inside, reverse=True), *([root] if root.exists() else [])]
