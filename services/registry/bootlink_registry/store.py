"""The image store: the folder of the layers that Bootlink makes itself.

    <store>/<image>/<layer>.vhd              a layer; its file is read-only, and never changes
    <store>/<image>/<layer>.vhd.tmp-<job>    a draft: a job writes it, or was killed while it did
    <store>/<image>/download-<URL's hash>    what an import has fetched, whole or (`.part`) not yet

A layer's file gets its name when it is whole and on the disk: the draft is flushed, made read-only and renamed, the
folder flushed, and only then does one transaction make a row of it. The layer's id is that of the job that makes it, so
a job that begins again finds what it has finished. A crash at any point leaves a file that no row names, or all.

**The sweeper** removes such files, nobody else does: those that no row names, and whose job is over as this database
knows. It reads the folder first, the jobs then and the rows last, so whoever makes a row while it looks was seen at
work, or has its row. A file of a job that the database does not know it leaves alone, and says so: a store may stand
beside another database than its own, by a mistake or after a dump was restored.

**Retired layers.** A merge or a removal leaves layers that nothing is read from any more (`removal.settle_layers`). PCs
that run still read them, also after a restart of their block store, and what was discarded can come back upon them. So
they stay for `retired_days`, for as long as a boot of before that lasts, and while plans that name them may not have
been replaced; then the row goes, and then the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import asyncpg

from bootlink_registry.database import Connection, Database, DatabaseAway
from bootlink_registry.imaging import TargetFormat
from bootlink_runtime import Logger

SWEEP_SECONDS: Final = 60.0  # between looks at the store
REST_SECONDS: Final = 1.0  # between questions whether looking is due
SETTLED_SECONDS: Final = 600.0  # a file that changed later is left alone, whoever writes it
DOWNLOAD_SECONDS: Final = 24 * 3600.0  # that half a download is kept for the next try
LAYER_MODE: Final = 0o444
FOLDER_MODE: Final = 0o755

_SUFFIXES: Final[dict[TargetFormat, str]] = {"vhd": ".vhd", "vhdx": ".vhdx", "raw": ".img", "qcow2": ".qcow2"}
_DOWNLOAD: Final = "download-"
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job puts the layer that it makes."""

    path: Path
    draft: Path

    async def ready(self, *, anew: bool = False) -> bool:
        """Make room: the folder is there, and no draft of a former attempt; `anew`: nor the layer. True if that is."""
        return await asyncio.to_thread(self._ready, anew)

    def _ready(self, anew: bool) -> bool:
        self.path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self.draft.unlink(missing_ok=True)
        if anew:
            self.path.unlink(missing_ok=True)
        return self.path.exists()

    async def seal(self) -> None:
        """Give the draft its name, read-only and on the disk. OSError if it cannot be."""
        await asyncio.to_thread(self._seal)

    def _seal(self) -> None:
        fd = os.open(self.draft, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(fd, LAYER_MODE)
            os.fsync(fd)
        finally:
            os.close(fd)
        self.draft.rename(self.path)
        sync_folder(self.path.parent)
        sync_folder(self.path.parent.parent)  # which may have got the image's folder just now

    @contextlib.asynccontextmanager
    async def drafting(self) -> AsyncIterator[None]:
        """Whatever ends the block but its end: the draft goes. One that is sealed already is the sweeper's."""
        try:
            yield
        except BaseException:
            await self.clear()
            raise

    async def clear(self) -> None:
        """Remove the draft, if there is one."""
        await asyncio.to_thread(lambda: self.draft.unlink(missing_ok=True))


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def place_of(store: Path, image: str, layer: uuid.UUID, format_: TargetFormat) -> Place:
    """The place of the layer that the job of this id makes."""
    path = store / image / f"{layer}{_SUFFIXES[format_]}"
    return Place(path, path.with_name(f"{path.name}.tmp-{layer}"))


@dataclass(frozen=True, slots=True)
class Download:
    """Where an import keeps what it fetches: by the URL, so that the next try finds it."""

    path: Path  # there when it is whole; half of it lies beside it (`imaging.fetch`)

    @property
    def checked(self) -> Path:
        """There when the checksum of the whole was known, and right."""
        return self.path.with_name(f"{self.path.name}.checked")

    async def forget(self, *, half: bool = False) -> None:
        """Remove what was fetched whole; `half`: and what was fetched in part."""
        await asyncio.to_thread(self._forget, half)

    def _forget(self, half: bool) -> None:
        if half:
            for path in self.path.parent.glob(f"{self.path.name}.part*"):
                path.unlink(missing_ok=True)
        self.checked.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def download_of(store: Path, image: str, url: str) -> Download:
    """Where an import of this image keeps what it fetches from there."""
    return Download(store / image / f"{_DOWNLOAD}{hashlib.sha256(url.encode()).hexdigest()[:32]}")


# -- sweeping -------------------------------------------------------------------------------------------------------


class Sweeper:
    """Keeps the store to what the rows name."""

    def __init__(self, store: Path, database: Database, log: Logger, *, retired_days: float) -> None:
        self._store = store
        self._database = database
        self._log = log
        self._retired_days = retired_days
        self._told: set[Path] = set()

    async def run(self, due: Callable[[], bool]) -> None:
        """Sweep for ever, while `due()`: of several registries one does."""
        while True:
            if not due():
                await asyncio.sleep(REST_SECONDS)
                continue
            try:
                await self.sweep()
            except DatabaseAway:
                await self._database.recovered()
                continue
            except OSError as error:
                self._log.warning("image store not swept", problem=str(error), remedy="check the folder and its disk")
            except asyncpg.IntegrityConstraintViolationError as error:
                # Somebody made use of a layer just as it was to go: the next look finds it in use.
                self._log.info("image store not swept", problem=str(error))
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Remove retired layers that nobody can read any more, and files that nobody names. OSError."""
        found = [(path, age) for path, age in await asyncio.to_thread(self._files) if age > _patience(path)]
        async with self._database.transaction() as connection:
            gone = await forget_retired(connection, self._retired_days)
            makers = [uuid.UUID(job) for path, _ in found for job in _UUID.findall(path.name)]
            over = {
                str(row["id"]): row["ended"] is not None
                for row in await connection.fetch("SELECT id, ended FROM jobs WHERE id = ANY($1::uuid[])", makers)
            }
            busy = {
                row["subject"]
                for row in await connection.fetch("SELECT subject FROM jobs WHERE state IN ('queued', 'running')")
            }
            named = {row["path"] for row in await connection.fetch("SELECT path FROM layers")}
        for path, _ in found:
            if str(path) in named or str(path) in gone or path.parent.name in busy:
                continue
            if path.name.startswith(_DOWNLOAD) or over.get(_maker(path), False):
                await self._remove(path)
            elif _maker(path) not in over and path not in self._told:
                self._told.add(path)
                self._log.warning(
                    "unknown file in the image store",
                    file=str(path),
                    remedy="is this the store of this database? Else remove it, or add it as an image from elsewhere",
                )
        for retired in gone:
            await self._remove(Path(retired))

    async def _remove(self, path: Path) -> None:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        self._log.info("file removed from the image store", file=str(path))

    def _files(self) -> list[tuple[Path, float]]:
        """The files of the store, and the seconds since each was changed last."""
        now = time.time()
        return [
            (path, now - path.lstat().st_ctime)
            for folder in (self._store.iterdir() if self._store.is_dir() else ())
            if folder.is_dir() and not folder.is_symlink()
            for path in folder.iterdir()
            if not path.is_dir()
        ]


def _patience(path: Path) -> float:
    """Seconds that a file without a name in the database is left alone after its last change."""
    return DOWNLOAD_SECONDS if path.name.startswith(_DOWNLOAD) else SETTLED_SECONDS


def _maker(path: Path) -> str:
    """The job that has made the file; empty if its name does not say."""
    found = _UUID.search(path.name)
    return found.group() if found else ""


async def forget_retired(connection: Connection, days: float) -> list[str]:
    """Delete the rows of layers that were retired `days` ago and that no boot of before can read; their files.

    None while plans wait to be delivered: what block stores go by then may name them still.
    """
    gone: list[str] = []
    while True:
        # From the top: the layer below may be free after it.
        found = await connection.fetch(
            """
            DELETE FROM layers WHERE owned AND retired < now() - $1::interval
                AND NOT EXISTS (SELECT FROM layers upper WHERE upper.below = layers.id)
                AND NOT EXISTS (SELECT FROM recompiles)
                AND NOT EXISTS (
                    SELECT FROM boots b JOIN clients c ON c.mac = b.mac
                    WHERE b.state IN ('booting', 'running') AND b.started < layers.retired)
            RETURNING path
            """,
            timedelta(days=days),
        )
        if not found:
            return gone
        gone += [row["path"] for row in found]
