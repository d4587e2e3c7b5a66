"""`bootlink link set --boot ...` and the menu's entries without an image, from the command line."""

from __future__ import annotations

import re

import pytest

from lab.disks import MIB, sparse_disk
from lab.up import Up, error_of

MAC = "52:54:00:aa:00:07"


@pytest.fixture(scope="module")
def room(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Up:
    """The system with an image and a client of its own."""
    disk = sparse_disk(tmp_path_factory.mktemp("images") / "tools.img", 4 * MIB)
    up.query("image", "add", "starting", str(disk))
    up.query("client", "add", MAC, "--name", "starter", "--group", "starters")
    return up


def said(up: Up, *arguments: str) -> str:
    done = up.bootlink(*arguments)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def test_a_pc_is_linked_to_its_own_disk_to_the_shell_and_to_a_kernel(room: Up) -> None:
    assert "boots its own disk" in said(room, "link", "set", "starter", "--boot", "local")
    assert "client starter 0 its own disk" in said(room, "link", "list")
    assert "boots its own disk" in said(room, "client", "show", "starter")
    assert "boots iPXE's shell" in said(room, "link", "set", "--group", "starters", "--boot", "shell")
    assert "iPXE's shell" in said(room, "group", "show", "starters")
    kernel = ("--kernel", "linux/vmlinuz", "--initrd", "linux/initrd.img", "--initrd", "extra.cpio")
    shown = said(room, "link", "set", "starter", "--boot", "kernel", *kernel, "--arguments", "quiet host={client}")
    assert "boots kernel linux/vmlinuz" in shown
    assert "initrds linux/initrd.img, extra.cpio" in shown
    assert "arguments quiet host={client}" in shown
    assert room.query("link", "show", "starter")["start"]["initrds"] == ["linux/initrd.img", "extra.cpio"]


def test_a_disk_may_be_started_by_a_file_and_stay_attached(room: Up) -> None:
    shown = said(
        room, "link", "set", "starter", "starting", "--policy", "keep", "--filename", "EFI/a.efi", "--keep-san"
    )
    assert "boots starts EFI/a.efi; stays attached when it does not boot" in shown
    assert "starting:production" in said(room, "client", "show", "starter")
    assert room.query("link", "set", "starter", "starting")["start"] is None


def test_a_menu_offers_the_own_disk(room: Up) -> None:
    room.query("link", "set", "starter", "starting")
    shown = said(room, "link", "menu", "add", "--client", "starter", "own", "--boot", "local", "--title", "Own disk")
    assert "own Own disk its own disk" in shown
    assert "another" in said(room, "link", "menu", "add", "--client", "starter", "another", "starting")
    said(room, "link", "menu", "clear", "--client", "starter")


def test_what_does_not_go_together_is_told(room: Up) -> None:
    done = room.bootlink("link", "set", "starter", "starting", "--boot", "local")
    assert done.returncode == 2
    assert "boots no image" in " ".join(done.stderr.split())
    problem, remedy = error_of(room.bootlink("link", "set", "starter", "--boot", "kernel"))
    assert "needs the kernel's file" in problem
    assert remedy == "name it"
    for asked in (
        ("starting", "--kernel", "linux/vmlinuz"),
        ("starting", "--arguments", "quiet"),
        ("starting", "--keep-san"),
        ("--boot", "shell", "--initrd", "a.cpio"),
        ("--boot", "local", "--filename", "EFI/a.efi"),
        ("--boot", "local", "--keep-san"),
        ("--boot", "kernel", "--kernel", "linux/vmlinuz", "--chap", "mutual"),
        ("--boot", "kernel", "--kernel", "../vmlinuz"),
        ("--boot", "kernel", "--kernel", "linux/vmlinuz", "--arguments", "a;b"),
    ):
        told = " ".join(error_of(room.bootlink("link", "set", "starter", *asked)))
        assert not re.search(r"\bmode\b|keep_san|initrds|\bstart\b", told), f"{told} (words of the API) for {asked}"
    kernel = ("--boot", "kernel", "--kernel", "linux/vmlinuz")
    problem, _ = error_of(room.bootlink("link", "set", "starter", *kernel, "--initrd", "ok", "--initrd", "a b"))
    assert problem.startswith("--initrd: 'a b' is no boot file")
    problem, _ = error_of(
        room.bootlink("link", "menu", "add", "--client", "starter", "own", "--boot", "kernel", "--kernel", "$x")
    )
    assert problem.startswith("--kernel: '$x' is no boot file")


def test_a_pc_without_a_disk_shows_nothing_of_targets(room: Up) -> None:
    disk_facts = ("target", "portals", "keeps on")
    for how in (("--boot", "local"), ("--boot", "kernel", "--kernel", "linux/vmlinuz")):
        said(room, "link", "set", "starter", *how)
        shown = said(room, "client", "show", "starter")
        assert "boots" in shown
        assert not [fact for fact in disk_facts if f" {fact} " in shown], shown
    said(room, "link", "set", "starter", "starting")
    assert " target iqn." in said(room, "client", "show", "starter")
