"""Layer files, looked at from threads of their own: a file system that hangs must not hold up the event loop.

`probe` says what a file is when it is added. `watch` looks again and again whether each layer still is what it
was: a client must not be sent to a disk that is gone, and its screen should say why. What it finds is written to
the versions' rows, from where plans are compiled. It stats files, and opens none.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from bootlink_disks import DiskError, ImageInfo, describe_parent, probe
from bootlink_disks.open import opened, require_no_writer
from bootlink_registry import images
from bootlink_registry.catalogue import Fault, Layer
from bootlink_registry.database import Database, DatabaseAway
from bootlink_registry.problems import Problem, invalid
from bootlink_runtime import Logger

THREADS: Final = 4  # for probing and looking; more would only queue at the disk
PROBE_SECONDS: Final = 30.0  # for one file; of one its tables are read, and bitmaps of at most 64 MiB
LOOK_SECONDS: Final = 15.0  # between looks at all layer files
REST_SECONDS: Final = 1.0  # between questions whether looking is due
GLANCE_SECONDS: Final = 2.0  # given to the look at one image when it is linked

T = TypeVar("T")


def state_of(layer: Layer) -> Fault | None:
    """What is wrong with the layer's file now. Blocks on the file system.

    One whose checksum was found wrong stays so until it is verified anew: size and time say nothing about that.
    """
    try:
        now = Path(layer.path).stat()
    except OSError:
        return "missing"
    if now.st_size != layer.file_size or now.st_mtime_ns != layer.mtime_ns:
        return "changed"
    return "corrupt" if layer.fault == "corrupt" else None


def require_whole(info: ImageInfo) -> None:
    """Problem if the file is the difference to another disk: a new image begins with a whole one."""
    if info.parent is not None:
        raise invalid(
            f"{info.path}: it is a differencing disk on {describe_parent(info)}, and its parent was not named",
            "name the version that it was made on: bootlink image add NAME FILE --parent IMAGE:VERSION; or merge both "
            "into one file first (Hyper-V: Convert-VHD; VirtualBox: clonemedium)",
        )


def _require_unwritten(path: Path) -> None:
    with opened(path) as (fd, _):
        require_no_writer(fd, path)


class Layers:
    """The layer files of all images."""

    def __init__(self, database: Database, log: Logger) -> None:
        self._database = database
        self._log = log
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="layers")

    def close(self) -> None:
        """Let the threads go; one that hangs in the file system is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def probe(self, path: Path) -> ImageInfo:
        """What the file at `path` is. Problem if it cannot serve as a layer."""
        return await self._asked(path, lambda: probe(path))

    async def require_unwritten(self, path: Path) -> None:
        """Problem while another program has the file open for writing."""
        await self._asked(path, lambda: _require_unwritten(path))

    async def is_below(self, path: Path, folder: Path) -> bool:
        """Whether the file lies in this folder or below it, whatever links lead there. Problem as above."""
        return await self._asked(path, lambda: path.resolve().is_relative_to(folder.resolve()))

    async def look(self, layer: Layer) -> Fault | None:
        """What is wrong with one layer's file now, by its size and time. Problem as above."""
        state = await self._asked(Path(layer.path), lambda: state_of(layer))
        return None if state == "corrupt" else state

    async def _asked(self, path: Path, work: Callable[[], T]) -> T:
        """What is asked of one file, or Problem."""
        try:
            return await self._in_thread(work, PROBE_SECONDS)
        except DiskError as error:
            raise invalid(error.problem, error.remedy) from error
        except TimeoutError as error:
            raise Problem(
                503, f"{path}: the file system did not answer within {PROBE_SECONDS:.0f} s", "check it, then repeat"
            ) from error

    async def real_paths(self, paths: Iterable[str]) -> dict[str, str]:
        """Where these paths lead when their symbolic links are followed; one that is not here stays as it is."""
        return await self._in_thread(lambda: {path: os.path.realpath(path) for path in paths}, None)

    async def glance(self, image: str) -> None:
        """Look at one image's files now. What a hanging file system has to say comes with the regular look."""
        async with self._database.transaction() as connection:
            layers = await images.all_layers(connection, image)
        await self._look_at(layers, GLANCE_SECONDS)

    async def watch(self, due: Callable[[], bool]) -> None:
        """Look at all files, for ever, while `due()`.

        Of several registries one looks: on another machine a file may look otherwise, and they would contradict each
        other in the database for ever.
        """
        while True:
            if not due():
                await asyncio.sleep(REST_SECONDS)
                continue
            try:
                async with self._database.transaction() as connection:
                    layers = await images.all_layers(connection)
                await self._look_at(layers, None)
            except DatabaseAway:
                await self._database.recovered()
                continue
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_at(self, layers: list[Layer], seconds: float | None) -> None:
        try:
            states = await self._in_thread(lambda: [state_of(layer) for layer in layers], seconds)
        except TimeoutError:
            self._log.warning("file system slow", files=[layer.path for layer in layers])
            return
        for layer, fault in zip(layers, states, strict=True):
            if fault == layer.fault or layer.fault == "corrupt":
                continue  # that of a damaged file is not forgotten because it was away: `image verify` looks at bytes
            async with self._database.transaction() as connection:
                await images.set_fault(connection, layer, fault)
            if fault is None:
                self._log.info("layer back", layer=layer.id, file=layer.path)
            else:
                self._log.warning("layer unusable", layer=layer.id, file=layer.path, fault=fault)

    async def _in_thread(self, work: Callable[[], T], seconds: float | None) -> T:
        async with asyncio.timeout(seconds):
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
