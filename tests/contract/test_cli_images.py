"""`bootlink image`: versions, channels and long work from the command line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from bootlink_disks import create_vhd_differencing, create_vhd_dynamic
from lab.disks import MIB, digest, qemu_img, sparse_disk
from lab.up import Up, error_of

SIZE = 4 * MIB


@pytest.fixture(scope="module")
def golden(up: Up, tmp_path_factory: pytest.TempPathFactory) -> tuple[Up, Path]:
    """An image of two versions, the second a difference to the first."""
    folder = tmp_path_factory.mktemp("images")
    base = create_vhd_dynamic(folder / "golden-1.vhd", sparse_disk(folder / "golden.img", SIZE))
    child = create_vhd_differencing(folder / "golden-2.vhd", base, [(4096, b"x" * 512)])
    up.query("image", "add", "golden", str(base.path), "--note", "plain")
    up.query("image", "add", "golden", str(child.path), "--parent", "golden:1", "--note", "with drivers")
    return up, folder


def said(up: Up, *arguments: str) -> str:
    done = up.bootlink(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_versions_are_listed_published_and_taken_back(golden: tuple[Up, Path]) -> None:
    up, _ = golden
    log = said(up, "image", "log", "golden")
    assert re.search(r"^2 .* 1 +4\.0 MiB .* 2 .*with drivers", log, re.MULTILINE)
    assert re.search(r"^1 +production .* plain", log, re.MULTILINE)
    assert "production -> 2" in said(up, "image", "publish", "golden:2")
    assert up.query("image", "publish", "golden:1", "--channel", "test")["channels"] == {"production": 2, "test": 1}
    assert "production -> 1" in said(up, "image", "rollback", "golden")
    assert "production -> 2" in said(up, "image", "rollback", "golden", "--to", "2")
    assert up.query("image", "show", "golden:1")["channels"] == ["test"]
    said(up, "image", "unpublish", "golden:test")
    assert up.query("image", "show", "golden")["channels"] == {"production": 2}
    assert up.query("image", "note", "golden:2", "with Office")["note"] == "with Office"
    assert [version["number"] for version in up.query("image", "log", "golden", "--most", "1")] == [2]


def test_what_is_needed_is_not_removed_and_the_command_says_by_whom(golden: tuple[Up, Path]) -> None:
    up, _ = golden
    problem, remedy = error_of(up.bootlink("image", "remove", "golden:1"))
    assert problem == "golden:2 stands on version 1 of image golden"
    assert "bootlink image merge golden:2" in remedy


def test_an_image_is_exported_and_verified_and_a_damaged_one_ends_with_status_1(golden: tuple[Up, Path]) -> None:
    up, folder = golden
    out = folder / "out.img"
    done = up.bootlink("image", "export", "golden:1", str(out), "--format", "raw")
    assert done.returncode == 0, done.stderr
    assert "image.export golden" in done.stderr  # no terminal: its progress comes as lines
    assert digest(out) in done.stdout
    assert out.read_bytes() == (folder / "golden.img").read_bytes()
    assert error_of(up.bootlink("image", "export", "golden", str(out)))[0] == f"{out} exists already"
    table = said(up, "image", "verify", "golden")
    assert "golden-1.vhd" in table
    assert "golden-2.vhd" in table
    child = folder / "golden-2.vhd"
    shutil.copy2(child, folder / "kept")
    child.unlink()
    done = up.bootlink("image", "verify", "golden", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["result"]["sound"] is False
    assert "is not sound" in done.stderr
    (folder / "kept").rename(child)
    said(up, "image", "verify", "golden:2")


def test_a_reference_that_is_none_is_a_wrong_usage(golden: tuple[Up, Path]) -> None:
    up, _ = golden
    for arguments in (
        ("image", "publish", "golden"),
        ("image", "publish", ":2"),
        ("image", "show", "golden:test"),
        ("image", "unpublish", "golden:2"),
        ("image", "add", "other", "file.img", "--channel", "test"),
        ("image", "import", "other", "file.img", "--channel", "test"),
    ):
        assert up.bootlink(*arguments).returncode == 2, arguments


def test_an_image_is_imported_and_merged_with_its_progress_and_the_files_that_it_leaves(
    golden: tuple[Up, Path],
) -> None:
    up, folder = golden
    qcow2 = folder / "other.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", folder / "golden.img", qcow2)
    done = up.bootlink("image", "import", "other", str(qcow2), "--note", "from elsewhere")
    assert done.returncode == 0, done.stderr
    assert "image.import other" in done.stderr
    assert "no checksum was given or found" in done.stderr
    shown = up.query("image", "show", "other:1")
    assert (shown["owned"], shown["note"]) == (True, "from elsewhere")
    qemu_img("compare", "-f", "vpc", "-F", "raw", shown["path"], folder / "golden.img")
    merged = said(up, "image", "merge", "golden:2")
    assert re.search(r"layers before +2", merged)
    assert re.search(r"layers now +1", merged)
    assert re.search(rf"not needed any more +{folder}/golden-2.vhd", merged)
    said(up, "image", "publish", "golden:2")
    said(up, "image", "remove", "golden:1")
    assert error_of(up.bootlink("image", "merge", "golden"))[0].endswith("is read from one layer already")
    said(up, "image", "remove", "other")
