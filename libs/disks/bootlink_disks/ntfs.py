"""NTFS: its free clusters. Bytes in, no I/O of its own.

Source: the structures as the Linux kernel's ntfs3 and fs/ntfs/layout.h describe them. Little-endian.

    boot sector   sizes of sector, cluster and file record; where the MFT is
    MFT           a record per file; the first ones are the file system's own: 2 $LogFile, 3 $Volume, 6 $Bitmap
    record        "FILE", attributes; two bytes of each 512 are kept elsewhere and put back first (the update sequence)
    $Bitmap       its data: a bit per cluster

How it works. A volume is believed if it is not marked as dirty and its log was closed: no client in use, or the flag
that says that the volume is clean, in the newer one of its two restart pages; a log that was never used is all ones.
A Windows that hibernates, also the one that shuts down by "fast startup", leaves the log open, and its volume is left
as it is here.

Deliberately not here: names and folders, attribute lists (a $Bitmap in so many pieces is refused), and writing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from bootlink_disks.bitmap import MAX_BITMAP, FreeSpace
from bootlink_disks.errors import DiskError
from bootlink_disks.layer import Pread

OEM: Final = b"NTFS    "
LOG_FILE: Final = 2
VOLUME: Final = 3
BITMAP: Final = 6

ATTRIBUTE_LIST: Final = 0x20
VOLUME_INFORMATION: Final = 0x70
DATA: Final = 0x80
END: Final = 0xFFFF_FFFF

DIRTY: Final = 1
LOG_CLEAN: Final = 2
NO_CLIENT: Final = 0xFFFF

MAX_CLUSTER: Final = 2 << 20  # bytes; what Windows makes ends there
MAX_RECORD: Final = 64 << 10  # bytes; 1024, or 4096 on disks of large sectors
MAX_RUNS: Final = 4096  # of one attribute; so many do not fit into a record

_STRIDE: Final = 512  # bytes that one entry of an update sequence guards
_LOG_PAGE: Final = 4096
_DAMAGED: Final = "run chkdsk on it"
_CLOSE: Final = "start the disk's Windows and shut it down fully (shutdown /s /t 0, fast startup off)"


def is_it(read: Pread) -> bool:
    """Whether a partition has a boot sector of this kind."""
    return read(3, len(OEM)) == OEM


def free_space(read: Pread, length: int) -> FreeSpace:
    """The free clusters of a volume in a partition of `length` bytes. DiskError if it cannot be told."""
    volume = _Volume(read, length)
    volume.require_closed()
    size = -(-volume.clusters // 8)
    if size > MAX_BITMAP:
        raise DiskError(f"it has {volume.clusters} clusters, too many to be looked at", "only its zeros are left out")
    bits = volume.content(BITMAP, DATA, size)
    if len(bits) != size:
        raise DiskError("its $Bitmap is too short for it", _DAMAGED)
    return FreeSpace(0, volume.cluster, volume.clusters, bits)


class _Volume:
    """A volume, by its boot sector."""

    def __init__(self, read: Pread, length: int) -> None:
        self._read = read
        boot = read(0, 512)
        if len(boot) < 512 or boot[3:11] != OEM:
            raise DiskError("it is no NTFS", _DAMAGED)
        sector, per_cluster = struct.unpack_from("<HB", boot, 11)
        sectors, mft = struct.unpack_from("<QQ", boot, 40)
        (per_record,) = struct.unpack_from("<b", boot, 64)
        self.cluster = sector * (per_cluster if per_cluster <= 0x80 else 1 << min(256 - per_cluster, 31))
        self.record = per_record * self.cluster if per_record > 0 else 1 << min(-per_record, 31)
        if (
            sector not in (512, 1024, 2048, 4096)
            or not 0 < self.cluster <= MAX_CLUSTER
            or self.cluster & self.cluster - 1
            or not 512 <= self.record <= MAX_RECORD
            or self.record & self.record - 1
            or not 0 < sectors * sector <= length
        ):
            raise DiskError("its boot sector contradicts itself, or its partition", _DAMAGED)
        self.clusters = sectors * sector // self.cluster
        self._mft = mft * self.cluster

    def require_closed(self) -> None:
        """DiskError unless it was closed well."""
        information = self.content(VOLUME, VOLUME_INFORMATION, 12)
        if len(information) < 12 or information[8] not in (1, 3):
            raise DiskError("it is of a version that is not known here", "only its zeros are left out")
        if struct.unpack_from("<H", information, 10)[0] & DIRTY:
            raise DiskError("it is marked as dirty", _DAMAGED)
        if not _is_closed(self.content(LOG_FILE, DATA, 2 * _LOG_PAGE)):
            raise DiskError("it was not closed well, so what is free cannot be told", _CLOSE)

    def content(self, number: int, kind: int, limit: int) -> bytes:
        """The first `limit` bytes of an attribute of a file record; fewer if it has fewer. DiskError."""
        record = self._file_record(number)
        for code, attribute in _attributes(record):
            if code == ATTRIBUTE_LIST:
                break
            if code == kind and attribute[9] == 0:  # the unnamed one
                return self._value(attribute, limit)
        raise DiskError(f"its file record {number} has not what belongs there", _DAMAGED)

    def _file_record(self, number: int) -> bytes:
        data = bytearray(self._read(self._mft + number * self.record, self.record))
        if len(data) != self.record or data[:4] != b"FILE":
            raise DiskError(f"its file record {number} is missing", _DAMAGED)
        at, count = struct.unpack_from("<HH", data, 4)
        if at + 2 * count > self.record or (count - 1) * _STRIDE != self.record:
            raise DiskError(f"its file record {number} is damaged", _DAMAGED)
        for index in range(1, count):
            end = index * _STRIDE
            if data[end - 2 : end] != data[at : at + 2]:
                raise DiskError(f"its file record {number} was written in part", _DAMAGED)
            data[end - 2 : end] = data[at + 2 * index : at + 2 * index + 2]
        return bytes(data)

    def _value(self, attribute: bytes, limit: int) -> bytes:
        if not attribute[8]:  # resident: in the record itself
            length, at = struct.unpack_from("<IH", attribute, 16)
            return attribute[at : at + min(length, limit)]
        if len(attribute) < 64:
            raise DiskError("an attribute of it is damaged", _DAMAGED)
        (start,) = struct.unpack_from("<Q", attribute, 16)
        (runs_at,) = struct.unpack_from("<H", attribute, 32)
        (size,) = struct.unpack_from("<Q", attribute, 48)
        if start:
            raise DiskError("an attribute of it is in more pieces than are read here", "only its zeros are left out")
        wanted = min(size, limit)
        data = bytearray()
        for cluster, count in _runs(attribute[runs_at:]):
            if cluster + count > self.clusters:
                raise DiskError("a file of its own lies past its end", _DAMAGED)
            data += self._read(cluster * self.cluster, min(count * self.cluster, wanted - len(data)))
            if len(data) >= wanted:
                break
        return bytes(data)


def _attributes(record: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of each attribute. DiskError if they do not fit into the record."""
    (at,) = struct.unpack_from("<H", record, 20)
    while at + 8 <= len(record):
        kind, length = struct.unpack_from("<II", record, at)
        if kind == END:
            return
        if length < 24 or length % 8 or at + length > len(record):
            break
        yield kind, record[at : at + length]
        at += length
    raise DiskError("the attributes of a file record do not fit into it", _DAMAGED)


def _runs(data: bytes) -> Iterator[tuple[int, int]]:
    """(first cluster, clusters) of each run of a list. DiskError if it is damaged, or has a hole."""
    at = cluster = 0
    for _ in range(MAX_RUNS):
        if at >= len(data) or not data[at]:
            return
        long, wide = data[at] & 0xF, data[at] >> 4
        end = at + 1 + long + wide
        if not 0 < long <= 8 or not 0 < wide <= 8 or end > len(data):
            break
        count = int.from_bytes(data[at + 1 : at + 1 + long], "little")
        cluster += int.from_bytes(data[at + 1 + long : end], "little", signed=True)
        if cluster < 0 or not 0 < count < 1 << 48:
            break
        yield cluster, count
        at = end
    raise DiskError("the runs of a file of its own are damaged", _DAMAGED)


def _is_closed(log: bytes) -> bool:
    """Whether a log's two restart pages say that nothing is to be replayed."""
    if log == b"\xff" * (2 * _LOG_PAGE):
        return True  # made, and never used since
    newest: tuple[int, bool] | None = None
    for page in (log[:_LOG_PAGE], log[_LOG_PAGE:]):
        if page[:4] != b"RSTR" or len(page) < _LOG_PAGE:
            continue
        (at,) = struct.unpack_from("<H", page, 24)
        if at % 8 or not 30 <= at <= 510 - 16:  # before the first of the bytes that are kept elsewhere
            continue
        number, _, _, in_use, flags = struct.unpack_from("<QHHHH", page, at)
        closed = in_use == NO_CLIENT or bool(flags & LOG_CLEAN)
        if newest is None or number > newest[0]:
            newest = (number, closed)
    return newest is not None and newest[1]
