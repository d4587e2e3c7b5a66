"""Images and their versions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field

from bootlink_events import LayerFormat
from bootlink_registry.api.etags import Tagged
from bootlink_registry.api.models.base import Wish
from bootlink_registry.catalogue import Fault
from bootlink_registry.images import ImageRow, VersionRow
from bootlink_registry.names import Name, Note

PATH_LIMIT = 4_096  # bytes, PATH_MAX of Linux


VersionNumber = Annotated[int, Field(ge=1, le=2**31 - 1)]


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} is no absolute path")
    return path


ServerPath = Annotated[
    str,
    AfterValidator(_absolute),
    Field(
        max_length=PATH_LIMIT,
        description="absolute path of a file on the registry's machine",
        json_schema_extra={"pattern": r"^/[^\u0000]*$"},
    ),
]


class VersionOf(Wish):
    """A version of an image."""

    image: Name
    version: VersionNumber


class NewImage(Wish):
    name: Name
    path: ServerPath
    note: Note = ""
    parent: VersionOf | None = Field(
        default=None, description="the version that it was made on, where the file is a differencing disk"
    )


class NewVersion(Wish):
    path: ServerPath
    note: Note = ""
    parent: VersionOf | None = Field(
        default=None, description="the version that it was made on, where the file is a differencing disk"
    )
    channel: Name | None = Field(default=None, description="to point at the new version at once; null: none")


class ImageChange(Wish):
    note: Note


class Publication(Wish):
    version: VersionNumber


class Rollback(Wish):
    version: VersionNumber | None = Field(default=None, description="where to; null: where the channel pointed before")


class VersionAnswer(Tagged):
    number: int
    parent: int | None = Field(description="the version that it was made from")
    channels: list[str] = Field(description="that point at it")
    content: UUID = Field(description="what it shows; stays as it is when a merge has it read from other layers")
    layers: int = Field(description="how many layers it is read from")
    layer: UUID = Field(description="the layer that it is read from")
    below: UUID | None = Field(description="the layer below that; null if it is a whole disk")
    path: str
    format: LayerFormat
    virtual_size: int = Field(description="bytes the disk shows")
    file_size: int = Field(description="bytes of the file")
    disk_usage: int = Field(description="bytes that the file occupies; less than its size where it is sparse")
    sha256: str | None = Field(description="of the file; null until it was computed")
    owned: bool = Field(description="the file lies in the image store, and is Bootlink's to remove")
    fault: Fault | None = Field(description="what is wrong with one of the files it is read from; null if nothing")
    note: str
    author: str = Field(description="the API token that added it")
    from_boot: UUID | None = Field(description="the boot that wrote it, where it was committed")
    created: datetime

    def changeable(self) -> dict[str, Any]:
        return self.model_dump(mode="json", include={"number", "content", "channels", "note", "created"})

    @classmethod
    def of(cls, row: VersionRow) -> VersionAnswer:
        version, layer = row.version, row.layer
        return cls(
            number=version.number,
            parent=version.parent,
            channels=list(row.channels),
            content=UUID(version.content),
            layers=row.depth,
            layer=UUID(layer.id),
            below=UUID(layer.below) if layer.below else None,
            path=layer.path,
            format=layer.format,
            virtual_size=layer.virtual_size,
            file_size=layer.file_size,
            disk_usage=row.disk_usage,
            sha256=row.sha256,
            owned=row.owned,
            fault=row.fault,
            note=row.note,
            author=row.author,
            from_boot=row.from_boot,
            created=row.created,
        )


class ImageAnswer(Tagged):
    name: str
    note: str
    created: datetime
    channels: dict[str, int] = Field(description="each channel and the version it points at")
    versions: list[VersionAnswer] = Field(description="the newest, newest first; /versions lists all")

    def changeable(self) -> dict[str, Any]:
        told = self.model_dump(mode="json", include={"name", "note", "created", "channels"})
        return told | {"versions": [version.changeable() for version in self.versions]}

    @classmethod
    def of(cls, row: ImageRow) -> ImageAnswer:
        return cls(
            name=row.name,
            note=row.note,
            created=row.created,
            channels=row.channels,
            versions=[VersionAnswer.of(version) for version in row.versions],
        )
