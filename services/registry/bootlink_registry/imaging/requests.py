"""What can be asked of the process that works on files. One model each, told apart by `do`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Generic, Literal, TypeVar

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, TypeAdapter

from bootlink_registry.imaging.results import Compacted, Compared, Fetched, Hashed, Result, Written

LayerFormat = Literal["raw", "vhd-fixed", "vhd-dynamic", "vhd-differencing", "vhdx", "vhdx-differencing"]
SourceFormat = Literal["raw", "vhd", "vhdx", "qcow2", "vmdk", "vdi"]
TargetFormat = Literal["vhd", "vhdx", "raw", "qcow2"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

ResultT = TypeVar("ResultT", bound=Result)


class LayerRef(BaseModel):
    """A layer, and what it must look like when it is opened; as in a boot plan."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    path: Path
    format: LayerFormat
    virtual_size: int
    file_size: int
    mtime_ns: int


Layers = Annotated[tuple[LayerRef, ...], Field(min_length=1)]  # top first


class Request(BaseModel, Generic[ResultT]):
    """Something to be done. `answer` is the model of its result; `target` is what it writes, if it writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer: ClassVar[type[Result]]
    target: Path | None = None


class Hash(Request[Hashed]):
    """The SHA-256 of a file. Problem if the file changes meanwhile."""

    answer = Hashed
    do: Literal["hash"] = "hash"
    path: Path


class Convert(Request[Written]):
    """Make a whole disk of another file: raw, VHD, VHDX; and with qemu-img qcow2, VMDK, VDI.

    `source_format` None: by the structures in it. `sha256` is what the source must have; None: what a file of its
    name with `.sha256` behind it says, if there is one.
    """

    answer = Written
    do: Literal["convert"] = "convert"
    source: Path
    source_format: SourceFormat | None = None
    sha256: Sha256 | None = None
    target: Path
    format: TargetFormat


class Fetch(Request[Fetched]):
    """Download a file. `sha256` is what it must have; None: what `URL.sha256` says, if there is such a thing.

    What was fetched before an interruption lies beside the target and is gone on with, if the server has the same.
    """

    answer = Fetched
    do: Literal["fetch"] = "fetch"
    url: AnyHttpUrl
    sha256: Sha256 | None = None
    target: Path
    resume: bool = True


class Flatten(Request[Written]):
    """Make one whole disk of layers."""

    answer = Written
    do: Literal["flatten"] = "flatten"
    layers: Layers
    target: Path
    format: TargetFormat


class Merge(Request[Written]):
    """Make one layer of several: a differencing VHD over `parent`, or without one a whole disk (VHD; VHDX if larger).

    Problem if the changes are more than a differencing VHD may have: then merge all layers, without a parent.
    """

    answer = Written
    do: Literal["merge"] = "merge"
    layers: Layers
    parent: LayerRef | None = None
    target: Path


class Compact(Request[Compacted]):
    """Make one whole disk of layers, without what is zeros or free space of NTFS or ext4."""

    answer = Compacted
    do: Literal["compact"] = "compact"
    layers: Layers
    target: Path
    format: TargetFormat


class Compare(Request[Compared]):
    """Whether two stacks of layers show the same bytes."""

    answer = Compared
    do: Literal["compare"] = "compare"
    a: Layers
    b: Layers


AnyRequest = Annotated[Hash | Convert | Fetch | Flatten | Merge | Compact | Compare, Field(discriminator="do")]
REQUEST: TypeAdapter[AnyRequest] = TypeAdapter(AnyRequest)
