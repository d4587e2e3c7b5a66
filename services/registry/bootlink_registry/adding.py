"""Adding a file in place: looked at, compared with the parent that is named, and recorded as a layer.

What a differencing file says of its parent is compared with the parent's file and never followed. The file is probed
outside any transaction, as its file system may hang.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bootlink_disks import DiskError, ImageInfo, require_parent
from bootlink_registry import images, versions
from bootlink_registry.catalogue import Layer
from bootlink_registry.database import Connection, Database
from bootlink_registry.hashing import submit_hashing
from bootlink_registry.layers import Layers, require_whole
from bootlink_registry.problems import conflict, invalid
from bootlink_registry.settings import RegistrySettings

CHAIN_LIMIT: Final = 64  # layers that a version is read from; each is a file that block stores hold open, and ask


class Registry(Protocol):
    """What it needs of the registry."""

    @property
    def database(self) -> Database: ...
    @property
    def layers(self) -> Layers: ...
    @property
    def settings(self) -> RegistrySettings: ...


@dataclass(frozen=True, slots=True)
class Examined:
    """A file that can be a layer, and the layer that it stands on."""

    info: ImageInfo
    below: uuid.UUID | None


async def examine(registry: Registry, path: str, parent: tuple[str, int] | None) -> Examined:
    """What the file at `path` is, on version (image, number) where one is named. Raises Problem."""
    file = Path(path)
    if await registry.layers.is_below(file, registry.settings.image_store):
        raise invalid(
            f"{path} lies in the image store, whose files Bootlink makes and removes itself",
            "move the file elsewhere first; or copy it into an image of its own: bootlink image import",
        )
    await registry.layers.require_unwritten(file)
    info = await registry.layers.probe(file)
    if parent is None:
        require_whole(info)
        return Examined(info, None)
    image, number = parent
    async with registry.database.transaction() as connection:
        version = await images.get_version(connection, image, number)
    if version.fault is not None:
        raise versions.unusable(image, number, version.layer.path, version.fault)
    if version.depth >= CHAIN_LIMIT:
        raise conflict(
            f"version {number} of image {image} is read from {version.depth} layers, and {CHAIN_LIMIT} is the most",
            f"merge them first: bootlink image merge {image}:{number}",
        )
    await _require_on(registry.layers, info, version.layer)
    return Examined(info, uuid.UUID(version.layer.id))


async def _require_on(layers: Layers, info: ImageInfo, below: Layer) -> None:
    """Raise Problem unless the file was made on this layer."""
    under = await layers.probe(Path(below.path))
    if (under.file_size, under.mtime_ns) != (below.file_size, below.mtime_ns):
        raise conflict(
            f"the parent's file {below.path} was changed after it was added",
            "restore the file as it was; bootlink image verify tells more",
        )
    try:
        require_parent(info, under)
    except DiskError as error:
        raise invalid(error.problem, error.remedy) from error


async def record(connection: Connection, file: Examined, *, subject: str, author: str = "", source: str) -> uuid.UUID:
    """Record the file as a layer, and have its checksum computed in the background; the layer's id."""
    layer = await images.add_layer(connection, file.info, below=file.below)
    await submit_hashing(connection, layer, subject=subject, author=author, source=source)
    return layer
