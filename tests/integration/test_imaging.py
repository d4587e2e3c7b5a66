"""Work on image files in a child process: what it answers, and that nothing of it stays when it must end."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import cast

import pytest

from bootlink_disks import DiskError, ImageInfo, create_vhd_differencing, create_vhd_dynamic, probe
from bootlink_registry import imaging
from bootlink_registry.imaging import child
from bootlink_registry.imaging.requests import ResultT
from bootlink_registry.problems import Problem
from lab.disks import MIB, apply_changes, changes_of, digest, qemu_img, sparse_disk
from lab.vhdi import ending_at_pages, read_chain

SIZE = 5 * MIB + 1536


def ref(info: ImageInfo) -> imaging.LayerRef:
    return imaging.LayerRef.model_validate(info)


def chain(folder: Path, depth: int = 2, size: int = SIZE) -> tuple[tuple[imaging.LayerRef, ...], bytearray]:
    """A base and `depth` differencing VHDs on it, top first, and the bytes that they show."""
    raw = sparse_disk(folder / "base.img", size)
    infos = [create_vhd_dynamic(folder / "base.vhd", raw, block_size=512 << 10)]
    model = bytearray(raw.read_bytes())
    for level in range(depth):
        changes = changes_of(random.Random(level), size, 30)
        apply_changes(model, changes)
        infos.insert(0, create_vhd_differencing(folder / f"{level}.vhd", infos[0], changes))
    return tuple(map(ref, infos)), model


def do(request: imaging.Request[ResultT]) -> ResultT:
    """What the child does, in the test's own process: quicker, where it is the work that is tried."""
    answer = child.WORK[type(request)](request, lambda *_: None)
    assert isinstance(answer, request.answer)
    return cast(ResultT, answer)


