"""What must survive a restart: the latest value of each key, in a small append-only file.

Format: one JSON array per line, `["lease", "10.77.0.101", {...}]`; null instead of the object takes the key
away. The last line of a key counts. Reading stops nowhere: a line that is no such array (the torn end after a
power cut, a corrupt block) is counted and skipped, because every line stands for itself.

Writing has two halves, so that the event loop never waits for a disk. `put` takes a change into memory. `take`
hands over what has gathered, and `write` appends that to the file and flushes it to the disk, for many changes
at once; it may run in a thread. A promise that rests on a change may be made when `write` has returned.

When the file holds many more lines than there are keys, `take` hands over the whole state instead, and `write`
puts it into a new file which then replaces the old one: at every moment one complete file has the name. The file
is at most `SLACK_FACTOR` times what the owners keep (a bounded number of leases and boots), plus `SLACK_LINES`; and
so is memory, for changes that no disk takes are given up for the whole state too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic_core import to_json

SLACK_FACTOR: Final = 4
SLACK_LINES: Final = 4096

Value = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes to write. `whole`: they are the whole state, for a new file."""

    lines: tuple[bytes, ...]
    whole: bool


class Journal:
    """One file of changes. `put`, `take` and the look-ups belong to one thread; `write` to any one at a time."""

    def __init__(self, path: Path) -> None:
        """Read the file, if it is there. OSError if it cannot be read."""
        self._path = path
        self._values: dict[tuple[str, str], Value] = {}
        self._pending: list[bytes] = []
        self._lines_in_file = 0
        self._rewrite = True  # the first write of a process begins a clean file
        self.unreadable = 0
        if path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    kind, key, value = json.loads(line)
                    if not (isinstance(kind, str) and isinstance(key, str) and isinstance(value, dict | None)):
                        raise TypeError
                except (ValueError, TypeError):
                    self.unreadable += 1
                    continue
                self._values.pop((kind, key), None)  # so that the order of the values is that of their last change
                if value is not None:
                    self._values[kind, key] = value

    def of_kind(self, kind: str) -> Iterator[tuple[str, Value]]:
        """The values of one kind, the one that changed first coming first."""
        return ((key, value) for (found, key), value in self._values.items() if found == kind)

    def put(self, kind: str, key: str, value: Value | None) -> None:
        """Take in a change; `value` None takes the key away."""
        held = self._values.pop((kind, key), None)
        if value is None and held is None:
            return
        if value is not None:
            self._values[kind, key] = value
        if not self._rewrite:
            self._pending.append(_line(kind, key, value))
            self._tighten()

    @property
    def pending(self) -> bool:
        """Something waits to be written."""
        return bool(self._pending) or self._rewrite

    def take(self) -> Batch:
        """Hand over what has gathered since the last time."""
        lines = tuple(self._pending)
        if self._rewrite:
            lines = tuple(_line(kind, key, value) for (kind, key), value in self._values.items())
            self._lines_in_file = 0
        self._pending.clear()
        self._lines_in_file += len(lines)
        batch, self._rewrite = Batch(lines, self._rewrite), False
        return batch

    def failed(self) -> None:
        """`write` raised: what it was given is not in the file, so the next batch is the whole state again."""
        self._rewrite = True
        self._pending.clear()

    def _tighten(self) -> None:
        """Once the changes are many more than the keys, the whole state is the shorter way to say them."""
        if self._lines_in_file + len(self._pending) > SLACK_FACTOR * len(self._values) + SLACK_LINES:
            self._rewrite = True
            self._pending.clear()

    def write(self, batch: Batch) -> None:
        """Append to the file, or replace it, and wait for the disk. OSError if that fails."""
        data = b"".join(batch.lines)
        if not batch.whole:
            _write_and_sync(self._path, os.O_APPEND, data)
            return
        fresh = self._path.with_suffix(".new")
        _write_and_sync(fresh, os.O_TRUNC, data)
        fresh.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # the rename itself must survive a power cut
        finally:
            os.close(folder)


def _line(kind: str, key: str, value: Value | None) -> bytes:
    # Not `json`, which takes three times as long for a line, as it makes an encoder for each.
    return to_json((kind, key, value)) + b"\n"


def _write_and_sync(path: Path, flag: int, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fdatasync(fd)
    finally:
        os.close(fd)
