"""libiscsi's tools and QEMU's iSCSI driver against the block store: independent initiators, real commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bootlink_disks import create_vhd_dynamic
from bootlink_events import BootId, target_iqn
from bootlink_wire.iscsi_digest import Digests
from lab.blockstore import MAC, Lab, digest, identity, make_image, note_sessions, plan, serving
from lab.tools import tool

SIZE = 16 << 20


def portal(lab: Lab) -> str:
    return f"iscsi://{lab.host}:{lab.port}"


def served(lab: Lab) -> str:
    """The client's disk as an image of QEMU's --image-opts."""
    address = f"file.portal={lab.host}:{lab.port},file.target={target_iqn(MAC)}"
    return f"driver=raw,file.driver=iscsi,file.transport=tcp,file.lun=0,{address}"


async def test_iscsi_ls_finds_the_clients_own_disk_and_a_stranger_finds_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, plan(make_image(tmp_path / "base.img", SIZE))) as lab:
        mine = await tool("iscsi-ls", "-s", "-i", identity(BootId.mint()), portal(lab))
        assert f"Target:iqn.2026-11.io.bootlink:52-54-00-00-00-01 Portal:{lab.host}:{lab.port},1" in mine
        assert re.search(r"Lun:0 +Type:DIRECT_ACCESS \(Size:15M\)", mine)  # it rounds the last address down
        assert "Target:" not in await tool("iscsi-ls", "-s", portal(lab))


async def test_iscsi_inq_reads_every_page(tmp_path: Path) -> None:
    async with serving(tmp_path, plan(make_image(tmp_path / "base.img", SIZE))) as lab:
        assert "Vendor:BOOTLINK" in await tool("iscsi-inq", lab.url())
        pages = await tool("iscsi-inq", "-e", "1", "-c", "0", lab.url())
        for page in set(re.findall(r"Page:(0x[0-9a-f]{2})", pages)) - {"0x86"}:  # which libiscsi cannot print
            await tool("iscsi-inq", "-e", "1", "-c", str(int(page, 16)), lab.url())
        assert "525400000001-0" in await tool("iscsi-inq", "-e", "1", "-c", "128", lab.url())


async def test_iscsi_readcapacity16_tells_the_size(tmp_path: Path) -> None:
    async with serving(tmp_path, plan(make_image(tmp_path / "base.img", SIZE))) as lab:
        said = await tool("iscsi-readcapacity16", lab.url())
        assert f"Total size:{SIZE}" in said
        assert "LOGICAL BLOCK LENGTH IN BYTES:512" in said


async def test_rule_10_libiscsi_reads_and_writes_with_header_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through QEMU's driver: libiscsi's own tools set the digest that they offer after they have read the URL's."""
    admitted = note_sessions(monkeypatch)
    base = make_image(tmp_path / "base.img", SIZE)
    async with serving(tmp_path, plan(base)) as lab:
        steps = [
            "write -P 0x5a 0 3M",
            "flush",
            "read -P 0x5a 0 3M",
            "write -P 0x22 5M 512k",
            "read -P 0x22 5M 512k",
        ]
        words = [word for step in steps for word in ("-c", step)]
        said = await tool("qemu-io", *words, "--image-opts", f"{served(lab)},file.header-digest=crc32c")
        assert "Pattern verification failed" not in said
        assert [session.digests for session in admitted] == [Digests(header=True)]
        assert not {"header_digest_wrong", "data_digest_wrong"} & set(lab.told.counters)


async def test_qemu_io_reads_what_it_wrote(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", SIZE)
    before = digest(base)
    async with serving(tmp_path, plan(base)) as lab:
        steps = [
            *("write -P 0x5a 0 64k", "flush", "read -P 0x5a 0 64k"),
            *("write -f -P 0x5b 66k 5k", "read -P 0x5b 66k 5k", "write -P 0x11 1M 3M", "read -P 0x11 1M 3M"),
            *("aio_write -P 0x22 5M 512k", "aio_write -P 0x23 6M 1k", "aio_flush", "read -P 0x22 5M 512k"),
            *("read -P 0x5a 0 64k", "read -P 0x23 6M 1k"),
        ]
        said = await tool("qemu-io", "-f", "raw", *(word for step in steps for word in ("-c", step)), lab.url())
        assert "Pattern verification failed" not in said
        again = await tool("qemu-io", "-f", "raw", "-c", "read -P 0x11 1M 3M", lab.url())
        assert "Pattern verification failed" not in again
    assert digest(base) == before, "the image's bytes have changed"


async def test_what_qemu_discards_reads_as_zeros_and_not_as_the_image(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", SIZE)
    before = digest(base)
    async with serving(tmp_path, plan(base)) as lab:
        steps = [
            *("discard 0 64k", "read -P 0 0 64k"),  # never written: the image's bytes must not show again
            *("write -P 0x5a 1M 1M", "discard 1M 512k", "read -P 0 1M 512k", "read -P 0x5a 1536k 512k"),
            *("write -z 4M 3M", "read -P 0 4M 3M", "write -z -u 8M 1025k", "read -P 0 8M 1025k"),  # WRITE SAME
            *("discard 9728k 512", "read -P 0 9728k 512"),
        ]
        words = [word for step in steps for word in ("-c", step)]
        said = await tool("qemu-io", "-d", "unmap", "-f", "raw", *words, lab.url())
        assert "Pattern verification failed" not in said
        assert "failed" not in said
        said = await tool("qemu-img", "map", "--output=json", "-f", "raw", lab.url())
        assert re.search(r'"start": 0, "length": 65536.*"zero": true', said), said
    assert digest(base) == before, "the image's bytes have changed"


async def test_qemu_img_finds_a_raw_image_identical(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", SIZE)
    before = digest(base)
    async with serving(tmp_path, plan(base), cache=2 << 20) as lab:
        said = await tool("qemu-img", "compare", "-f", "raw", "-F", "raw", str(base), lab.url())
        assert "Images are identical" in said
        assert lab.store.cache.used <= 2 << 20
    assert digest(base) == before


async def test_qemu_img_finds_a_dynamic_vhd_identical(tmp_path: Path) -> None:
    """QEMU reads the VHD by its own driver on one side, and through the block store on the other."""
    raw, vhd = make_image(tmp_path / "base.img", 8 << 20), tmp_path / "base.vhd"
    with raw.open("r+b") as sparse:
        sparse.seek(2 << 20)
        sparse.write(bytes(4 << 20))
    create_vhd_dynamic(vhd, raw)
    before = digest(vhd)
    async with serving(tmp_path, plan(vhd)) as lab:
        reference = f"driver=vpc,file.filename={vhd},force_size_calc=current_size"
        said = await tool("qemu-img", "compare", "--image-opts", reference, served(lab))
        assert "Images are identical" in said
    assert digest(vhd) == before


async def test_a_disk_that_qemu_filled_is_what_it_filled_it_with(tmp_path: Path) -> None:
    base, other = make_image(tmp_path / "base.img", SIZE), make_image(tmp_path / "other.img", SIZE, seed=2)
    before = digest(base)
    async with serving(tmp_path, plan(base, policy="keep")) as lab:
        await tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(other), lab.url())
        said = await tool("qemu-img", "compare", "-f", "raw", "-F", "raw", str(other), lab.url())
        assert "Images are identical" in said
    async with serving(tmp_path, plan(base, policy="keep")) as lab:
        said = await tool("qemu-img", "compare", "-f", "raw", "-F", "raw", str(other), lab.url())
        assert "Images are identical" in said
    assert digest(base) == before
