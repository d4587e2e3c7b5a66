"""Opening: from a path to a probed image, a layer, or one clear line on why not.

- `probe` recognises a file's format by the structures in it. It is for files that an administrator adds.
- `open_layer` parses the one format it is told and insists on the size and time that were recorded when the file was
  added. It is for serving: what a format is comes from the registry, never from bytes that a client may have written.
- `check` is `probe`, and then all that can be proved about the file beyond what serving it needs.

Files are opened O_RDONLY, here and nowhere else for reading.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bootlink_disks import foreign, raw, vhd, vhd_differencing, vhd_dynamic, vhd_fixed, vhdx, vhdx_header
from bootlink_disks.blocks import BlockMap
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import Format, ImageInfo, OpenLayer, Pread, Structure

FORMATS: dict[Format, Callable[[Pread, int], Structure]] = {
    "raw": raw.parse,
    "vhd-fixed": vhd_fixed.parse,
    "vhd-dynamic": vhd_dynamic.parse,
    "vhd-differencing": vhd_differencing.parse,
    "vhdx": vhdx.parse,
    "vhdx-differencing": vhdx.parse_differencing,
}


_F_SETSIG = 10  # Linux's fcntl.h; Python has no name for it


@dataclass(frozen=True, slots=True)
class CheckReport:
    info: ImageInfo
    findings: tuple[str, ...]  # one line each; empty if nothing is wrong


def probe(path: str | os.PathLike[str]) -> ImageInfo:
    """What the file is. DiskError, with the file's name in it, if it cannot serve as a layer, or is being written."""
    path = Path(path)
    with opened(path) as (fd, before):
        require_no_writer(fd, path)
        return _parsed(path, fd, before, recognise)[0]


def check(path: str | os.PathLike[str]) -> CheckReport:
    """`probe`, then read what serving does not: a dynamic VHD's sector bitmaps. May take long on large files."""
    path = Path(path)
    with opened(path) as (fd, before):
        info, structure = _parsed(path, fd, before, recognise)
        findings = list(info.notes)
        if structure.format == "vhd-dynamic" and isinstance(structure.map, BlockMap):
            findings.extend(vhd_dynamic.check_bitmaps(_preader(fd), structure.map))
        return CheckReport(info, tuple(findings))


def open_layer(
    path: str | os.PathLike[str],
    format: Format,  # noqa: A002  (the plan's own word for it)
    *,
    virtual_size: int | None = None,
    file_size: int | None = None,
    mtime_ns: int | None = None,
) -> OpenLayer:
    """Open a layer of a known format for reading. Blocks on the file system: call it in a thread.

    The three expectations, where given, are what was recorded when the file was added. DiskError if the file differs
    from any of them (a layer is immutable: another file is another version), or is not sound.
    """
    path = Path(path)
    with opened(path) as (fd, before):
        if (file_size is not None and before.st_size != file_size) or (
            mtime_ns is not None and before.st_mtime_ns != mtime_ns
        ):
            raise DiskError(
                f"{path}: the file was changed after it was added",
                "restore the file as it was, or add the changed one as a new version",
            )
        info, structure = _parsed(path, fd, before, lambda _pread, _size, _name: format)
        if virtual_size is not None and info.virtual_size != virtual_size:
            raise DiskError(
                f"{path}: the disk has {info.virtual_size} bytes, and had {virtual_size} when it was added",
                "restore the file as it was, or add the changed one as a new version",
            )
        return OpenLayer(os.dup(fd), info, structure.map)


def recognise(pread: Pread, file_size: int, name: str) -> Format:
    """The format of a file by its structures; `name` only helps to say what went wrong. DiskError if it has none."""
    if file_size == 0:
        raise DiskError("the file is empty", "give a disk image: raw (.img), VHD or VHDX")
    head = pread(0, vhd.FOOTER_SIZE)
    tail = pread(max(file_size - vhd.FOOTER_SIZE, 0), vhd.FOOTER_SIZE)
    if head.startswith(vhd.FOOTER_COOKIE):
        return "vhd-differencing" if vhd.parse_footer(head).type == vhd.DIFFERENCING else "vhd-dynamic"
    if head.startswith(vhdx_header.IDENTIFIER):
        return "vhdx-differencing" if vhdx.has_parent(pread, file_size) else "vhdx"
    if tail.startswith(vhd.FOOTER_COOKIE):
        return "vhd-fixed" if vhd.parse_footer(tail).type == vhd.FIXED else "vhd-dynamic"
    foreign.refuse(pread)
    if name.lower().endswith((".vhd", ".vhdx")):
        raise DiskError(
            "it is named as a VHD, but has no VHD footer; it is probably cut short",
            "copy it again from where it came; if it is a raw disk, name it .img",
        )
    raw.parse(pread, file_size)
    raw.require_boot_signature(pread)
    return "raw"


@contextmanager
def opened(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """The file's descriptor, read-only, and its state; closed afterwards. Every error becomes a DiskError."""
    try:
        # Asked before opening, as opening a device can act on it; O_NONBLOCK, as opening a pipe could wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise DiskError(f"{path}: it is not a regular file", "give the path of a disk image file")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise DiskError(f"{path}: there is no such file", "check the path, as seen from this machine") from None
    except PermissionError:
        raise DiskError(f"{path}: the file may not be read", "let the user that runs Bootlink read it") from None
    except (OSError, ValueError) as error:
        raise DiskError(
            f"{path}: it cannot be opened ({_reason(error)})", "check the path and its file system"
        ) from error
    try:
        yield fd, os.fstat(fd)
    except OSError as error:
        raise DiskError(
            f"{path}: it cannot be read ({_reason(error)})", "check the disk or file system that it is on"
        ) from error
    finally:
        os.close(fd)


def require_no_writer(fd: int, path: Path) -> None:
    """DiskError if any process has the file open for writing, as a running VM or a copy that is not complete.

    The kernel gives a lease for reading only while nobody has (fcntl(2), F_SETLEASE); it is given back at once. Where
    it gives none for other reasons (NFS, another user's file), nothing is known, and nothing is said.
    """
    try:
        # Should somebody open it within these lines: a signal that is ignored by default, unlike SIGIO.
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise DiskError(
                f"{path}: another program has the file open for writing",
                "close it there (a running VM, a copy that is not complete), then try again",
            ) from None


def _parsed(
    path: Path, fd: int, before: os.stat_result, choose: Callable[[Pread, int, str], Format]
) -> tuple[ImageInfo, Structure]:
    pread = _preader(fd)
    try:
        structure = FORMATS[choose(pread, before.st_size, path.name)](pread, before.st_size)
    except DiskError as error:
        raise error.of(str(path)) from None
    after = os.fstat(fd)
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise DiskError(f"{path}: the file is being written", "wait until it is complete, then try again")
    info = ImageInfo(
        path=path,
        format=structure.format,
        virtual_size=structure.map.size,
        file_size=after.st_size,
        mtime_ns=after.st_mtime_ns,
        disk_usage=after.st_blocks * 512,  # st_blocks counts 512 bytes whatever the file system's block is
        stored=structure.stored,
        block_size=structure.block_size,
        uuid=structure.uuid,
        timestamp=structure.timestamp,
        parent=structure.parent,
        creator=structure.creator,
        notes=structure.notes,
    )
    return info, structure


def _preader(fd: int) -> Pread:
    def pread(offset: int, length: int) -> bytes:
        # Linux reads at most 2 GiB - 4 KiB at once and may read less; 16 MiB (the largest log) come whole from a file.
        return os.pread(fd, length, offset)

    return pread


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
