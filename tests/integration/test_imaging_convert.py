"""Conversion: formats from elsewhere, and files that name others, lie or are cut short. qemu-img makes and judges.

The work is done in the test's own process, which is quicker; qemu-img is confined all the same.
"""

from __future__ import annotations

import hashlib
import os
import random
import struct
from pathlib import Path
from typing import Any, Literal

import pytest

from bootlink_disks import DiskError, create_vhd_differencing, create_vhd_dynamic, probe
from bootlink_registry import imaging
from bootlink_registry.imaging import convert as conversion
from bootlink_registry.imaging.work import problem_of
from bootlink_registry.problems import Problem
from lab.disks import MIB, digest, qemu_img, sparse_disk
from lab.file_systems import disk_of

SIZE = 9 * MIB + 1536
SOURCES = {
    "raw": ("raw", ""),
    "vhd": ("vpc", "force_size=on"),
    "fixed": ("vpc", "subformat=fixed,force_size=on"),
    "vhdx": ("vhdx", ""),
    "qcow2": ("qcow2", ""),
    "qcow2 of old": ("qcow2", "compat=0.10"),
    "vmdk": ("vmdk", ""),
    "vmdk for streams": ("vmdk", "subformat=streamOptimized"),
    "vdi": ("vdi", ""),
}
FOREIGN = [name for name in SOURCES if name.startswith(("q", "vm", "vd"))]


def made(folder: Path, source: str, raw: Path, *more: str) -> Path:
    """The disk in a format from elsewhere."""
    format_, options = SOURCES[source]
    path = folder / f"source.{format_}"
    command = ("-o", options) if options else ()
    qemu_img("convert", "-f", "raw", "-O", format_, *command, *more, raw, path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def convert(source: Path, target: Path, format_: imaging.TargetFormat, **more: Any) -> imaging.Written:
    """The file in another format."""
    return conversion.convert(imaging.Convert(source=source, target=target, format=format_, **more), lambda *_: None)


def refused(source: Path, format_: imaging.TargetFormat = "vhd", **more: Any) -> Problem:
    """The problem with it. What was there before is there still, and nothing else is."""
    folder = source.parent
    before = names(folder), digest(source)
    try:
        convert(source, folder / "new", format_, **more)
    except Problem as error:
        problem = error
    except DiskError as error:
        problem = problem_of(error)
    else:
        pytest.fail("it was converted")
    assert (names(folder), digest(source)) == before
    assert problem.status in (409, 422), problem
    assert str(source) in problem.detail
    return problem


@pytest.mark.parametrize("target", ["raw", "vhd", "vhdx"])
@pytest.mark.parametrize("source", SOURCES)
def test_what_is_converted_has_the_sources_bytes(source: str, target: imaging.TargetFormat, tmp_path: Path) -> None:
    raw = sparse_disk(tmp_path / "raw.img", SIZE)
    path = made(tmp_path, source, raw)
    before = digest(path)
    told: list[tuple[int, int | None]] = []
    request = imaging.Convert(source=path, target=tmp_path / "new", format=target)
    answer = conversion.convert(request, lambda done, total: told.append((done, total)))
    assert digest(path) == before
    assert answer.sha256 == digest(tmp_path / "new")
    assert not answer.checked
    if target != "raw":
        info = probe(tmp_path / "new")
        assert (info.format, info.virtual_size) == (answer.format, SIZE)
        assert info.disk_usage == answer.disk_usage <= 16 * MIB
    qemu_img("compare", "-f", "raw", "-F", {"vhd": "vpc"}.get(target, target), raw, tmp_path / "new")
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert all(total is not None and done <= total for done, total in told)


def test_compressed_clusters_are_unpacked(tmp_path: Path) -> None:
    raw = sparse_disk(tmp_path / "raw.img", SIZE)
    path = made(tmp_path, "qcow2", raw, "-c")
    answer = convert(path, tmp_path / "new", "raw")
    assert answer.path.read_bytes() == raw.read_bytes()


@pytest.mark.parametrize("text", ["{sum}", "{sum}  source.qcow2\n", "SHA256 (source.qcow2) = {sum}\n"])
def test_a_checksum_beside_the_source_is_verified_first(text: str, tmp_path: Path) -> None:
    path = made(tmp_path, "qcow2", sparse_disk(tmp_path / "raw.img", SIZE))
    beside = tmp_path / "source.qcow2.sha256"
    beside.write_text(text.format(sum=digest(path)))
    assert convert(path, tmp_path / "new", "vhd").checked
    (tmp_path / "new").unlink()
    beside.write_text(text.format(sum=hashlib.sha256(b"").hexdigest()))
    assert "SHA-256" in refused(path).detail
    beside.write_text("<html>not found</html>")
    assert "there is no SHA-256" in refused(path).detail
    assert convert(path, tmp_path / "new", "vhd", sha256=digest(path)).checked


def test_no_backing_file_is_followed(tmp_path: Path) -> None:
    sparse_disk(tmp_path / "secret.img", MIB)
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", tmp_path / "secret.img", "-F", "raw", path)
    problem = refused(path, "vhd")
    assert "backing file, which is not followed" in problem.detail


def test_no_external_data_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    data = tmp_path / "data.raw"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", path, "1M")
    problem = refused(path, "vhd")
    assert "data is in another file" in problem.detail


def test_no_vmdk_extent_or_parent_is_followed(tmp_path: Path) -> None:
    secret = sparse_disk(tmp_path / "secret.img", MIB)
    flat = tmp_path / "a.vmdk"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", secret, flat)
    problem = refused(flat, "vhd")
    assert "descriptor" in problem.detail
    assert "NAME-flat.vmdk is a raw disk" in problem.remedy
    child = tmp_path / "child.vmdk"
    base = tmp_path / "base.vmdk"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", secret, base)
    qemu_img("create", "-f", "vmdk", "-b", base, "-F", "vmdk", child)
    problem = refused(child, "vhd")
    assert "on a parent, which is not followed" in problem.detail


def test_a_sparse_vmdk_of_no_size_whose_descriptor_names_files_is_refused(tmp_path: Path) -> None:
    secret = sparse_disk(tmp_path / "secret.img", MIB)
    text = '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
    text += f'RW 2048 FLAT "{secret}" 0\n'
    head = struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, 0, 128, 1, 20)
    (tmp_path / "a.vmdk").write_bytes(head.ljust(512, b"\0") + text.encode().ljust(20 * 512, b"\0"))
    problem = refused(tmp_path / "a.vmdk", "raw")
    assert "in other files" in problem.detail


