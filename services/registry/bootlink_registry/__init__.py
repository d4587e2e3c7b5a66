"""The registry: it decides what each client boots, and holds the truth about images, links and clients."""

from bootlink_registry.service import SERVICE

__all__ = ["SERVICE"]
