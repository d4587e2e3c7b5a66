"""Differencing VHDs: chains against a model, what is written in which order, and parents that are the wrong ones."""

from __future__ import annotations

import os
import random
import struct
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_disks import (
    DiskError,
    ImageInfo,
    Kind,
    Run,
    create_vhd_differencing,
    create_vhd_dynamic,
    open_layer,
    probe,
    require_chain,
    require_parent,
    vhd,
)
from bootlink_disks.blocks import BITMAP_LIMIT
from lab.disks import DISK_ID, MIB, apply_changes, changes_of, digest, reseal_header, sparse_disk
from lab.stack import read_stack

SIZE = 9 * 4096 + 512


def base(folder: Path, size: int = SIZE, kind: str = "vhd-dynamic") -> ImageInfo:
    """A whole disk of noise as a parent."""
    raw = folder / "base.img"
    data = random.Random(size).randbytes(size)
    raw.write_bytes(data[:510] + b"\x55\xaa" + data[512:])
    if kind == "raw":
        return probe(raw)
    if kind == "vhd-fixed":
        path = folder / "base.vhd"
        path.write_bytes(raw.read_bytes() + bytes(vhd.Footer(vhd.FIXED, size, DISK_ID, timestamp=77)))
        return probe(path)
    return create_vhd_dynamic(folder / "base.vhd", raw)


@settings(max_examples=40)
@given(
    st.sampled_from(["raw", "vhd-fixed", "vhd-dynamic"]),
    st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 12), st.sampled_from([0, 512, 5 * 4096])), max_size=4),
    st.sampled_from([4096, 8192, 2 * MIB]),
)
def test_a_chain_reads_as_a_disk_to_which_its_changes_were_written(
    kind: str, layers: list[tuple[int, int, int]], block_size: int
) -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        infos = [base(folder, kind=kind)]
        model = bytearray((folder / "base.img").read_bytes())
        for depth, (seed, count, growth) in enumerate(layers):
            size = infos[0].virtual_size + growth
            model += bytes(growth)
            changes = changes_of(random.Random(seed), size, count)
            apply_changes(model, changes)
            path = folder / f"{depth}.vhd"
            infos.insert(0, create_vhd_differencing(path, infos[0], changes, size=size, block_size=block_size))
            assert infos[0].stored == sum(len(data) for _, data in changes)
        before = [digest(info.path) for info in infos]
        require_chain(infos)
        opened = [stack.enter_context(open_layer(info.path, info.format)) for info in infos]
        assert read_stack(opened, 0, len(model)) == model
        rng = random.Random(len(layers))
        for _ in range(20):
            offset = rng.randrange(len(model))
            length = rng.randrange(1, len(model) - offset + 1)
            assert read_stack(opened, offset, length) == model[offset : offset + length]
        assert [digest(info.path) for info in infos] == before, "reading a chain changes none of its files"


def test_what_a_child_does_not_hold_is_absent_and_what_it_holds_as_zeros_is_there(tmp_path: Path) -> None:
    parent = base(tmp_path)
    changes = [(512, b"x" * 1024), (4096, bytes(4096)), (5 * 4096 - 512, b"y" * 1024), (9 * 4096, b"z" * 512)]
    info = create_vhd_differencing(tmp_path / "child.vhd", parent, changes, block_size=4096)
    assert info.format == "vhd-differencing"
    with open_layer(info.path, info.format) as layer:
        kinds = [(run.kind, run.length) for run in layer.locate(0, SIZE)]
        assert kinds == [
            (Kind.ABSENT, 512),
            (Kind.DATA, 1024),
            (Kind.ABSENT, 4096 - 1536),
            (Kind.DATA, 4096),  # zeros that were written hide the parent's bytes
            (Kind.ABSENT, 3 * 4096 - 512),
            (Kind.DATA, 512),
            (Kind.DATA, 512),  # in the next block, so elsewhere in the file
            (Kind.ABSENT, 4 * 4096 - 512),
            (Kind.DATA, 512),
        ]
        assert layer.locate(600, 100) == [Run(Kind.DATA, layer.locate(512, 512)[0].file_offset + 88, 100)]
        assert layer.read(512, 1024) == b"x" * 1024