def test_an_encrypted_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    secret = ("--object", "secret,id=s,data=geheim")
    options = "encrypt.format=aes,encrypt.key-secret=s"  # the old kind, which takes no time to make
    qemu_img("create", *secret, "-f", "qcow2", "-o", options, path, "1M")
    assert "encrypted" in refused(path, "raw").detail


@pytest.mark.parametrize("part", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("source", [name for name in SOURCES if name not in ("raw", "fixed")])
def test_half_a_file_is_refused(source: str, part: float, tmp_path: Path) -> None:
    raw = tmp_path / "raw.img"
    raw.write_bytes(b"".join((bytes(510), b"\x55\xaa", random.Random(1).randbytes(SIZE - 512))))
    path = made(tmp_path, source, raw)
    os.truncate(path, int(path.stat().st_size * part))
    refused(path, "raw")


@pytest.mark.parametrize("table", ["gpt", "dos"])
def test_half_a_raw_disk_is_refused_by_its_partition_table(table: Literal["gpt", "dos"], tmp_path: Path) -> None:
    part = sparse_disk(tmp_path / "part", 4 * MIB)
    disk_of(tmp_path / "disk.img", [part, part], table)
    os.truncate(tmp_path / "disk.img", 6 * MIB)
    assert "cut short" in refused(tmp_path / "disk.img").remedy
    assert convert(tmp_path / "disk.img", tmp_path / "new", "vhd", source_format="raw").virtual_size == 6 * MIB


@pytest.mark.parametrize("source", FOREIGN)
def test_a_size_that_no_disk_has_is_refused(source: str, tmp_path: Path) -> None:
    path = made(tmp_path, source, sparse_disk(tmp_path / "raw.img", SIZE))
    where, form = {"qcow2": (24, ">Q"), "vmdk": (12, "<Q"), "vdi": (0x170, "<Q")}[path.suffix[1:]]
    with path.open("r+b") as file:
        file.seek(where)
        file.write(struct.pack(form, 1 << 62))
    refused(path, "raw")


def test_a_file_that_another_program_has_open_for_writing_is_refused(tmp_path: Path) -> None:
    raw = sparse_disk(tmp_path / "raw.img", SIZE)
    for path in (raw, made(tmp_path, "qcow2", raw)):
        with path.open("r+b"):
            problem = refused(path, "vhd")
            assert "open for writing" in problem.detail
        convert(path, tmp_path / f"new-{path.name}", "vhd")


def test_a_format_that_the_file_does_not_have_is_refused(tmp_path: Path) -> None:
    raw = sparse_disk(tmp_path / "raw.img", SIZE)
    for format_ in ("qcow2", "vmdk", "vdi", "vhd", "vhdx"):
        refused(raw, source_format=format_)


def test_a_qcow2_said_to_be_raw_is_only_bytes(tmp_path: Path) -> None:
    sparse_disk(tmp_path / "secret.img", MIB)
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", tmp_path / "secret.img", "-F", "raw", path)
    os.truncate(path, 1 * MIB)
    answer = convert(path, tmp_path / "new", "raw", source_format="raw")
    assert answer.path.read_bytes() == path.read_bytes()


def test_a_differencing_disk_alone_is_refused(tmp_path: Path) -> None:

    base = create_vhd_dynamic(tmp_path / "base.vhd", sparse_disk(tmp_path / "raw.img", SIZE))
    child = create_vhd_differencing(tmp_path / "child.vhd", base, [(0, b"x" * 512)])
    problem = refused(child.path)
    assert "its parent is not followed" in problem.detail


@pytest.mark.parametrize(("content", "what"), [(b"", "empty"), (b"\x1f\x8b" * 512, "gzip"), (bytes(MIB), "no disk")])
def test_what_is_no_disk_is_told(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(content)
    problem = refused(tmp_path / "a.img")
    assert what in problem.detail
