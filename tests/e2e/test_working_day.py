"""A working day of an administrator, from the command line alone, on a real `bootlink up` with real iSCSI sessions.

Each step is a row of what the product is for: an image is made from a master, a room boots it, a super client changes
it, the change is published while a PC runs, taken back, and what a restart threw away is brought back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_events import BootId, initiator_iqn, target_iqn
from lab.disks import MIB, digest, qemu_img, sparse_disk
from lab.iscsi import Initiator
from lab.registry import until
from lab.up import Up, error_of

pytestmark = pytest.mark.timeout(400)  # dozens of commands, each a process: 20 s, on a busy machine several times that

TEACHER, PUPIL = "52:54:00:00:00:01", "52:54:00:00:00:02"
SIZE = 16 * MIB
AT = 5 * MIB  # where the tests write


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with Up() as system:
        yield system


class Pc:
    """A client that boots again and again."""

    def __init__(self, up: Up, mac: str) -> None:
        self._up = up
        self.mac = mac
        self.boot_id = BootId.mint()

    @contextlib.asynccontextmanager
    async def boot(self, lun: int = 0) -> AsyncIterator[Initiator]:
        """One power-on: a newer boot id, a session to the disk, and a logout by pulling the plug."""
        self.boot_id = BootId.mint(after=self.boot_id)
        host, port = self._up.facts["services"]["blockstore"]["iscsi"].split(":")
        who: dict[str, Any] = {
            "name": initiator_iqn(self.mac, self.boot_id),
            "target": target_iqn(self.mac),
            "lun": lun,
        }
        session = await Initiator.logged_in(host, int(port), **who)
        try:
            yield session
        finally:
            await session.close()
            await asyncio.sleep(0.1)

    async def planned(self, version: int, policy: str = "discard") -> None:
        """Wait until the next boot would get this."""

        def is_so() -> bool:
            plan = self._up.query("client", "show", self.mac)["plan"]
            disk = plan["disks"][0] if plan["disks"] else {}
            return plan["delivered"] and (disk.get("version"), disk.get("policy")) == (version, policy)

        await until(is_so, f"{self.mac} to be given version {version}, policy {policy}")
        await asyncio.sleep(0.2)  # from the bucket to the block store


async def test_a_working_day(up: Up, tmp_path: Path) -> None:
    master = sparse_disk(tmp_path / "master.img", SIZE)
    golden = master.read_bytes()
    games = sparse_disk(tmp_path / "games.img", 4 * MIB, seed=2)
    up.query("image", "import", "win11", str(master), "--note", "as installed")
    up.query("image", "add", "games", str(games))
    up.query("client", "add", TEACHER, "--name", "teacher")
    up.query("client", "add", PUPIL, "--name", "pupil")
    up.query("link", "set", "--default", "win11")
    up.query("link", "set", "--default", "games", "--lun", "1")
    teacher, pupil = Pc(up, TEACHER), Pc(up, PUPIL)
    await pupil.planned(1)

    async with pupil.boot() as session:
        assert await session.read(AT, 4096) == golden[AT : AT + 4096]

    async with pupil.boot(lun=1) as session:
        assert await session.read(0, MIB) == games.read_bytes()[:MIB]

    # The teacher's PC changes the image.
    up.query("client", "super", "teacher", "--image", "win11")
    await teacher.planned(1, "super")
    lesson = b"lesson 1".ljust(4096, b".")
    async with teacher.boot() as session:
        await session.write(AT, lesson, fua=True)
    async with teacher.boot() as session:  # a restart loses nothing of a super client's
        assert await session.read(AT, 4096) == lesson
    made = up.query("client", "commit", "teacher", "--note", "lesson 1")
    assert (made["state"], made["result"]["version"], made["result"]["parent"]) == ("done", 2, 1)
    await teacher.planned(1)  # published is another thing

    # It is published while the pupil's PC runs, which stays on what it booted.
    async with pupil.boot() as session:
        up.query("image", "publish", "win11:2")
        await pupil.planned(2)
        assert await session.read(AT, 4096) == golden[AT : AT + 4096]
        await session.write(AT + MIB, bytes(range(256)) * 16)
    async with pupil.boot() as session:
        assert await session.read(AT, 4096) == lesson
        assert await session.read(AT + MIB, 4096) == golden[AT + MIB : AT + MIB + 4096]
        essay = b"my essay".ljust(4096, b"!")
        await session.write(AT + MIB, essay, fua=True)
        lost = pupil.boot_id

    # The restart threw the essay away; it comes back with the boot after that, and may become a version.
    async with pupil.boot() as session:
        assert await session.read(AT + MIB, 4096) == golden[AT + MIB : AT + MIB + 4096]
    assert {one["boot_id"] for one in up.query("client", "undo-reboot", "pupil")} == {str(lost)}
    async with pupil.boot() as session:
        assert await session.read(AT + MIB, 4096) == essay
    held = up.query("client", "writebacks", "pupil")
    back = next(one for one in held if one["state"] in ("idle", "in_use"))
    made = up.query("client", "commit", "pupil", "--boot", back["boot_id"], "--note", "with the essay")
    assert (made["result"]["version"], made["result"]["parent"]) == (3, 2)

    # Taken back, all are where they were.
    up.query("image", "rollback", "win11")
    await pupil.planned(1)
    async with pupil.boot() as session:
        assert await session.read(AT, 4096) == golden[AT : AT + 4096]

    # Every version comes out as one file, in every format; qemu-img reads them all the same.
    expected = bytearray(golden)
    expected[AT : AT + 4096] = lesson
    expected[AT + MIB : AT + MIB + 4096] = essay
    (reference := tmp_path / "expected.img").write_bytes(expected)
    for form, driver in {"vhd": "vpc", "vhdx": "vhdx", "raw": "raw", "qcow2": "qcow2"}.items():
        out = tmp_path / f"out.{form}"
        up.query("image", "export", "win11:3", str(out), "--format", form)
        # A dynamic VHD's size is the footer's; qemu-img rounds it up to a geometry unless it is told not to.
        options = "driver=vpc,force_size_calc=current_size,file.filename=" if form == "vhd" else ""
        source = ["--image-opts", f"{options}{out}", f"driver=raw,file.filename={reference}"]
        plain = ["-f", driver, "-F", "raw", str(out), str(reference)]
        qemu_img("compare", *(source if form == "vhd" else plain))

    log = up.query("image", "log", "win11")
    assert [(entry["number"], entry["note"]) for entry in log] == [
        (3, "with the essay"),
        (2, "lesson 1"),
        (1, "as installed"),
    ]
    problem, remedy = error_of(up.bootlink("image", "remove", "win11"))
    assert "link of everybody" in problem, problem
    assert remedy
    assert digest(master) == digest(sparse_disk(tmp_path / "again.img", SIZE)), "the master was never touched"
