"""What jobs that make a layer have in common: the stack that they read, its place in the store, and its row."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from bootlink_registry import images, imaging
from bootlink_registry.catalogue import Layer
from bootlink_registry.database import Connection
from bootlink_registry.jobs.work import Work
from bootlink_registry.store import Place


@dataclass(frozen=True, slots=True)
class Made:
    """A layer that lies in the store, whole and sealed, and that no row names yet."""

    path: Path
    format: str
    virtual_size: int
    file_size: int
    mtime_ns: int
    disk_usage: int
    sha256: str


def refs(layers: tuple[Layer, ...]) -> tuple[imaging.LayerRef, ...]:
    """Layers, as work on files is told of them."""
    return tuple(imaging.LayerRef.model_validate(layer) for layer in layers)


def ref(made: imaging.Written) -> imaging.LayerRef:
    """A file that was written just now, as a layer."""
    return imaging.LayerRef.model_validate(made)


async def found(work: Work, place: Place) -> Made:
    """A layer that a former attempt has sealed."""
    info = await work.layers.probe(place.path)
    hashed = await imaging.run(imaging.Hash(path=place.path), progress(work, "looking at what is done"))
    return Made(
        place.path, info.format, info.virtual_size, info.file_size, info.mtime_ns, info.disk_usage, hashed.sha256
    )


async def sealed(place: Place, written: imaging.Written) -> Made:
    """Seal what was written to the place's draft."""
    await place.seal()
    return Made(
        place.path,
        written.format,
        written.virtual_size,
        written.file_size,
        written.mtime_ns,
        written.disk_usage,
        written.sha256,
    )


def progress(work: Work, stage: str) -> Callable[[int, int | None], Awaitable[None]]:
    """Tells the job how far work on files is."""
    return lambda done, total: work.progress(done, total, stage)


async def record(connection: Connection, work: Work, made: Made, *, below: str | None = None) -> uuid.UUID:
    """Make a sealed layer a row; its id is the job's."""
    return await images.add_layer(
        connection,
        made,
        layer=work.id,
        below=uuid.UUID(below) if below else None,
        sha256=made.sha256,
        owned=True,
    )
