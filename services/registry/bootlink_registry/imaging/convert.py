"""Conversion: a file from elsewhere becomes a whole disk in a format that is served, or that was asked for.

What we read ourselves (raw, VHD, VHDX) goes from the one map to the other. What we do not goes through qemu-img: to raw
and VHDX directly, to VHD by way of a raw draft, as qemu-img's own VHDs begin their blocks between pages, so that each
aligned read of the disk would cost a page more (`bootlink_disks.create`).

The source must not change meanwhile: it is refused while another program has it open for writing, and if its size, time
or inode at the end are others than at the start. Its checksum, where one is known, is verified before anything is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bootlink_disks import DiskError, OpenLayer, open_layer, probe
from bootlink_disks.layer import Pread
from bootlink_disks.open import opened, require_no_writer
from bootlink_disks.partitions import partitions
from bootlink_disks.writing import drafted, scratch
from bootlink_registry.imaging import checksums, foreign, qemu
from bootlink_registry.imaging.disks import FORMATS, stages_of, write_disk
from bootlink_registry.imaging.foreign import ForeignFormat
from bootlink_registry.imaging.requests import Convert, SourceFormat
from bootlink_registry.imaging.results import Written
from bootlink_registry.imaging.work import Stages, Tell, digest, require_still, written, wrong_checksum
from bootlink_registry.problems import Problem, invalid

_OWN: Final[dict[SourceFormat, tuple[str, ...]]] = {"vhd": ("vhd-fixed", "vhd-dynamic"), "vhdx": ("vhdx",)}
_QEMU_VHDX: Final = "subformat=dynamic,block_size=2M"  # as our own have it; its default is 8 MiB and more


def convert(request: Convert, tell: Tell) -> Written:
    """A whole disk of another file."""
    with _still(request.source) as (fd, pread):
        found = _foreign(request, pread)
        if found is None:
            return _own(request, pread, tell)
        try:
            return _by_qemu(request, fd, pread, found, tell)
        except Problem as problem:
            raise Problem(problem.status, f"{request.source}: {problem.detail}", problem.remedy) from None


@contextmanager
def _still(path: Path) -> Iterator[tuple[int, Pread]]:
    """The open source, which is not written meanwhile."""
    with opened(path) as (fd, before):
        require_no_writer(fd, path)
        yield fd, lambda offset, length: os.pread(fd, length, offset)
        require_still(path, before, os.fstat(fd))


def _foreign(request: Convert, pread: Pread) -> ForeignFormat | None:
    """The source's format, if qemu-img must read it."""
    match request.source_format:
        case None:
            return foreign.recognise(pread)
        case "raw" | "vhd" | "vhdx":
            return None
        case other:
            return other


def _own(request: Convert, pread: Pread, tell: Tell) -> Written:
    with _layer(request, pread) as layer:
        expected = _expected(request)
        stages = Stages(tell, layer.size, 1 + stages_of(request.format) + (expected is not None))
        _verify(request, expected, stages)
        write_disk(request.target, request.format, layer, stages)
        stages.next()
        answer = written(request.target, FORMATS[request.format], layer.size, stages)
        return answer.model_copy(update={"checked": expected is not None})


def _layer(request: Convert, pread: Pread) -> OpenLayer:
    """The source, opened as a whole disk. DiskError; Problem."""
    if request.source_format == "raw":
        return open_layer(request.source, "raw")
    info = probe(request.source)
    if request.source_format is not None and info.format not in _OWN[request.source_format]:
        raise invalid(f"{request.source}: it is {info.format}, and not {request.source_format}", "leave out the format")
    if info.parent is not None:
        raise invalid(
            f"{request.source}: it is a differencing disk, and its parent is not followed",
            "merge it with its parent into one file first (Hyper-V: Convert-VHD; VirtualBox: clonemedium)",
        )
    if info.format == "raw" and request.source_format is None:
        try:  # a raw disk has no other mark by which half of it could be told from all
            partitions(pread, info.file_size)
        except DiskError as error:
            raise error.of(str(request.source)) from None
    return open_layer(request.source, info.format, file_size=info.file_size, mtime_ns=info.mtime_ns)


def _by_qemu(request: Convert, fd: int, pread: Pread, format_: ForeignFormat, tell: Tell) -> Written:
    foreign.require_alone(pread, format_, os.fstat(fd).st_size)
    said = qemu.info(fd, format_)
    size = foreign.require_sound(said, f"/proc/self/fd/{fd}")
    qemu.check(fd, format_)
    expected = _expected(request)
    direct = request.format != "vhd"
    stages = Stages(tell, size, 2 + (not direct) + (expected is not None))
    _verify(request, expected, stages)
    if direct:
        options = _QEMU_VHDX if request.format == "vhdx" else ""
        with drafted(request.target) as draft:
            qemu.convert(fd, format_, draft, request.format, size=size, options=options, tell=stages)
    else:
        with scratch(request.target) as raw:
            qemu.convert(fd, format_, raw, "raw", size=size, tell=stages)
            stages.next()
            with open_layer(raw, "raw", virtual_size=size) as layer:
                write_disk(request.target, "vhd", layer, stages)
    stages.next()
    answer = written(request.target, FORMATS[request.format], size, stages)
    return answer.model_copy(update={"checked": expected is not None})


def _expected(request: Convert) -> str | None:
    """The checksum that the source must have, if it is known."""
    if request.sha256 is not None:
        return request.sha256
    beside = request.source.with_name(request.source.name + ".sha256")
    if not beside.exists():
        return None
    with opened(beside) as (fd, _):
        text = os.read(fd, checksums.LIMIT).decode(errors="replace")
    found = checksums.find(text, request.source.name)
    if found is None:
        raise invalid(f"{beside}: there is no SHA-256 of {request.source.name} in it", "correct it, or remove it")
    return found


def _verify(request: Convert, expected: str | None, stages: Stages) -> None:
    """Problem unless the source has the checksum, where it is known."""
    if expected is None:
        return
    found, _ = digest(request.source, stages)
    if found != expected:
        raise wrong_checksum(str(request.source), expected, found)
    stages.next()
