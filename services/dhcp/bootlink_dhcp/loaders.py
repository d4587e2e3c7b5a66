"""Which loaders are at hand: the files in the loaders' folders, looked at now and then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from bootlink_dhcp.bootfiles import ARCHITECTURES

LOOK_SECONDS: Final = 10.0  # between looks, so that a loader put there by hand needs no restart


class LoaderShelf:
    """The names of our loaders that lie in one of these folders, and are not empty."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)
        self._wanted = frozenset(name for row in ARCHITECTURES.values() for name in row.loaders)
        self._found: frozenset[str] = frozenset()

    def look(self) -> bool:
        """Look into the folders again. True if something changed. A folder that is not there holds nothing."""
        before = self._found
        self._found = frozenset(name for name in self._wanted if any(_holds(f / name) for f in self._folders))
        return self._found != before

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._found))

    def __len__(self) -> int:
        return len(self._found)


def _holds(path: Path) -> bool:
    try:
        # The tftp service follows no link, so a linked loader would be promised in vain (Debian's ipxe.efi is one).
        return path.is_file() and not path.is_symlink() and path.stat().st_size > 0
    except OSError:
        return False
