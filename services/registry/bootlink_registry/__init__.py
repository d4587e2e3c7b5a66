"""The registry: it decides what each client boots, and holds the truth about images, links and clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bootlink_registry.service import SERVICE

__all__ = ["SERVICE"]


def __getattr__(name: str) -> Any:
    """SERVICE, imported when it is asked for: a process that works on image files (`imaging`) needs nothing of it."""
    if name != "SERVICE":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bootlink_registry.service import SERVICE

    return SERVICE
