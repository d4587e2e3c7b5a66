"""Which loaders are at hand: the files in the loaders' folders, looked at now and then.

Folders are searched as the tftp service does it: the first that has a regular file of a name decides about it, and
links are not followed. What a file is, is read from its first bytes (`loader_image`), once for each size and time of
the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bootlink_dhcp.bootfiles import ARCHITECTURES, LOADER_NAME
from bootlink_dhcp.loader_image import HEAD_SIZE, Image, LoaderUnfit, examine
from bootlink_events import LoaderRule

LOOK_SECONDS: Final = 10.0  # between looks, so that a loader put there by hand needs no restart
FILES_MAX: Final = 1_024  # files of a folder that are looked at; Debian's has forty with those below it

SECOND_STAGES: Final[Mapping[str, str]] = {
    "snponly-shimx64.efi": "snponly.efi",
    "ipxe-shimx64.efi": "ipxe.efi",
    "shimx64.efi": "grubx64.efi",
}
"""What a shim loads next, from the folder that it came from: it makes the name of its own, or has it built in."""
_IMAGES: Final = {row.name: row.image for row in ARCHITECTURES.values()}
DEFAULT_LOADERS: Final = frozenset(
    (name, row.image) for row in ARCHITECTURES.values() for name in row.loaders if row.image is not None
)


@dataclass(frozen=True, slots=True)
class LoaderFile:
    """One file of the folders, as it was when it was last looked at."""

    path: Path
    stamp: tuple[int, int, int]  # inode, size, modification time
    image: Image | None  # None: it starts no PC
    reason: str = ""  # why not


class LoaderShelf:
    """The files that lie in one of these folders, or in a folder directly below."""

    def __init__(self, folders: Iterable[Path], rules: Iterable[LoaderRule] = ()) -> None:
        """`rules` ask for other names beside the usual ones."""
        self._folders = tuple(folders)
        self._asked_for = DEFAULT_LOADERS | {
            (name, image)
            for rule in rules
            for name in rule.loaders
            if (image := _IMAGES.get(rule.arch)) is not None  # without an architecture, what it must be is not known
        }
        self._files: dict[str, LoaderFile] = {}

    def look(self) -> frozenset[str]:
        """Look into the folders again. Blocks. Returns the names of files that came, went or changed."""
        before, found = self._files, {}
        for folder in self._folders:
            for name, path in _files(folder):
                if (
                    name not in found
                    and LOADER_NAME.fullmatch(name)
                    and (file := _looked_at(path, before.get(name))) is not None
                ):
                    found[name] = file
        for shim, second in SECOND_STAGES.items():
            file = found.get(shim)
            if file is not None and file.image is not None:
                beside = found.get(second)
                if beside is None or beside.path.parent != file.path.parent or beside.image is not file.image:
                    reason = f"loads {second} from its own folder, where no such {file.image.name.lower()} program is"
                    found[shim] = LoaderFile(file.path, file.stamp, None, reason)
        self._files = found
        return frozenset(name for name in before.keys() | found.keys() if before.get(name) != found.get(name))

    def fits(self, name: str, image: Image) -> bool:
        """Whether firmware that wants `image` can be sent this file."""
        file = self._files.get(name)
        return file is not None and file.image is image

    def problems(self) -> list[str]:
        """What is wrong with files that lie there under a usual loader's name, each with where it is and why. Of those
        that rules ask for, see `AskedLoaders`."""
        wrong = []
        for name, image in sorted(DEFAULT_LOADERS):
            file = self._files.get(name)
            if file is None or file.image is image:
                continue
            wrong.append(f"{file.path} {_unfit(file, image)}")
        return list(dict.fromkeys(wrong))

    def why_not(self, name: str, arch: str) -> str:
        """Why firmware of this architecture (empty: of any) cannot be sent this file; empty if it can."""
        file = self._files.get(name)
        if file is None:
            return "is in none of the loader folders"
        image = _IMAGES.get(arch)
        fits = file.image is not None if image is None else file.image is image
        return "" if fits else _unfit(file, image)

    def __iter__(self) -> Iterator[str]:
        """The names of loaders that are asked for and at hand."""
        return iter(sorted({name for name, image in self._asked_for if self.fits(name, image)}))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _unfit(file: LoaderFile, image: Image | None) -> str:
    """Why this file, which is none, starts no firmware that wants `image`."""
    if file.image is None or image is None:
        return file.reason
    return f"is {file.image.text}, not {image.text}"


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names as TFTP asks for them, and where they are. A folder that is not there holds nothing."""
    left = FILES_MAX
    folders = [("", folder)]
    for prefix, place in folders:
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not prefix:
                    folders.append((f"{entry.name}/", place / entry.name))
            # The tftp service follows no link, so a linked loader would be promised in vain (Debian's ipxe.efi is one).
            elif entry.is_file(follow_symlinks=False):
                left -= 1
                if left < 0:
                    return
                yield prefix + entry.name, place / entry.name


def _looked_at(path: Path, former: LoaderFile | None) -> LoaderFile | None:
    """This file; None if it went while it was looked at. `former`: what the name was until now."""
    try:
        status = path.stat(follow_symlinks=False)
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if former is not None and (former.path, former.stamp) == (path, stamp) and former.image is not None:
            return former
        with path.open("rb") as file:
            head = file.read(HEAD_SIZE)
    except FileNotFoundError:
        return None
    except OSError as error:
        return LoaderFile(path, (0, 0, 0), None, f"cannot be read ({error.strerror})")
    try:
        return LoaderFile(path, stamp, examine(head, status.st_size))
    except LoaderUnfit as unfit:
        return LoaderFile(path, stamp, None, str(unfit))
