"""Bootlink in containers, on a real Docker engine of its own: `make compose-test`, and what its reduced form shares."""
