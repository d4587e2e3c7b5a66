"""What a command says when it cannot do what it was asked: one line, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class CommandError(Exception):
    """A command failed. Shown as `error: problem`, its `lines`, and `  what to do: remedy`; exit status 1."""

    def __init__(self, problem: str, remedy: str, *, lines: Sequence[str] = (), status: int | None = None) -> None:
        """`status`: of the HTTP answer, where the API said so."""
        super().__init__(f"{problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy
        self.lines = tuple(lines)
        self.status = status
