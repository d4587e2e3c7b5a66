"""What the process that works on image files cannot do, and what is left when it must end or the disk is full."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bootlink_disks import DiskError, create_vhd_dynamic, probe
from bootlink_registry import imaging
from bootlink_registry.imaging import convert, disks, landlock, qemu
from bootlink_registry.imaging.work import problem_of
from bootlink_registry.problems import Problem
from lab.disks import MIB, qemu_img, sparse_disk
from lab.filesystem import small

SECONDS = 20.0

TRY = """
import json, os, socket, sys
from pathlib import Path
from bootlink_registry.imaging.confinement import MEMORY, confine
target, elsewhere, port, network = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "network"
confine(os.getppid(), target, network=network, seconds=1000)
can = {}
def attempt(what, function):
    try:
        function()
    except (OSError, MemoryError) as error:
        can[what] = False
    else:
        can[what] = True
attempt("write target", lambda: target.write_bytes(b"x"))
attempt("rename in its folder", lambda: target.rename(target.with_name("other")))
attempt("write elsewhere", lambda: open(elsewhere, "ab"))
attempt("remove elsewhere", lambda: os.unlink(elsewhere))
attempt("read elsewhere", lambda: open(elsewhere, "rb"))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", port), 1))
attempt("take memory", lambda: bytearray(MEMORY))
can["nice"] = os.nice(0) > 0
print(json.dumps(can))
"""


@pytest.mark.parametrize("network", [False, True])
def test_the_child_changes_its_targets_folder_alone_and_reaches_nobody(network: bool, tmp_path: Path) -> None:
    assert landlock.version() > 0, "this kernel has no Landlock: Linux 5.13 and later have it"
    (tmp_path / "store").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"")
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = (tmp_path / "store" / "target", tmp_path / "elsewhere", server.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", TRY, *map(str, where), "network" if network else "none"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "write target": True,
        "rename in its folder": True,
        "write elsewhere": False,
        "remove elsewhere": False,
        "read elsewhere": True,
        "connect": network,
        "take memory": False,
        "nice": True,
    }


def test_qemu_img_could_not_follow_a_name_if_it_were_let_at_one(tmp_path: Path) -> None:
    """The first line is that such a file never gets to it (test_imaging_convert); this is the second."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    secret = sparse_disk(tmp_path / "in" / "secret.img", MIB)
    qemu_img("create", "-f", "qcow2", "-b", secret, "-F", "raw", tmp_path / "in" / "a.qcow2")
    with (tmp_path / "in" / "a.qcow2").open("rb") as source, pytest.raises(Problem, match="Permission denied"):
        qemu.convert(source.fileno(), "qcow2", tmp_path / "out" / "new", "raw", size=MIB)
    assert not any((tmp_path / "out").iterdir())


TRY_TOOL = """
import json, os, sys
from pathlib import Path
from bootlink_registry.imaging.confinement import confine_tool
target, beside = Path(sys.argv[1]), Path(sys.argv[1]).with_name("beside")
can = {}
def attempt(what, do):
    try:
        do()
    except OSError:
        can[what] = False
    else:
        can[what] = True
source = os.open(sys.argv[2], os.O_RDONLY)
confine_tool(os.getppid(), Path(sys.executable), source, target, size=1 << 20, seconds=60)
attempt("write target", lambda: target.write_bytes(b"x"))
attempt("read beside", lambda: open(beside, "rb"))
attempt("write beside", lambda: open(beside, "ab"))
attempt("take the place of beside", lambda: target.rename(beside))
attempt("remove beside", lambda: beside.unlink())
attempt("make a file", lambda: target.with_name("other").write_bytes(b""))
print(json.dumps(can))
"""


def test_qemu_img_gets_the_file_that_it_writes_and_nothing_beside_it(tmp_path: Path) -> None:
    """Beside it lie the other layers of the image, which PCs read."""
    for name in ("target", "beside", "source"):
        (tmp_path / name).write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", TRY_TOOL, str(tmp_path / "target"), str(tmp_path / "source")],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    can = json.loads(done.stdout)
    assert can.pop("write target") is True
    assert not any(can.values()), can


def test_qemu_img_writes_no_more_than_the_disk_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "SLACK", 0)
    source = tmp_path / "a.img"
    source.write_bytes(os.urandom(4 * MIB))
    with source.open("rb") as file, pytest.raises(Problem, match=r"File too large|signal|limits"):
        qemu.convert(file.fileno(), "raw", tmp_path / "new", "raw", size=MIB)


def test_qemu_img_has_room_for_all_its_threads(tmp_path: Path) -> None:
    raw = sparse_disk(tmp_path / "raw.img", 64 * MIB)
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, tmp_path / "source.qcow2")
    target = tmp_path / "target.img"
    target.touch()
    fd = os.open(tmp_path / "source.qcow2", os.O_RDONLY)
    try:
        many = ("convert", "-m", "16", "-W", "-f", "qcow2", "-O", "raw", f"/proc/self/fd/{fd}", str(target))
        for _ in range(8):  # one of six failed where each thread had an arena of its own
            qemu._run(many, fd, target, size=64 * MIB)
    finally:
        os.close(fd)
    assert target.read_bytes() == raw.read_bytes()


def test_without_qemu_img_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu_img("create", "-f", "qcow2", tmp_path / "a.qcow2", "1M")
    monkeypatch.setenv("PATH", str(tmp_path))
    request = imaging.Convert(source=tmp_path / "a.qcow2", target=tmp_path / "new", format="vhd")
    with pytest.raises(Problem, match="is not installed") as caught:
        convert.convert(request, lambda *_: None)
    assert (caught.value.status, "qemu-utils" in caught.value.remedy) == (501, True)


