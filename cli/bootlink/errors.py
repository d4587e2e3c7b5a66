"""What a command says when it cannot do what it was asked: one line, and what to do."""

from __future__ import annotations


class CommandError(Exception):
    """A command failed. Shown as `error: problem` and `  what to do: remedy`; exit status 1."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy
