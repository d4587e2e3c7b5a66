"""Stacks: layers read as one disk, against the plainest reader; and drafts of writers that were killed."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from pathlib import Path

from bootlink_disks import Kind, Stack, create_raw, create_vhd_differencing, create_vhd_dynamic, open_layer, writing
from lab.disks import MIB, apply_changes, changes_of, sparse_disk
from lab.stack import read_stack

SIZE = 3 * MIB + 512


def chain(folder: Path, stack: ExitStack, growth: int = 0) -> tuple[Stack, bytearray]:
    raw = sparse_disk(folder / "base.img", SIZE)
    infos, model = [create_vhd_dynamic(folder / "base.vhd", raw, block_size=64 << 10)], bytearray(raw.read_bytes())
    for level in range(3):
        size = infos[0].virtual_size + growth
        model += bytes(growth)
        changes = changes_of(random.Random(level), size, 20)
        apply_changes(model, changes)
        infos.insert(0, create_vhd_differencing(folder / f"{level}.vhd", infos[0], changes, size=size))
    return Stack([stack.enter_context(open_layer(info.path, info.format)) for info in infos]), model


def test_a_stack_reads_as_its_layers_do_one_by_one(tmp_path: Path) -> None:
    for growth in (0, 5 * 512):
        with ExitStack() as stack:
            folder = tmp_path / str(growth)
            folder.mkdir()
            disk, model = chain(folder, stack, growth)
            assert disk.read(0, disk.size) == model == read_stack(disk.layers, 0, disk.size)
            rng = random.Random(1)
            for _ in range(100):
                offset = rng.randrange(disk.size)
                length = rng.randrange(1, disk.size - offset + 1)
                assert disk.read(offset, length) == model[offset : offset + length]
                assert sum(extent.length for extent in disk.extents(offset, length)) == length
                if disk.is_empty(offset, length):
                    assert not any(model[offset : offset + length])


def test_changes_are_what_the_upper_layers_say(tmp_path: Path) -> None:
    with ExitStack() as stack:
        disk, model = chain(tmp_path, stack)
        upper, base = Stack(disk.layers[:-1]), disk.layers[-1]
        rebuilt = bytearray(base.read(0, base.size))
        changes = list(upper.changes())
        apply_changes(rebuilt, changes)
        assert rebuilt == model
        written = sum(size for _, (kind, _, _, size) in upper.walk() if kind is not Kind.ABSENT)
        assert sum(len(data) for _, data in changes) == written < disk.size


def test_a_raw_copy_has_holes_for_zeros(tmp_path: Path) -> None:
    with ExitStack() as stack:
        disk, model = chain(tmp_path, stack)
        info = create_raw(tmp_path / "a.img", disk)
        assert info.path.read_bytes() == model
    (tmp_path / "zeros.img").write_bytes(bytes(4 * MIB))
    with open_layer(tmp_path / "zeros.img", "raw") as layer:
        assert create_raw(tmp_path / "b.img", layer).disk_usage == 0


def test_drafts_of_killed_writers_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with writing.appearing(tmp_path / "a.vhd") as fd:
            os.write(fd, b"half")
            os._exit(0)  # as killed: nothing is cleaned up
    os.waitpid(child, 0)
    (tmp_path / "a.vhd.part").write_bytes(b"")
    (tmp_path / ".b.vhd.1-2.part").write_bytes(b"")
    assert len(list(tmp_path.iterdir())) == 3
    writing.clear(tmp_path / "a.vhd")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.vhd.1-2.part", "a.vhd.part"]
    writing.clear(tmp_path / "none" / "a.vhd")
