"""`bootlink image`: versions, channels and long work from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bootlink_disks import create_vhd_differencing, create_vhd_dynamic
from lab.disks import MIB, qemu_img, sparse_disk
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
    assert re.search(r"^2 .* 1 +[0-9.]+ [KM]iB +2 +with drivers", log, re.MULTILINE)
    assert re.search(r"^1 +production .* plain", log, re.MULTILINE)
    assert "production=2" in said(up, "image", "publish", "golden:2")
    assert up.query("image", "publish", "golden:1", "--channel", "test")["channels"] == {"production": 2, "test": 1}
    assert "production=1" in said(up, "image", "rollback", "golden")
    assert "production=2" in said(up, "image", "rollback", "golden", "--to", "2")
    said(up, "image", "unpublish", "golden:test")
    link = up.query("link", "set", "--default", "golden:2")
    assert (link["channel"], link["version"]) == (None, 2)
    assert up.query("image", "note", "golden:2", "with Office")["note"] == "with Office"
    assert [version["number"] for version in up.query("image", "log", "golden", "--most", "1")] == [2]


def test_a_damaged_image_ends_verify_with_status_1_and_its_findings(golden: tuple[Up, Path]) -> None:
    up, folder = golden
    child = folder / "golden-2.vhd"
    child.rename(folder / "kept")
    done = up.bootlink("image", "verify", "golden", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["result"]["sound"] is False
    assert f"image golden is not sound: {child}" in done.stderr
    (folder / "kept").rename(child)
    table = said(up, "image", "verify", "golden")
    assert "golden-1.vhd" in table
    assert "golden-2.vhd" in table


def test_an_import_and_a_merge_tell_their_progress_and_the_files_that_they_leave(golden: tuple[Up, Path]) -> None:
    up, folder = golden
    qcow2 = folder / "other.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", folder / "golden.img", qcow2)
    done = up.bootlink("image", "import", "other", str(qcow2), "--note", "from elsewhere")
    assert done.returncode == 0, done.stderr
    assert "image.import other" in done.stderr  # no terminal: progress comes as lines
    assert "no checksum was given or found" in done.stderr
    problem, remedy = error_of(up.bootlink("image", "remove", "golden:1"))
    assert problem == "golden:2 stands on version 1 of image golden"
    assert "bootlink image merge golden:2" in remedy
    merged = said(up, "image", "merge", "golden:2")
    assert re.search(r"layers before +2", merged)
    assert re.search(r"layers now +1", merged)
    assert re.search(rf"not needed any more +{folder}/golden-2.vhd", merged)
    said(up, "image", "remove", "golden:1")