@pytest.mark.parametrize("format_", ["raw", "vhd", "vhdx", "qcow2"])
def test_a_disk_that_is_full_is_told_and_nothing_is_left(format_: imaging.TargetFormat, tmp_path: Path) -> None:
    source = tmp_path / "source.img"
    source.write_bytes(os.urandom(510) + b"\x55\xaa" + os.urandom(12 * MIB - 512))
    layer = imaging.LayerRef.model_validate(probe(source))
    with small("tmpfs", tmp_path, 8 * MIB) as folder:
        with pytest.raises(DiskError) as caught:
            disks.flatten(imaging.Flatten(layers=(layer,), target=folder / "new", format=format_), lambda *_: None)
        assert problem_of(caught.value).status == 507
        assert list(folder.iterdir()) == []


def test_a_disk_that_is_full_for_qemu_img_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "noise.img").write_bytes(os.urandom(12 * MIB))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", tmp_path / "noise.img", tmp_path / "a.qcow2")
    for format_ in ("vhd", "vhdx", "raw"):
        with small("tmpfs", tmp_path, 8 * MIB) as folder:
            request = imaging.Convert(source=tmp_path / "a.qcow2", target=folder / "new", format=format_)
            with pytest.raises(Problem, match="the disk is full") as caught:
                convert.convert(request, lambda *_: None)
            assert caught.value.status == 507
            assert list(folder.iterdir()) == []


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    layer = imaging.LayerRef.model_validate(probe(sparse_disk(tmp_path / "a.img", MIB)))
    with pytest.raises(Problem, match="there is no such folder"):
        await imaging.run(imaging.Flatten(layers=(layer,), target=tmp_path / "none" / "new", format="raw"))


async def test_a_layer_that_changes_meanwhile_is_a_problem_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "a.img"
    with source.open("wb") as file:
        file.truncate(8 << 30)
        file.seek(510)
        file.write(b"\x55\xaa")
    layer = imaging.LayerRef.model_validate(probe(source))
    once: list[bool] = []

    async def progress(_done: int, _total: int | None) -> None:
        if not once:
            once.append(True)
            os.utime(source)

    with pytest.raises(Problem, match="another program is writing"):
        await imaging.run(imaging.Compare(a=(layer,), b=(layer,)), progress)
    once.clear()
    layer = imaging.LayerRef.model_validate(probe(source))
    with pytest.raises(Problem, match="another program is writing"):
        await imaging.run(imaging.Merge(layers=(layer,), target=tmp_path / "new"), progress)
    assert [path.name for path in tmp_path.iterdir()] == ["a.img"]


async def test_a_child_that_dies_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    with path.open("wb") as file:
        file.truncate(64 << 30)

    async def progress(_done: int, _total: int | None) -> None:
        for pid in children(os.getpid()):
            os.kill(pid, 9)

    with pytest.raises(Problem, match="ended by itself") as caught:
        await imaging.run(imaging.Hash(path=path), progress)
    assert caught.value.status == 500


def children(parent: int) -> list[int]:
    """The processes that work on image files for `parent`."""
    try:
        found = list(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))
        return [pid for pid in found if b"bootlink_registry.imaging" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except FileNotFoundError:
        return []


def test_the_child_and_its_tool_die_with_the_registry(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "qemu-img"
    tool.write_text("#!/bin/sh\nexec sleep 1000\n")
    tool.chmod(0o755)
    qemu_img("create", "-f", "qcow2", tmp_path / "a.qcow2", "1M")
    script = "import asyncio, sys; from bootlink_registry import imaging; from pathlib import Path\n"
    script += "source, target = map(Path, sys.argv[1:])\n"
    script += "asyncio.run(imaging.run(imaging.Convert(source=source, target=target, format='vhd')))"
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", script, str(tmp_path / "a.qcow2"), str(tmp_path / "new")]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as registry:
        deadline = time.monotonic() + SECONDS
        pids: list[int] = []
        while len(pids) < 2:
            assert time.monotonic() < deadline, "the tool was not started"
            time.sleep(0.02)
            pids = [pid for child in children(registry.pid) for pid in (child, *sleepers(child))]
        registry.kill()
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "they live on"
        time.sleep(0.02)


def sleepers(parent: int) -> list[int]:
    found = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return [pid for pid in found if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep")]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_event_loop_never_waits(tmp_path: Path) -> None:
    """Work on files is somebody else's: the loop that asked for it goes on at once."""
    source = sparse_disk(tmp_path / "a.img", 64 * MIB)
    base = create_vhd_dynamic(tmp_path / "a.vhd", source)
    layer = imaging.LayerRef.model_validate(base)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await imaging.run(imaging.Flatten(layers=(layer,), target=tmp_path / "new", format="raw"))
    ticking.cancel()
    assert ticks > 5, "as one that waited would have ticked once or twice"


def test_what_it_is_told_does_not_hold_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOOTLINK_DATABASE_URL", "postgresql://me:geheim@host/db")
    seen: dict[str, Any] = {}
    real = asyncio.create_subprocess_exec

    async def spy(*command: Any, **more: Any) -> Any:
        seen.update(more["env"])
        return await real(*command, **more)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spy)
    asyncio.run(imaging.run(imaging.Hash(path=sparse_disk(tmp_path / "a.img", MIB))))
    assert seen
    assert not any(name.startswith("BOOTLINK_") for name in seen)
