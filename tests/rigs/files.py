"""A file system that remembers what it was asked, and what a power cut could have left of it.

`recording` runs real code over real files below one folder and notes each system call that changes anything. `after`
gives the state that a power cut after the first so many calls may leave, by these rules:

    a page of 4 KiB of a file is as it was at any moment since the file's last sync, each page for itself: the kernel
    writes pages back when and in whatever order it likes
    where a page had its place on the disk before and was written in place, each sector of 512 bytes is for itself (a
    torn write); a page that takes a new place is there as a whole or not at all (ext4's data=ordered, XFS, Btrfs)
    the size of a file is what it was at any moment since its last sync
    a name in a folder is what it was at any moment since the folder's last sync, each name for itself; syncing a file
    does not make its name last

These are weaker promises than ext4 gives, which orders its metadata. That is meant.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from bootlink_blockstore import overlay

PAGE: Final = 4096
SECTOR: Final = 512

Call = tuple[Any, ...]  # its name, then what it was asked


@dataclass
class Log:
    """What was asked, in order."""

    root: Path
    calls: list[Call] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    files: int = 0
    after: Callable[[], None] | None = None  # called after each noted call, before the next may begin

    @property
    def now(self) -> int:
        """The position that the next call will have."""
        return len(self.calls)


@contextlib.contextmanager
def recording(root: Path) -> Iterator[Log]:
    """Note what is done below `root`. A descriptor counts from its opening in here."""
    log = Log(root)
    fds: dict[int, int | str] = {}  # a file by its number, a folder by its name
    names: dict[str, int] = {}
    at: dict[int, int] = {}

    def below(path: Any) -> str | None:
        text = os.fspath(path)
        return os.path.relpath(text, root) if text.startswith(f"{root}/") or text == str(root) else None

    with pytest.MonkeyPatch.context() as patch:

        def wrap(name: str, note: Callable[..., None], where: Any = os) -> None:
            real = getattr(where, name)

            def call(*arguments: Any, **more: Any) -> Any:
                with log.lock:
                    result = real(*arguments, **more)
                    before = log.now
                    note(result, *arguments, **more)
                    if log.after is not None and log.now > before:
                        log.after()
                    return result

            patch.setattr(where, name, call)

        def opened(fd: int, path: Any, flags: int, *_: Any, **__: Any) -> None:
            name = below(path)
            if name is None:
                return
            if flags & os.O_DIRECTORY:
                fds[fd] = name
                return
            if name not in names:
                names[name] = log.files
                log.files += 1
                log.calls.append(("name", name, names[name]))
            elif flags & os.O_TRUNC:
                log.calls.append(("size", names[name], 0))
            fds[fd], at[fd] = names[name], 0

        def noted(fd: int, *what: Any) -> None:
            if fd in fds:
                log.calls.append((what[0], fds[fd], *what[1:]))

        def closed(_: None, fd: int) -> None:
            fds.pop(fd, None)

        def written(count: int, fd: int, data: Any) -> None:
            if fd in fds:
                noted(fd, "write", at[fd], bytes(data[:count]))
                at[fd] += count

        def replaced(_: None, source: Any, target: Any) -> None:
            old, new = below(source), below(target)
            if old is not None and new is not None:
                names[new] = names.pop(old)
                log.calls.append(("name", new, names[new]))
                log.calls.append(("name", old, None))

        def unlinked(_: None, path: Any) -> None:
            name = below(path)
            if name is not None:
                names.pop(name, None)
                log.calls.append(("name", name, None))

        def made(_: None, path: Any, *__: Any) -> None:
            name = below(path)
            if name is not None:
                log.calls.append(("name", name, -1))

        wrap("open", opened)
        wrap("close", closed)
        wrap("write", written)
        wrap("pwrite", lambda count, fd, data, offset: noted(fd, "write", offset, bytes(data)[:count]))
        wrap("pwritev", lambda count, fd, parts, offset: noted(fd, "write", offset, b"".join(parts)[:count]))
        wrap("ftruncate", lambda _, fd, size: noted(fd, "size", size))
        wrap("fsync", lambda _, fd: noted(fd, "sync"))
        wrap("fdatasync", lambda _, fd: noted(fd, "sync"))
        wrap("replace", replaced)
        wrap("rename", replaced)
        wrap("unlink", unlinked)
        wrap("mkdir", made)
        wrap("punch", lambda _, fd, offset, length: noted(fd, "punch", offset, length), overlay)
        yield log


@dataclass
class Page:
    """One moment of a page. `place` is another where it has moved on the disk."""

    place: int
    data: bytes | None  # None: a hole


@dataclass
class File:
    """What a file may be: per page and for the size, all moments since its last sync, the synced one first."""

    sizes: list[int] = field(default_factory=lambda: [0])
    pages: dict[int, list[Page]] = field(default_factory=dict)

    def write(self, offset: int, data: bytes) -> None:
        while data:
            number, at = offset // PAGE, offset % PAGE
            part = data[: PAGE - at]
            moments = self.pages.setdefault(number, [Page(0, None)])
            last = moments[-1]
            held = bytearray(last.data or bytes(PAGE))
            held[at : at + len(part)] = part
            moments.append(Page(last.place + (last.data is None), bytes(held)))
            offset, data = offset + len(part), data[len(part) :]
        self.sizes.append(max(self.sizes[-1], offset))

    def punch(self, offset: int, length: int) -> None:
        for number in range(offset // PAGE, (offset + length) // PAGE):
            if number in self.pages:
                self.pages[number].append(Page(self.pages[number][-1].place, None))

    def resize(self, size: int) -> None:
        self.sizes.append(size)
        for number in self.pages:
            if number * PAGE >= size:
                self.pages[number].append(Page(self.pages[number][-1].place, None))

    def sync(self) -> None:
        self.sizes = self.sizes[-1:]
        self.pages = {number: moments[-1:] for number, moments in self.pages.items()}

    def left(self, choose: Callable[[int], int], tear: Random | None) -> tuple[int, dict[int, bytes]]:
        """Size and pages after a power cut. `choose` gives an index below the number it is given."""
        pages = {}
        for number, moments in self.pages.items():
            chosen = moments[choose(len(moments))]
            if chosen.data is None:
                continue
            data = chosen.data
            alike = [m.data for m in moments[: moments.index(chosen) + 1] if m.place == chosen.place and m.data]
            if tear is not None and alike[0] is moments[0].data and len(alike) > 1:
                data = b"".join(tear.choice(alike)[at : at + SECTOR] for at in range(0, PAGE, SECTOR))
            pages[number] = data
        return self.sizes[choose(len(self.sizes))], pages


Left = dict[str, tuple[int, dict[int, bytes]] | None]  # by name: a file's size and pages, or None for a folder


@dataclass
class Disk:
    """All files and names after so many calls, with what a power cut may choose from."""

    files: dict[int, File] = field(default_factory=dict)
    names: dict[str, list[int | None]] = field(default_factory=dict)

    def apply(self, call: Call) -> None:
        kind, what = call[0], call[1]
        if kind == "name":
            if call[2] is not None and call[2] >= 0:
                self.files.setdefault(call[2], File())
            self.names.setdefault(what, [None]).append(call[2])
        elif kind == "sync" and isinstance(what, str):
            for name, moments in self.names.items():
                if os.path.dirname(name) == what or (what == "." and "/" not in name):  # noqa: PTH120
                    del moments[:-1]
        elif kind == "sync":
            self.files[what].sync()
        elif kind == "write":
            self.files[what].write(call[2], call[3])
        elif kind == "size":
            self.files[what].resize(call[2])
        else:
            self.files[what].punch(call[2], call[3])

    def left(self, choose: Callable[[int], int], tear: Random | None) -> Left:
        """One state that a power cut may leave."""
        there: Left = {}
        for name, moments in sorted(self.names.items()):  # a folder comes before what is in it
            chosen = moments[choose(len(moments))]
            folder = os.path.dirname(name)  # noqa: PTH120
            if chosen is not None and (not folder or folder in there):
                there[name] = None if chosen < 0 else self.files[chosen].left(choose, tear)
        return there


def put(left: Left, root: Path) -> None:
    """Make such a state below an empty folder."""
    for name, content in left.items():
        if content is None:
            (root / name).mkdir()
            continue
        size, pages = content
        fd = os.open(root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        for number, data in pages.items():
            if number * PAGE < size:
                os.pwrite(fd, data[: size - number * PAGE], number * PAGE)
        os.ftruncate(fd, size)
        os.close(fd)


def key_of(left: Left) -> bytes:
    """What is the same for states that are the same."""
    found = hashlib.sha256()
    for name, content in left.items():
        found.update(name.encode())
        if content is not None:
            found.update(repr(content[0]).encode())
            for number, data in content[1].items():
                found.update(number.to_bytes(8, "big") + data)
    return found.digest()


def states(disk: Disk, random: Random, extra: int) -> Iterator[Left]:
    """States of one moment: nothing of what was not synced, all of it, and `extra` others, half of them torn."""
    yield disk.left(lambda _count: 0, None)
    yield disk.left(lambda count: count - 1, None)
    for number in range(extra):
        yield disk.left(random.randrange, random if number % 2 else None)
