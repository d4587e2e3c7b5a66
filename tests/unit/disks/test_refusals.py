"""Files that cannot be layers: each gets one clear line that says what is wrong, and one that says what to do."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bootlink_disks import DiskError, open_layer, probe, vhd
from bootlink_disks.vhdx_header import HEADERS_AT, TABLE_SIZE, TABLES_AT, sealed
from lab.disks import DISK_ID, MIB, dynamic_vhd, reseal_footer, reseal_header
from lab.vhdx import DATA_WRITE, FULL, LOG, PART, RATIO, Vhdx, locator

BLOCKS = [(0, b"a" * 4096), (5, b"b" * 4096), (15, b"c" * 4096)]
TABLE = 1536


def good() -> bytearray:
    return dynamic_vhd(blocks=BLOCKS)


def header_field(at: int, format_: str, value: int) -> bytearray:
    """A dynamic VHD with one field of its dynamic header changed, and the checksum right."""
    data = good()
    struct.pack_into(format_, data, 512 + at, value)
    reseal_header(data)
    return data


def footer_field(at: int, format_: str, value: int) -> bytearray:
    """A dynamic VHD with one field of both footers changed, and the checksums right."""
    data = good()
    for footer in (0, len(data) - 512):
        struct.pack_into(format_, data, footer + at, value)
        reseal_footer(data, footer)
    return data


def table_entry(block: int, sector: int) -> bytearray:
    data = good()
    struct.pack_into(">I", data, TABLE + 4 * block, sector)
    return data


def flipped(at: int) -> bytearray:
    data = good()
    data[at] ^= 1
    return data


def disagreeing() -> bytearray:
    data = good()
    struct.pack_into(">Q", data, len(data) - 512 + 48, 32 << 10)
    reseal_footer(data, len(data) - 512)
    return data


def fixed(size: int = MIB, current: int | None = None) -> bytes:
    return bytes(size) + bytes(vhd.Footer(vhd.FIXED, current or size, DISK_ID))


def at(offset: int, magic: bytes) -> bytes:
    return (bytes(offset) + magic).ljust(64 << 10, b"\0")


def child() -> bytearray:
    """A differencing VHD, right."""
    data = footer_field(60, ">I", vhd.DIFFERENCING)
    data[512:1536] = bytes(vhd.DynamicHeader(TABLE, 16, 4096, DISK_ID, 7, "gold.vhd"))
    return data


def cut_in_a_bitmap() -> bytearray:
    data = child()
    struct.pack_into(">I", data, TABLE + 4 * 15, len(data) // 512)
    return data[:-512]


def vhdx_bytes(at: int, value: bytes, **fields: Any) -> bytes:
    """A VHDX with some bytes changed, and its checksums right."""
    data = bytearray(bytes(Vhdx(**fields)))
    data[at : at + len(value)] = value
    for start, length in [(start, 4096) for start in HEADERS_AT] + [(start, TABLE_SIZE) for start in TABLES_AT]:
        data[start : start + length] = sealed(bytes(data[start : start + length]))
    return bytes(data)


def vhdx_regions(at: int, format_: str, value: int) -> bytes:
    """A VHDX with one field of the region tables changed: the BAT's entry is at 16, that of the metadata at 48."""
    data = bytearray(bytes(Vhdx()))
    for start in TABLES_AT:
        struct.pack_into(format_, data, start + at, value)
    return vhdx_bytes(0, bytes(data))


def vhdx_entry(block: int, value: int, **fields: Any) -> bytes:
    """A VHDX with one entry of its block table changed."""
    return vhdx_bytes(3 * MIB + 8 * block, value.to_bytes(8, "little"), **fields)


def vhdx_log_at(offset: int) -> bytes:
    """A VHDX that was not closed well, and whose log is said to be elsewhere."""
    data = bytearray(bytes(Vhdx(log_guid=LOG)))
    for start in HEADERS_AT:
        struct.pack_into("<Q", data, start + 72, offset)
    return vhdx_bytes(0, bytes(data))


TWO: dict[int, tuple[int, bytes]] = {0: (FULL, b"a"), 1: (FULL, b"b")}
ENDS = len(good())

WRONG: dict[str, tuple[str, Callable[[], bytes | bytearray], str, str]] = {
    # name: (file name, its bytes, what the problem says, what the remedy says)
    "empty": ("a.img", lambda: b"", "is empty", "disk image"),
    "odd size": ("a.img", lambda: bytes(510) + b"\x55\xaa" + b"x", "whole number of 512-byte sectors", "cut short"),
    "zeros": ("a.img", lambda: bytes(MIB), "it is no disk", "partition table"),
    "text": ("a.img", lambda: b"hello\n".ljust(512, b"\n"), "it is no disk", "VHD"),
    "4K sectors": ("a.img", lambda: at(4096, b"EFI PART"), "4096-byte sectors", "512-byte"),
    "qcow2": ("a.img", lambda: at(0, b"QFI\xfb"), "qcow2", "image import NAME FILE; or convert it: qemu-img convert"),
    "vmdk": ("a.vmdk", lambda: at(0, b"KDMV"), "VMDK", "image import NAME FILE; or convert it: qemu-img convert"),
    "vmdk text": ("a.vmdk", lambda: b"# Disk DescriptorFile\n", "VMDK descriptor", "qemu-img convert"),
    "vdi": ("a.vdi", lambda: at(0x40, b"\x7f\x10\xda\xbe"), "VDI", "bootlink image import NAME FILE"),
    "iso": ("a.iso", lambda: at(0x8001, b"CD001"), "ISO 9660", "install from it"),
    "gzip": ("a.img.gz", lambda: b"\x1f\x8b\x08" + bytes(700), "gzip", "unpack"),
    "zip": ("a.zip", lambda: b"PK\x03\x04" + bytes(9), "zip", "unpack"),
    "tar": ("a.tar", lambda: at(257, b"ustar"), "tar", "unpack"),
    "vhd by name only": ("a.vhd", lambda: at(510, b"\x55\xaa"), "no VHD footer", "copy it again"),
    "fixed cut short": ("a.vhd", lambda: fixed(MIB, 2 * MIB), "cut short", "copy it again"),
    "fixed, bad footer": ("a.vhd", lambda: fixed()[:-1] + b"x", "checksum of the VHD footer", "copy it again"),
    "fixed, alone": ("a.vhd", lambda: fixed(0, 512), "says fixed", "damaged"),
    "dynamic, bad copy": ("a.vhd", lambda: flipped(20), "checksum of the VHD footer", "copy it again"),
    "dynamic, start gone": ("a.vhd", lambda: bytes(512) + good()[512:], "start of the file was overwritten", "copy"),
    "dynamic, bad header": ("a.vhd", lambda: flipped(530), "checksum of the dynamic VHD header", "copy it again"),
    "dynamic, no header": ("a.vhd", lambda: good()[:512] + bytes(512), "header past the end", "damaged"),
    "dynamic, header elsewhere": ("a.vhd", lambda: footer_field(16, ">Q", 2048), "no dynamic VHD header", "copy"),
    "dynamic, header nowhere": ("a.vhd", lambda: footer_field(16, ">Q", 2**64 - 1), "past the end", "damaged"),
    "dynamic, only a footer": ("a.vhd", lambda: good()[:512], "header past the end", "damaged"),
    "dynamic, cut in a block": ("a.vhd", lambda: good()[: ENDS - 1024], "names a block that ends at", "cut short"),
    "dynamic, cut in the table": ("a.vhd", lambda: good()[: TABLE + 16], "table (BAT) lies past", "damaged"),
    "footers disagree": ("a.vhd", disagreeing, "footers disagree", "damaged"),
    "too large": ("a.vhd", lambda: footer_field(48, ">Q", (2040 << 30) + 512), "2040 GiB", "smaller"),
    "size zero": ("a.vhd", lambda: footer_field(48, ">Q", 0), "0 bytes", "copy"),
    "size odd": ("a.vhd", lambda: footer_field(48, ">Q", 65535), "no number of sectors", "copy"),
    "unknown type": ("a.vhd", lambda: footer_field(60, ">I", 9), "type 9", "fixed"),
    "unknown version": ("a.vhd", lambda: footer_field(12, ">I", 0x20000), "version 2.0", "convert"),
    "block size 0": ("a.vhd", lambda: header_field(32, ">I", 0), "block size is 0", "convert"),
    "block size odd": ("a.vhd", lambda: header_field(32, ">I", 4097), "block size is 4097", "convert"),
    "block size tiny": ("a.vhd", lambda: header_field(32, ">I", 512), "block size is 512", "convert"),
    "block size huge": ("a.vhd", lambda: header_field(32, ">I", 1 << 31), "block size is 2147483648", "convert"),
    "table too short": ("a.vhd", lambda: header_field(28, ">I", 15), "too few", "damaged"),
    "table without entries": ("a.vhd", lambda: header_field(28, ">I", 0), "too few", "damaged"),
    "table too long": ("a.vhd", lambda: header_field(28, ">I", 2**32 - 1), "table (BAT) lies past", "damaged"),
    "table past the end": ("a.vhd", lambda: header_field(16, ">Q", 1 << 40), "table (BAT) lies past", "damaged"),
    "table over the header": (
        "a.vhd",
        lambda: header_field(16, ">Q", 1024),
        "two of its own structures overlap",
        "damaged",
    ),
    "table padded past the end": ("a.vhd", lambda: header_field(28, ">I", 4000), "table (BAT) lies past", "damaged"),
    "block past the end": ("a.vhd", lambda: table_entry(1, 2**32 - 2), "names a block that ends at", "cut short"),
    "blocks the same": ("a.vhd", lambda: table_entry(1, 4), "two of its blocks overlap", "damaged"),
    "blocks overlap": ("a.vhd", lambda: table_entry(5, 12), "two of its blocks overlap", "damaged"),
    "block over the footer copy": ("a.vhd", lambda: table_entry(0, 0), "overlaps the structure at byte 0", "damaged"),
    "child, cut in a bitmap": ("a.vhd", cut_in_a_bitmap, "names a block that ends at", "cut short"),
    "child, blocks overlap": (
        "a.avhd",
        lambda: child()[:1536] + table_entry(5, 12)[1536:-512] + child()[-512:],
        "two of its blocks overlap",
        "damaged",
    ),
    "child, bad header": ("a.vhd", lambda: child()[:530] + b"?" + child()[531:], "checksum of the dynamic", "copy it"),
    "vhdx by name only": ("a.vhdx", lambda: at(510, b"\x55\xaa"), "no VHD footer", "copy it again"),
    "vhdx, only its mark": ("a.vhdx", lambda: at(0, b"vhdxfile"), "both its VHDX headers are damaged", "copy it again"),
    "vhdx, cut in the headers": ("a.vhdx", lambda: bytes(Vhdx())[: 200 << 10], "region tables are damaged", "copy it"),
    "vhdx, cut in the metadata": ("a.vhdx", lambda: bytes(Vhdx())[: 2 * MIB + 9], "structures ends at", "cut short"),
    "vhdx, cut in the table": ("a.vhdx", lambda: bytes(Vhdx())[: 3 * MIB + 8], "structures ends at", "cut short"),
    "vhdx, cut in a block": ("a.vhdx", lambda: bytes(Vhdx(blocks=TWO))[:-512], "names a block that ends", "cut short"),
    "vhdx, unknown version": ("a.vhdx", lambda: vhdx_bytes((64 << 10) + 66, b"\x02"), "VHDX version 2", "convert"),
    "vhdx, too many regions": ("a.vhdx", lambda: vhdx_regions(8, "<I", 2048), "claims 2048 entries", "damaged"),
    "vhdx, metadata past 2^63": ("a.vhdx", lambda: vhdx_regions(64, "<Q", 2**64 - MIB), "structures ends at", "cut"),
    "vhdx, table past 2^63": ("a.vhdx", lambda: vhdx_regions(32, "<Q", 1 << 63), "structures ends at", "cut"),
    "vhdx, regions overlap": ("a.vhdx", lambda: vhdx_regions(32, "<Q", 2 * MIB), "structures overlap", "damaged"),
    "vhdx, region over the log": ("a.vhdx", lambda: vhdx_regions(32, "<Q", MIB), "structures overlap", "damaged"),
    "vhdx, too many items": (
        "a.vhdx",
        lambda: vhdx_bytes(2 * MIB + 10, b"\xff\xff"),
        "metadata claims 65535 entries",
        "damaged",
    ),
    "vhdx, item within the table": (
        "a.vhdx",
        lambda: vhdx_bytes(2 * MIB + 32 + 16, bytes(4)),
        "8 bytes at 0 for the item",
        "damaged",
    ),
    "vhdx, item past the region": (
        "a.vhdx",
        lambda: vhdx_bytes(2 * MIB + 32 + 16, b"\xff" * 4),
        "8 bytes at 4294967295 for the item",
        "damaged",
    ),
    "vhdx, 4K sectors": ("a.vhdx", lambda: bytes(Vhdx(sector=4096)), "4096-byte sectors", "512-byte sectors"),
    "vhdx, block size 0": ("a.vhdx", lambda: bytes(Vhdx(block_size=0)), "block size is 0", "qemu-img convert"),
    "vhdx, block past the end": ("a.vhdx", lambda: vhdx_entry(1, 99 * MIB | FULL, blocks=TWO), "ends at byte", "cut"),
    "vhdx, block past everything": (
        "a.vhdx",
        lambda: vhdx_entry(1, 2**64 - MIB | FULL, blocks=TWO),
        "past the end of any file",
        "damaged",
    ),
    "vhdx, blocks the same": (
        "a.vhdx",
        lambda: vhdx_entry(1, 4 * MIB | FULL, blocks=TWO),
        "two of its blocks overlap",
        "damaged",
    ),
    "vhdx, block over the table": (
        "a.vhdx",
        lambda: vhdx_entry(1, 3 * MIB | FULL, blocks=TWO),
        "overlaps the structure at byte 3145728",
        "damaged",
    ),
    "vhdx, block over the headers": (
        "a.vhdx",
        lambda: vhdx_entry(1, FULL, blocks=TWO),
        "overlaps the structure at byte 0",
        "damaged",
    ),
    "vhdx child, bitmap over a block": (
        "a.avhdx",
        lambda: vhdx_entry(RATIO, 4 * MIB | FULL, blocks={0: (PART, b"a")}, bits={0: 1}, parent=locator(DATA_WRITE)),
        "overlaps the structure at byte 4194304",
        "damaged",
    ),
    "vhdx child, no bitmap": (
        "a.avhdx",
        lambda: bytes(Vhdx(blocks={0: (PART, b"a")}, parent=locator(DATA_WRITE))),
        "no sector bitmap for chunk 0",
        "damaged",
    ),
    "vhdx child, parent a path": (
        "a.avhdx",
        lambda: bytes(Vhdx(parent=locator(DATA_WRITE, parent_linkage="/etc/shadow\x1b[2J"))),
        "names the parent by no GUID",
        "damaged",
    ),
    "vhdx, log past the end": (
        "a.vhdx",
        lambda: vhdx_log_at(1 << 40),
        "log lies past the end",
        "damaged",
    ),
    "vhdx, log nowhere": ("a.vhdx", lambda: vhdx_log_at(4096), "no place in a VHDX", "damaged"),
    "block over the table": ("a.vhd", lambda: table_entry(0, 3), "overlaps the structure at byte 1536", "damaged"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_cannot_serve_is_refused_in_one_clear_line(case: str, tmp_path: Path) -> None:
    name, data, problem, remedy = WRONG[case]
    path = tmp_path / name
    path.write_bytes(data())
    with pytest.raises(DiskError) as caught:
        probe(path)
    assert str(path) in caught.value.problem
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert str(caught.value).isprintable(), "what a file says of itself must not act on a terminal"


def test_the_files_that_the_refusals_are_made_of_are_sound(tmp_path: Path) -> None:
    (tmp_path / "a.vhd").write_bytes(good())
    (tmp_path / "b.vhd").write_bytes(fixed())
    assert probe(tmp_path / "a.vhd").format == "vhd-dynamic"
    assert probe(tmp_path / "b.vhd").format == "vhd-fixed"
    for name, data, format_ in (
        ("c.vhd", child(), "vhd-differencing"),
        ("d.vhdx", vhdx_bytes(0, b"", blocks=TWO), "vhdx"),
        ("e.vhdx", bytes(Vhdx(blocks={0: (PART, b"a")}, bits={0: 1}, parent=locator(DATA_WRITE))), "vhdx-differencing"),
    ):
        (tmp_path / name).write_bytes(data)
        assert probe(tmp_path / name).format == format_


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, problem in (
        (tmp_path / "none.vhd", "there is no such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (Path("a\0b"), "cannot be opened"),
    ):
        with pytest.raises(DiskError, match=problem):
            probe(path)
        with pytest.raises(DiskError, match=problem):
            open_layer(path, "raw")


def test_a_table_that_fills_a_huge_sparse_file_costs_bounded_memory(tmp_path: Path) -> None:
    data = dynamic_vhd()
    struct.pack_into(">I", data, 512 + 28, 2**32 - 1)
    reseal_header(data)
    with (tmp_path / "bomb.vhd").open("wb") as file:
        file.write(data[:-512])
        file.truncate(64 << 30)
        file.seek(0, os.SEEK_END)
        file.write(data[-512:])
    tracemalloc.start()
    try:
        assert probe(tmp_path / "bomb.vhd").virtual_size == 64 << 10
        assert tracemalloc.get_traced_memory()[1] < MIB, "no more than the disk's own blocks is read of the table"
    finally:
        tracemalloc.stop()


def test_a_disk_is_probed_by_its_structures_and_not_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(good())
    assert probe(tmp_path / "a.img").format == "vhd-dynamic"
    (tmp_path / "b.bin").write_bytes(at(510, b"\x55\xaa"))
    assert probe(tmp_path / "b.bin").format == "raw"
    (tmp_path / "c.bin").write_bytes(at(512, b"EFI PART"))
    assert probe(tmp_path / "c.bin").format == "raw"
