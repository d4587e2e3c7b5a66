"""Compaction: zeros and free space go, and the file systems' own tools find every file as before."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bootlink_disks import create_vhd_differencing, create_vhd_dynamic, free_space, open_layer, probe, require_parent
from bootlink_registry import imaging
from bootlink_registry.imaging import compact as compaction
from lab.disks import MIB, digest
from lab.file_systems import KINDS, Kind, content_of, disk_of, file_system, require_sound, run, used_blocks

FILES = {"keep": random.Random(1).randbytes(3 * MIB + 77), "zeros": bytes(2 * MIB), "small": b"hello"}


def ref(path: Path) -> imaging.LayerRef:
    return imaging.LayerRef.model_validate(probe(path))


def compact(folder: Path, *layers: Path, format_: imaging.TargetFormat = "raw") -> imaging.Compacted:
    request = imaging.Compact(layers=tuple(map(ref, layers)), target=folder / "new", format=format_)
    return compaction.compact(request, lambda *_: None)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_free_goes_and_every_file_stays(kind: Kind, tmp_path: Path) -> None:
    part = file_system(tmp_path / "part", kind, FILES)
    starts = disk_of(tmp_path / "disk.img", [part], "gpt")
    before = digest(tmp_path / "disk.img")
    answer = compact(tmp_path, tmp_path / "disk.img")
    assert answer.notes == ()
    new = tmp_path / "new-part"
    whole = answer.path.read_bytes()
    new.write_bytes(whole[starts[0] : starts[0] + part.stat().st_size])
    require_sound(new, kind)
    for name, content in FILES.items():
        assert content_of(new, kind, name) == content
    assert answer.disk_usage < 8 * MIB < answer.before
    assert answer.free_bytes > 12 * MIB
    assert answer.zero_bytes > MIB // 2
    assert new.read_bytes() == used_blocks(part, kind)
    assert whole[: starts[0]] == (tmp_path / "disk.img").read_bytes()[: starts[0]]
    assert digest(tmp_path / "disk.img") == before


@pytest.mark.parametrize("table", ["gpt", "dos"])
def test_every_partition_of_a_table_is_looked_at(table: str, tmp_path: Path) -> None:
    kinds: list[Kind] = ["ntfs", "ext4", "ext2 of 1 KiB", "ntfs", "ext4 without checksums"]
    parts = [file_system(tmp_path / f"{at}", kind, {"keep": kind.encode()}, 8 * MIB) for at, kind in enumerate(kinds)]
    starts = disk_of(tmp_path / "disk.img", parts, "gpt" if table == "gpt" else "dos")
    answer = compact(tmp_path, tmp_path / "disk.img")
    assert answer.notes == ()
    whole = answer.path.read_bytes()
    for start, part, kind in zip(starts, parts, kinds, strict=True):
        part.write_bytes(whole[start : start + 8 * MIB])
        require_sound(part, kind)
        assert content_of(part, kind, "keep") == kind.encode()
    assert answer.disk_usage < 12 * MIB < answer.before


async def test_a_chain_becomes_one_small_disk(tmp_path: Path) -> None:
    part = file_system(tmp_path / "part", "ntfs", FILES)
    starts = disk_of(tmp_path / "disk.img", [part], "dos")
    base = create_vhd_dynamic(tmp_path / "base.vhd", tmp_path / "disk.img")
    content = (tmp_path / "disk.img").read_bytes()
    run("ntfscp", "-q", part, __file__, "more")
    changed = content[: starts[0]] + part.read_bytes() + content[starts[0] + part.stat().st_size :]
    pieces = range(0, len(content), 4096)
    changes = [(at, changed[at : at + 4096]) for at in pieces if changed[at : at + 4096] != content[at : at + 4096]]
    top = create_vhd_differencing(tmp_path / "top.vhd", base, changes)
    request = imaging.Compact(layers=(ref(top.path), ref(base.path)), target=tmp_path / "new", format="vhd")
    answer = await imaging.run(request)
    assert answer.format == "vhd-dynamic"
    assert answer.before == base.disk_usage + top.disk_usage
    assert answer.disk_usage < answer.before // 2
    with open_layer(answer.path, "vhd-dynamic") as layer:
        part.write_bytes(layer.read(starts[0], part.stat().st_size))
    assert content_of(part, "ntfs", "more") == Path(__file__).read_bytes()
    require_sound(part, "ntfs")


def test_a_file_system_that_was_not_closed_well_is_left_as_it_is(tmp_path: Path) -> None:
    ntfs = file_system(tmp_path / "ntfs", "ntfs", FILES)
    run("ntfsfix", ntfs)  # which marks it as dirty
    ext4 = file_system(tmp_path / "ext4", "ext4", FILES)
    run("debugfs", "-w", "-R", "feature needs_recovery", ext4)
    disk_of(tmp_path / "disk.img", [ntfs, ext4], "gpt")
    answer = compact(tmp_path, tmp_path / "disk.img")
    assert answer.path.read_bytes() == (tmp_path / "disk.img").read_bytes()
    assert [note.split(" at byte")[0] for note in answer.notes] == ["NTFS", "ext4"]
    assert "dirty" in answer.notes[0]
    assert "shut it down" in answer.notes[1]
    assert answer.free_bytes == 0


def test_the_free_blocks_are_those_that_their_own_tools_count(tmp_path: Path) -> None:
    ntfs = file_system(tmp_path / "ntfs", "ntfs", FILES)
    words = run("ntfsinfo", "-m", ntfs)
    counted = int(words.split("Free Clusters: ")[1].split()[0]) * 4096
    ext = file_system(tmp_path / "ext", "ext4 without checksums", FILES)
    free = run("dumpe2fs", "-h", ext).split("Free blocks:")[1].split()[0]
    size = run("dumpe2fs", "-h", ext).split("Block size:")[1].split()[0]
    for path, right in ((ntfs, counted), (ext, int(free) * int(size))):
        with open_layer(path, "raw") as layer:
            space = free_space.find(layer.read, layer.size)
        assert space.notes == ()
        assert sum(stop - start for start, stop in space.within(0, layer.size)) == right


def test_a_disk_without_file_systems_loses_its_zeros_alone(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(MIB) + bytes(4 * MIB) + random.Random(2).randbytes(MIB)
    (tmp_path / "disk.img").write_bytes(content[:510] + b"\x55\xaa" + content[512:])
    answer = compact(tmp_path, tmp_path / "disk.img")
    assert answer.path.read_bytes() == (tmp_path / "disk.img").read_bytes()
    assert (answer.zero_bytes, answer.free_bytes) == (4 * MIB, 0)
    assert answer.before - answer.disk_usage == 4 * MIB


def test_what_shows_the_same_may_take_the_place_of_the_old_one_and_what_does_not_is_another(tmp_path: Path) -> None:
    for kind in KINDS[::3]:
        part = file_system(tmp_path / "part", kind, FILES)
        disk_of(tmp_path / "disk.img", [part], "gpt")
        base = create_vhd_dynamic(tmp_path / "base.vhd", tmp_path / "disk.img")
        child = create_vhd_differencing(tmp_path / "child.vhd", base, [(0, b"x" * 512)])
        other = compact(tmp_path, base.path, format_="vhd")
        assert probe(other.path).uuid != base.uuid
        # Compacted once more it has no free space left to lose, and so shows the same.
        again = imaging.Compact(layers=(ref(other.path),), target=tmp_path / "again", format="vhd")
        done = compaction.compact(again, lambda *_: None)
        assert done.free_bytes == 0
        assert probe(done.path).uuid == probe(other.path).uuid
        # So does a disk of no known file system, and the child that was made on it stands on the new file as well.
        (tmp_path / "disk.img").write_bytes(bytes(510) + b"\x55\xaa" + b"y" * MIB + bytes(MIB))
        for path in (base.path, child.path, other.path, done.path):
            path.unlink()
        base = create_vhd_dynamic(tmp_path / "base.vhd", tmp_path / "disk.img")
        child = create_vhd_differencing(tmp_path / "child.vhd", base, [(0, b"x" * 512)])
        require_parent(child, probe(compact(tmp_path, base.path, format_="vhd").path))
        for path in (base.path, child.path, tmp_path / "new"):
            path.unlink()