def children() -> list[int]:
    """The processes of ours that work on image files."""
    found = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    return [pid for pid in found if b"bootlink_registry.imaging" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_files_checksum_is_sha_256(tmp_path: Path) -> None:
    path = sparse_disk(tmp_path / "a.img", 3 * MIB)
    told: list[tuple[int, int | None]] = []

    async def progress(done: int, total: int | None) -> None:
        told.append((done, total))

    answer = await imaging.run(imaging.Hash(path=path), progress)
    assert (answer.sha256, answer.size) == (digest(path), 3 * MIB)
    assert answer.mtime_ns == path.stat().st_mtime_ns
    assert told
    assert {total for _, total in told} == {3 * MIB}


@pytest.mark.parametrize("format_", ["raw", "vhd", "vhdx", "qcow2"])
def test_a_flattened_chain_is_one_disk_with_its_bytes(format_: imaging.TargetFormat, tmp_path: Path) -> None:
    layers, model = chain(tmp_path)
    before = [digest(layer.path) for layer in layers]
    request = imaging.Flatten(layers=layers, target=tmp_path / "flat", format=format_)
    answer = do(request)
    assert answer.sha256 == digest(tmp_path / "flat")
    assert (answer.virtual_size, answer.file_size) == (SIZE, (tmp_path / "flat").stat().st_size)
    (tmp_path / "model.img").write_bytes(model)
    qemu_name = {"vhd": "vpc"}.get(format_, format_)
    qemu_img("compare", "-f", "raw", "-F", qemu_name, tmp_path / "model.img", tmp_path / "flat")
    if format_ != "qcow2":
        flat = imaging.LayerRef.model_validate(answer)
        assert do(imaging.Compare(a=layers, b=(flat,))).same
        assert (answer.mtime_ns, answer.file_size) == (flat.path.stat().st_mtime_ns, flat.path.stat().st_size)
    assert [digest(layer.path) for layer in layers] == before
    assert names(tmp_path) == ["0.vhd", "1.vhd", "base.img", "base.vhd", "flat", "model.img"]


@pytest.mark.parametrize(("top", "below"), [(0, 2), (0, 3), (1, 3), (1, 2)])
def test_merged_layers_show_the_same_to_what_is_above_and_below(top: int, below: int, tmp_path: Path) -> None:
    layers, model = chain(tmp_path, 3)
    request = imaging.Merge(layers=layers[top:below], parent=layers[below], target=tmp_path / "merged.vhd")
    answer = do(request)
    assert (answer.format, answer.sha256) == ("vhd-differencing", digest(tmp_path / "merged.vhd"))
    after = (*layers[:top], imaging.LayerRef.model_validate(answer), *layers[below:])
    assert do(imaging.Compare(a=layers, b=after)).same
    flat = do(imaging.Flatten(layers=after, target=tmp_path / "flat", format="raw"))
    assert flat.path.read_bytes() == model


def test_libvhdi_reads_a_chain_with_a_merged_layer_in_it(tmp_path: Path) -> None:
    size = 5 * MIB
    raw = sparse_disk(tmp_path / "base.img", size)
    infos, model = [create_vhd_dynamic(tmp_path / "base.vhd", raw)], bytearray(raw.read_bytes())
    for level in range(4):
        changes = ending_at_pages(changes_of(random.Random(level), size, 30), size)
        apply_changes(model, changes)
        infos.insert(0, create_vhd_differencing(tmp_path / f"{level}.vhd", infos[0], changes))
    request = imaging.Merge(layers=tuple(map(ref, infos[1:3])), parent=ref(infos[3]), target=tmp_path / "merged.vhd")
    do(request)
    assert read_chain(infos[0].path, tmp_path / "merged.vhd", infos[3].path, infos[4].path) == model


def test_layers_merged_with_their_base_are_a_whole_disk(tmp_path: Path) -> None:
    layers, model = chain(tmp_path, 3)
    answer = do(imaging.Merge(layers=layers[1:], target=tmp_path / "merged.vhd"))
    assert answer.format == "vhd-dynamic"
    after = (layers[0], imaging.LayerRef.model_validate(answer))
    flat = do(imaging.Flatten(layers=after, target=tmp_path / "flat", format="raw"))
    assert flat.path.read_bytes() == model


def test_a_merge_on_another_parent_is_a_problem(tmp_path: Path) -> None:
    layers, _ = chain(tmp_path, 3)
    with pytest.raises(DiskError, match="is another disk"):
        do(imaging.Merge(layers=layers[:1], parent=layers[2], target=tmp_path / "merged.vhd"))


def test_a_merge_leaves_out_what_the_layers_do_not_change(tmp_path: Path) -> None:
    base = create_vhd_dynamic(tmp_path / "base.vhd", sparse_disk(tmp_path / "base.img", 64 * MIB))
    size = 128 * MIB  # grown, and nothing written there
    one = create_vhd_differencing(tmp_path / "1.vhd", base, [(MIB, b"1" * 512)], size=size)
    two = create_vhd_differencing(tmp_path / "2.vhd", one, [(MIB + 512, b"2" * 512)], size=size)
    request = imaging.Merge(layers=(ref(two), ref(one)), parent=ref(base), target=tmp_path / "merged.vhd")
    do(request)
    merged = probe(tmp_path / "merged.vhd")
    assert (merged.stored, merged.virtual_size) == (1024, size)
    assert (merged.uuid, merged.timestamp) == (two.uuid, two.timestamp)


def test_the_first_sector_in_which_two_disks_differ_is_named(tmp_path: Path) -> None:
    layers, model = chain(tmp_path, 1)
    model[4 * MIB + 700] ^= 1
    (tmp_path / "other.img").write_bytes(model)
    other = ref(probe(tmp_path / "other.img"))
    answer = do(imaging.Compare(a=layers, b=(other,)))
    assert (answer.same, answer.first_difference) == (False, 4 * MIB + 512)


async def test_a_layer_that_was_changed_is_a_problem_and_leaves_nothing(tmp_path: Path) -> None:
    layers, _ = chain(tmp_path)
    os.utime(layers[1].path)
    before = names(tmp_path)
    with pytest.raises(Problem, match="the file was changed after it was added"):
        await imaging.run(imaging.Flatten(layers=layers, target=tmp_path / "flat", format="raw"))
    assert names(tmp_path) == before


async def test_a_chain_without_its_base_is_a_problem(tmp_path: Path) -> None:
    layers, _ = chain(tmp_path)
    with pytest.raises(Problem, match="nothing is below it"):
        await imaging.run(imaging.Flatten(layers=layers[:1], target=tmp_path / "flat", format="raw"))


async def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"none\.img: there is no such file"):
        await imaging.run(imaging.Hash(path=tmp_path / "none.img"))


async def test_a_cancelled_one_is_killed_and_leaves_no_draft(tmp_path: Path) -> None:
    base = tmp_path / "noise.img"
    with base.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(MIB))
        file.truncate(64 << 30)  # so that it would take long
        file.seek(510)
        file.write(b"\x55\xaa")
    begun = asyncio.Event()
    pids: list[int] = []

    async def progress(_done: int, _total: int | None) -> None:
        if not begun.is_set():
            pids.extend(children())
            assert any(name.endswith(".part") for name in names(tmp_path))
            begun.set()

    request = imaging.Flatten(layers=(ref(probe(base)),), target=tmp_path / "flat", format="raw")
    task = asyncio.create_task(imaging.run(request, progress))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(tmp_path) == ["noise.img"]
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
