"""Checksum files: what `NAME.sha256` beside NAME says, in the ways that people write it.

3f2a...  name        sha256sum; a `*` before the name for binary; several lines, one per file
SHA256 (name) = 3f2a...       the same, as BSD writes it
3f2a...              the number alone
"""

from __future__ import annotations

import re
from typing import Final

LIMIT: Final = 256 << 10  # bytes of a checksum file; one that lists a mirror's whole folder is smaller

_LINE: Final = re.compile(r"\\?([0-9a-fA-F]{64})(?:\s+\*?(.+))?")
_BSD: Final = re.compile(r"SHA256\s*\((.+)\)\s*=\s*([0-9a-fA-F]{64})")


def find(text: str, name: str) -> str | None:
    """The SHA-256 that `text` gives for the file `name`, in lower case; None if it gives none."""
    named: dict[str, str] = {}
    alone: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if found := _BSD.fullmatch(line):
            named[_base(found[1])] = found[2].lower()
        elif found := _LINE.fullmatch(line):
            if found[2]:
                named[_base(found[2])] = found[1].lower()
            else:
                alone.append(found[1].lower())
    if name in named:
        return named[name]
    # One checksum for a file of another name: it was renamed after it was summed, as often happens.
    only = alone + list(named.values())
    return only[0] if len(only) == 1 else None


def _base(name: str) -> str:
    return name.strip().replace("\\", "/").rsplit("/", 1)[-1]
