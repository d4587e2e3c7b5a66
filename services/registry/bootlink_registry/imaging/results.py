"""What work on files answers. All sizes are bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Format = Literal["raw", "vhd-fixed", "vhd-dynamic", "vhd-differencing", "vhdx", "vhdx-differencing", "qcow2"]


class Result(BaseModel):
    """What came of a request."""

    model_config = ConfigDict(frozen=True)


class Hashed(Result):
    """The checksum of a file that did not change while it was read."""

    sha256: str
    size: int
    mtime_ns: int


class Written(Result):
    """A file that was written, flushed and looked at. `format` is what the registry calls it."""

    path: Path
    format: Format
    virtual_size: int
    file_size: int
    mtime_ns: int
    disk_usage: int = Field(description="what the file occupies; less than file_size if it is sparse")
    sha256: str
    checked: bool = Field(default=False, description="the source's checksum was known, and right")


class Fetched(Result):
    """A file that was downloaded."""

    path: Path
    size: int
    sha256: str
    checked: bool = Field(description="its checksum was given or lay beside it, and was right")


class Compacted(Written):
    """A whole disk written anew, with zeros for free space: another content than before, unless `free_bytes` is 0."""

    before: int = Field(description="what the layers occupied")
    zero_bytes: int = Field(description="stored before, in use, and zeros")
    free_bytes: int = Field(description="not zeros before, and free space of a file system")
    notes: tuple[str, ...] = Field(default=(), description="file systems that were left as they are, and why")


class Compared(Result):
    """Whether two disks show the same bytes."""

    same: bool
    first_difference: int | None = Field(default=None, description="offset on the disk, to a sector's precision")
