"""The loader folders: what they serve, in which order, and how much they hold."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bootlink_tftp import folders as module
from bootlink_tftp.folders import FileMissing, FileRefused, Folders


def test_the_first_folder_that_has_a_file_serves_it(tmp_path: Path) -> None:
    own, debian = tmp_path / "own", tmp_path / "debian"
    own.mkdir()
    debian.mkdir()
    (own / "undionly.kpxe").write_bytes(b"own")
    (debian / "undionly.kpxe").write_bytes(b"debian")
    (debian / "snponly.efi").write_bytes(b"efi")
    folders = Folders([own, debian])
    assert folders.read(["undionly.kpxe"]) == b"own"
    assert folders.read(["snponly.efi"]) == b"efi"
    assert folders.names() == ["snponly.efi", "undionly.kpxe"]


def test_a_missing_folder_is_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        Folders([tmp_path / "absent"]).read(["x"])
    assert Folders([tmp_path / "absent"]).names() == []


def test_a_name_in_another_case_is_found_in_every_segment(tmp_path: Path) -> None:
    (tmp_path / "Boot").mkdir()
    (tmp_path / "Boot" / "BCD").write_bytes(b"bcd")
    assert Folders([tmp_path]).read(["boot", "bcd"]) == b"bcd"


def test_the_exact_spelling_wins_over_another_case(tmp_path: Path) -> None:
    (tmp_path / "A").write_bytes(b"upper")
    (tmp_path / "a").write_bytes(b"lower")
    assert Folders([tmp_path]).read(["a"]) == b"lower"
    assert Folders([tmp_path]).read(["A"]) == b"upper"


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "loader"
    file.write_bytes(b"one")
    folders = Folders([tmp_path])
    assert folders.read(["loader"]) == b"one"
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert folders.read(["loader"]) == b"two"


def test_a_file_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "loader").write_bytes(b"contents")
    folders = Folders([tmp_path])
    assert folders.read(["loader"]) is folders.read(["loader"])


def test_the_cache_keeps_to_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE_MAX", 250)
    folders = Folders([tmp_path])
    for name in "abcd":
        (tmp_path / name).write_bytes(name.encode() * 100)
    first = folders.read(["a"])
    for name in "bcd":
        folders.read([name])
    assert folders.read(["a"]) == first
    assert folders.read(["a"]) is not first, "it had to make room"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_MAX", 10)
    (tmp_path / "image.iso").write_bytes(bytes(11))
    with pytest.raises(FileRefused, match="larger"):
        Folders([tmp_path]).read(["image.iso"])


def test_a_folder_a_fifo_and_a_link_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    folders = Folders([tmp_path])
    for name in ("folder", "fifo", "link"):
        with pytest.raises(FileRefused):
            folders.read([name])
    assert folders.names() == ["real"]


def test_a_link_in_the_users_folder_does_not_hide_the_next_folders_file(tmp_path: Path) -> None:
    own, debian = tmp_path / "own", tmp_path / "debian"
    own.mkdir()
    debian.mkdir()
    (own / "loader").symlink_to("/etc/hostname")
    (debian / "loader").write_bytes(b"debian")
    assert Folders([own, debian]).read(["loader"]) == b"debian"


def test_a_file_that_cannot_be_opened_now_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "undionly.kpxe").write_bytes(b"loader")

    def no_descriptor(*args: object, **more: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", no_descriptor)
    with pytest.raises(FileRefused, match=r"undionly.kpxe cannot be read \(Too many open files\)"):
        Folders([tmp_path]).read(("undionly.kpxe",))
