"""Linux's own initiator, in QEMU: with digests of both kinds and mutual CHAP it mounts, writes, trims and unmounts."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from pathlib import Path

import pytest

from bootlink_blockstore.access import Access
from bootlink_events import BootDiskDetached, BootId, ClusterKey, target_iqn
from bootlink_wire.iscsi_digest import Digests
from guest import stage
from guest.demo import CACHE
from guest.kernel import unpack_kernel
from guest.toolbox import run
from lab.blockstore import MAC, digest, identity, note_sessions, plan, serving
from lab.tools import tool

pytestmark = pytest.mark.timeout(300)  # 15 s of emulation, on a busy machine several times that

KEY = ClusterKey(b"the cluster key of this test: 32")
OWN = Path(stage.__file__).parent / "initiator"
GATEWAY = "10.0.2.2"  # QEMU's user network: this machine's loopback
SIZE = 64 << 20
CONTENT = hashlib.shake_128(b"golden").digest(8 << 20)


def golden(folder: Path) -> Path:
    """An ext4 file system with one file."""
    files = folder / "files"
    files.mkdir()
    (files / "golden").write_bytes(CONTENT)
    raw = folder / "golden.img"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-E", "nodiscard,lazy_itable_init=0", "-d", files, raw, f"{SIZE >> 10}k")
    with raw.open("r+b") as image:
        image.seek(510)
        image.write(b"\x55\xaa")  # ext4 leaves the first KiB alone; an image of ours has a boot signature
    return raw


async def guest(kernel: Path, initramfs: Path, words: dict[str, str]) -> str:
    """What the guest says until it switches itself off."""
    command_line = " ".join(
        (
            "console=ttyS0 quiet mitigations=off nokaslr panic=-1 tsc=reliable cryptomgr.notests rdinit=/init",
            *_pairs(words),
        )
    )
    process = await asyncio.create_subprocess_exec(
        *("qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-m", "256", "-nographic", "-no-reboot"),
        *("-kernel", str(kernel), "-initrd", str(initramfs), "-append", command_line),
        *("-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile="),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(240):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode(errors="replace")


def _pairs(words: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in words.items()]


async def test_linux_writes_and_trims_its_disk_with_digests_and_chap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admitted = note_sessions(monkeypatch)
    kernel = await asyncio.to_thread(unpack_kernel, CACHE / "kernel", print)
    archive = tmp_path / "initramfs.zst"
    archive.write_bytes(await asyncio.to_thread(stage.initramfs, tmp_path / "initramfs", kernel, OWN))
    shutil.rmtree(tmp_path / "initramfs")
    base = await asyncio.to_thread(golden, tmp_path)
    before = digest(base)
    boot = BootId.mint()
    known = KEY.credentials(MAC, boot)
    async with serving(tmp_path, plan(base, chap="mutual"), access=Access(KEY)) as lab:
        said = await guest(
            kernel.image,
            archive,
            {
                "initiator": identity(boot),
                "target": target_iqn(MAC),
                "portal": GATEWAY,
                "port": str(lab.port),
                "user": known.user,
                "secret": known.secret,
                "target_user": known.target_user,
                "target_secret": known.target_secret,
            },
        )
        told = dict(re.findall(r"guest: (\w+):? (.*?)\r?$", said, re.MULTILINE))
        content = hashlib.sha256(CONTENT).hexdigest()
        assert "guest: done" in said, said
        assert told["golden"].split()[0] == told["written"].split()[0] == content, said
        assert told["logged"] == "in, provisioning unmap", said
        trimmed = re.search(r"(\d+) bytes", told["trimmed"].replace("(", ""))
        assert trimmed is not None, said
        assert int(trimmed[1]) > len(CONTENT), said  # the file that was removed, and what was free before
        assert told["errors"] == "0", said
        (session,) = admitted
        assert session.digests == Digests(header=True, data=True)
        assert session.admission is not None
        assert session.admission.proved
        assert not session.firmware
        assert not {name for name in lab.told.counters if "digest" in name or name.endswith("_unforeseen")}
        async with asyncio.timeout(10):
            while not lab.told.of(BootDiskDetached):
                await asyncio.sleep(0.05)
        # What it left is read by another initiator, and judged by the file system's own tools.
        copy = tmp_path / "copy.img"
        where = f"file.transport=tcp,file.portal={lab.host}:{lab.port},file.target={target_iqn(MAC)},file.lun=0"
        who = f"file.initiator-name={identity(boot)},file.user={known.user},file.password-secret=chap"
        secret = f"secret,id=chap,data={known.secret}"
        served = f"driver=raw,file.driver=iscsi,{where},{who},file.header-digest=crc32c"
        await tool("qemu-img", "convert", "--object", secret, "--image-opts", "-O", "raw", served, str(copy))
        run("e2fsck", "-f", "-n", copy)
        out = tmp_path / "out"
        run("debugfs", "-R", f"dump /written {out}", copy)
        assert hashlib.sha256(out.read_bytes()).hexdigest() == content
    assert digest(base) == before, "the image's bytes have changed"
