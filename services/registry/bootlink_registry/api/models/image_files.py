"""Long work on images: what is asked for. The answer is a job."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from bootlink_registry.api.models.base import Wish
from bootlink_registry.api.models.images import PATH_LIMIT, ServerPath, VersionNumber
from bootlink_registry.imports import is_url
from bootlink_registry.names import Name, Note

LayerTarget = Literal["vhd", "vhdx", "raw"]


def _source(text: str) -> str:
    if "\0" in text:
        raise ValueError("a source cannot hold a NUL character")
    if not is_url(text):
        if not text.startswith("/"):
            raise ValueError(f"{text!r} is neither an absolute path nor an http(s) URL")
        return text
    parts = urlsplit(text)
    if not parts.hostname:
        raise ValueError(f"{text!r} names no server")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a password in it would be kept in the job's record; fetch the file by hand")
    return text


class ImportWish(Wish):
    name: Name
    source: Annotated[
        str,
        AfterValidator(_source),
        Field(max_length=PATH_LIMIT, description="absolute path on the registry's machine, or an http(s) URL"),
    ]
    source_format: Literal["raw", "vhd", "vhdx", "qcow2", "vmdk", "vdi"] | None = Field(
        default=None, description="null: by what is in the file"
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="that the source must have; null: what a .sha256 beside it says, if there is one"
    )
    format: LayerTarget = Field(default="vhd", description="that it is stored in; vhd and vhdx are dynamic")
    note: Note = ""
    new_version: bool = Field(default=False, description="a further version of an image that is there")
    channel: Name | None = Field(default=None, description="to point at the new version at once; null: none")

    @model_validator(mode="after")
    def _channel_of_a_version(self) -> Self:
        if self.channel is not None and not self.new_version:
            raise ValueError("channel goes with new_version; the first version is in the channel production anyway")
        return self


class ExportWish(Wish):
    path: ServerPath
    format: Literal["vhd", "vhdx", "raw", "qcow2"]
    channel: Name | None = Field(default=None, description="default: production")
    version: VersionNumber | None = Field(default=None, description="instead of a channel")


class VerifyWish(Wish):
    version: VersionNumber | None = Field(default=None, description="null: all versions")


class MergeWish(Wish):
    channel: Name | None = Field(default=None, description="default: production")
    version: VersionNumber | None = Field(default=None, description="instead of a channel")
    onto: VersionNumber | None = Field(
        default=None, description="merge only what is above this version; null: all, into a whole disk"
    )


class CompactWish(Wish):
    channel: Name | None = Field(default=None, description="default: production")
    version: VersionNumber | None = Field(default=None, description="instead of a channel")
    format: LayerTarget | None = Field(default=None, description="null: vhd, or vhdx where the disk is too large")
    note: Note = ""
    publish: Name | None = Field(
        default=None, description="a channel to point at the new version, if one comes of it; null: none"
    )
