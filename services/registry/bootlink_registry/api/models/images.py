"""Images and their versions."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field, field_validator

from bootlink_events import LayerFormat
from bootlink_registry.api.models.base import NOTE_LIMIT, Answer, Wish
from bootlink_registry.catalogue import Fault
from bootlink_registry.images import ImageRow, VersionRow
from bootlink_registry.names import Name

PATH_LIMIT = 4_096  # bytes, PATH_MAX of Linux


class NewImage(Wish):
    name: Name
    path: str = Field(max_length=PATH_LIMIT, description="absolute path of the disk image on the registry's machine")
    note: str = Field(default="", max_length=NOTE_LIMIT)

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"{path!r} is no absolute path")
        return path

    @field_validator("note")
    @classmethod
    def _storable(cls, note: str) -> str:
        if "\0" in note:
            raise ValueError("a note cannot hold a NUL character")
        return note


class VersionAnswer(Answer):
    number: int
    parent: int | None = Field(description="the version that it was made from")
    layer: UUID = Field(description="the layer that it is read from")
    below: UUID | None = Field(description="the layer below that; null if it is a whole disk")
    path: str
    format: LayerFormat
    virtual_size: int = Field(description="bytes the disk shows")
    file_size: int = Field(description="bytes of the file")
    disk_usage: int = Field(description="bytes that the file occupies; less than its size where it is sparse")
    sha256: str | None = Field(description="of the file; null until it was computed")
    fault: Fault | None = Field(description="what is wrong with the file; null if nothing")
    note: str
    author: str
    created: datetime

    @classmethod
    def of(cls, row: VersionRow) -> VersionAnswer:
        version, layer = row.version, row.layer
        return cls(
            number=version.number,
            parent=version.parent,
            layer=UUID(layer.id),
            below=UUID(layer.below) if layer.below else None,
            path=layer.path,
            format=layer.format,
            virtual_size=layer.virtual_size,
            file_size=layer.file_size,
            disk_usage=row.disk_usage,
            sha256=row.sha256,
            fault=layer.fault,
            note=row.note,
            author=row.author,
            created=row.created,
        )


class ImageAnswer(Answer):
    name: str
    note: str
    created: datetime
    channels: dict[str, int] = Field(description="each channel and the version it points at")
    versions: list[VersionAnswer] = Field(description="newest first")

    @classmethod
    def of(cls, row: ImageRow) -> ImageAnswer:
        return cls(
            name=row.name,
            note=row.note,
            created=row.created,
            channels=row.channels,
            versions=[VersionAnswer.of(version) for version in row.versions],
        )
