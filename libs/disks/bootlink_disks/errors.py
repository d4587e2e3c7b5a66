"""The one error of this package: what is wrong with a file, and what its owner can do about it."""

from __future__ import annotations


class DiskError(Exception):
    """A file cannot serve as a layer. `problem` and `remedy` are one line each, fit for an administrator's eyes."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy

    def of(self, name: str) -> DiskError:
        """The same error with the file's name in front: parsers see bytes and do not know it."""
        return DiskError(f"{name}: {self.problem}", self.remedy)


def printable(text: str) -> str:
    """A string from a file, without what could act on a terminal or break a line."""
    return "".join(letter for letter in text if letter.isprintable())
