"""What a rig gives back when nothing was violated."""

from __future__ import annotations

Figures = dict[str, int | float | str]  # what was counted or measured: value, in words that a reader understands


class Violation(AssertionError):
    """A promise was broken. Names it, and the seed and step that show it again."""