def test_a_block_whose_bits_are_all_clear_is_the_parents(tmp_path: Path) -> None:
    info = create_vhd_differencing(tmp_path / "a.vhd", base(tmp_path), [(0, b"x" * 512)], block_size=4096)
    data = bytearray(info.path.read_bytes())
    data[struct.unpack_from(">I", data, 1536)[0] * 512] = 0
    (tmp_path / "b.vhd").write_bytes(data)
    with open_layer(tmp_path / "b.vhd", "vhd-differencing") as layer:
        assert layer.locate(0, SIZE) == [Run(Kind.ABSENT, 0, SIZE)]
        assert layer.info.stored == 0


def test_a_created_child_is_laid_out_as_the_specification_says(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    parent = base(tmp_path)
    changes = [(3 * 512, b"x" * 512), (8 * 512, b"y" * 512)]
    create_vhd_differencing(tmp_path / "images" / "child.vhd", parent, changes, unique_id=DISK_ID, block_size=4096)
    data = (tmp_path / "images" / "child.vhd").read_bytes()
    assert data[:512] == data[-512:], "the footer and its copy are one"
    footer, header = vhd.parse_footer(data[:512]), vhd.parse_dynamic_header(data[512:1536])
    assert (footer.type, footer.current_size, footer.uuid) == (vhd.DIFFERENCING, SIZE, DISK_ID)
    assert (header.parent_uuid, header.parent_timestamp, header.parent_name) == (
        parent.uuid,
        parent.timestamp,
        "base.vhd",
    )
    ways = {}
    for at in range(512 + 576, 512 + 768, 24):
        code, space, length, reserved, offset = struct.unpack_from(">4sIIIQ", data, at)
        if code != bytes(4):
            assert (space % 512, reserved, offset % 512) == (0, 0, 0)
            ways[code] = data[offset : offset + length].decode("utf-16-le")
    assert ways == {b"W2ru": "..\\base.vhd", b"W2ku": str(parent.path).replace("/", "\\")}
    first, second = struct.unpack_from(">II", data, 1536)
    assert (data[first * 512], data[second * 512]) == (0b00010000, 0b10000000), "most significant bit first"
    assert data[first * 512 + 512 + 3 * 512 :][:512] == b"x" * 512
    assert data[second * 512 + 512 :][:512] == b"y" * 512


def test_data_is_safe_before_bitmaps_and_bitmaps_before_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    real_write, real_flush = os.pwrite, os.fdatasync

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        kind = "table" if offset == 0 or (len(data) == 512 and bytes(data[:8]) == b"conectix") else ""
        told.append(kind or ("data" if data[0] == 0x78 else "bitmap"))
        return real_write(fd, data, offset)

    def fdatasync(fd: int) -> None:
        told.append("flush")
        real_flush(fd)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    parent = base(tmp_path)
    told.clear()
    create_vhd_differencing(tmp_path / "a.vhd", parent, [(0, b"x" * 512), (8192, b"x" * 9000 + b"x" * 216)])
    assert told == ["data", "data", "flush", "bitmap", "flush", "table", "table"]


@pytest.mark.parametrize(
    "changes",
    [
        [(1, b"x" * 512)],
        [(0, b"x" * 511)],
        [(SIZE - 512, b"x" * 1024)],
        [(512, b"x" * 512), (0, b"x" * 512)],
        [(0, b"x" * 1024), (512, b"x" * 512)],
    ],
    ids=["offset", "length", "past the end", "descending", "overlapping"],
)
def test_changes_that_are_no_ascending_sectors_are_the_callers_mistake(
    changes: list[tuple[int, bytes]], tmp_path: Path
) -> None:
    parent = base(tmp_path)
    with pytest.raises(ValueError, match="no whole sectors"):
        create_vhd_differencing(tmp_path / "a.vhd", parent, changes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.img", "base.vhd"], "nothing is left behind"


def test_a_child_of_another_parent_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = base(tmp_path / "one"), base(tmp_path / "two")
    child = create_vhd_differencing(tmp_path / "child.vhd", one, [(0, b"x" * 512)])
    require_parent(child, one)
    with pytest.raises(DiskError, match="another disk") as caught:
        require_parent(child, two)
    assert "“base.vhd”" in caught.value.problem
    with pytest.raises(DiskError, match="another disk"):
        require_parent(child, probe(sparse_disk(tmp_path / "a.img", SIZE)))
    with pytest.raises(DiskError, match="nothing is below it"):
        require_chain([child])
    with pytest.raises(DiskError, match="stands on no other"):
        require_chain([one, two])
    require_chain([child, one])
    require_chain([one])


def test_children_that_name_one_another_as_parents_are_no_disk(tmp_path: Path) -> None:
    """Nothing follows them, so they cannot loop; and a stack of them ends with one that stands on nothing."""
    one = create_vhd_differencing(tmp_path / "one.vhd", base(tmp_path), [(0, b"x" * 512)])
    two = create_vhd_differencing(tmp_path / "two.vhd", one, [(0, b"y" * 512)])
    assert one.parent is not None
    assert two.uuid is not None
    loop = replace(one, parent=replace(one.parent, ids=(two.uuid,), timestamp=0))
    for stack in ([loop, two], [two, loop], [loop, two] * 5, [loop, loop]):
        with pytest.raises(DiskError):
            require_chain(stack)


def test_a_parent_that_changed_since_is_refused_by_its_time(tmp_path: Path) -> None:
    parent = base(tmp_path, kind="vhd-fixed")
    child = create_vhd_differencing(tmp_path / "child.vhd", parent, [(0, b"x" * 512)])
    assert child.parent is not None
    assert child.parent.timestamp == 77, "that of the parent's footer"
    require_parent(child, replace(parent, mtime_ns=0))
    file_time = (vhd.EPOCH + 77) * 10**9
    require_parent(child, replace(parent, timestamp=0, mtime_ns=file_time))  # others write the file's
    with pytest.raises(DiskError, match="changed after the child was made") as caught:
        require_parent(child, replace(parent, timestamp=80))
    assert "IgnoreIdMismatch" in caught.value.remedy
    silent = replace(child, parent=replace(child.parent, timestamp=0))
    require_parent(silent, replace(parent, timestamp=80))


def test_a_raw_parent_is_known_by_its_time_and_a_child_that_names_a_vhd_is_not_put_on_it(tmp_path: Path) -> None:
    raw = base(tmp_path, kind="raw")
    child = create_vhd_differencing(tmp_path / "child.vhd", raw, [(0, b"x" * 512)])
    require_parent(child, raw)
    with pytest.raises(DiskError, match="changed after"):
        require_parent(child, replace(raw, mtime_ns=raw.mtime_ns + 10 * 10**9))
    with pytest.raises(DiskError, match="another disk"):
        require_parent(child, replace(raw, uuid=DISK_ID))


def test_a_parents_name_in_a_file_is_shown_harmless_and_never_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.vhd"
    secret.write_bytes(base(tmp_path).path.read_bytes())
    child = create_vhd_differencing(tmp_path / "a.vhd", base_info := probe(tmp_path / "base.vhd"), [(0, b"x" * 512)])
    data = bytearray(child.path.read_bytes())
    name = f"{secret}\x1b[2J\n".encode("utf-16-be")
    data[512 + 64 : 512 + 64 + len(name)] = name
    reseal_header(data)
    (tmp_path / "b.vhd").write_bytes(data)
    secret.chmod(0)
    secret.unlink()
    info = probe(tmp_path / "b.vhd")
    assert info.parent is not None
    assert info.parent.name == f"{secret}[2J"
    require_parent(info, base_info)


def test_more_bitmaps_than_may_be_held_are_refused_before_they_are_read(tmp_path: Path) -> None:
    blocks = BITMAP_LIMIT // 512 + 1
    size = blocks * 4096
    parent = replace(base(tmp_path), virtual_size=size)
    info = create_vhd_differencing(tmp_path / "a.vhd", parent, [], block_size=4096)
    data = bytearray(info.path.read_bytes()[:-512])
    first = -(-len(data) // 512)
    struct.pack_into(f">{blocks}I", data, 1536, *(first + 9 * block for block in range(blocks)))
    with (tmp_path / "b.vhd").open("wb") as file:
        file.write(data)
        file.truncate((first + 9 * blocks) * 512)
    with pytest.raises(DiskError, match=f"holds parts of {blocks} blocks") as caught:
        probe(tmp_path / "b.vhd")
    assert "merge" in caught.value.remedy


def test_a_look_up_in_a_mixed_block_reads_nothing(tmp_path: Path) -> None:
    """It runs on the event loop at every miss, so it must not wait."""
    changes = [(at, b"x" * 512) for at in range(0, 8 * MIB, 1024)]  # every other sector: the worst there is
    info = create_vhd_differencing(tmp_path / "a.vhd", base(tmp_path, 8 * MIB), changes)
    layer = open_layer(info.path, info.format)
    layer.close()
    assert [run.kind for run in layer.locate(MIB, 32 << 10)] == [Kind.DATA, Kind.ABSENT] * 32
