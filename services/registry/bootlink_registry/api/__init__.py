"""The registry's HTTP API, version 1."""

from bootlink_registry.api.app import api

__all__ = ["api"]
