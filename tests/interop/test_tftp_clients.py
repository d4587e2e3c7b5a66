"""Real TFTP clients against our service: curl, atftp, tftp-hpa, busybox and tftpy, over good links and bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.tftp import address_of, loader_bytes, serving
from lab.tftp_clients import CLIENTS, curl, fetch, hpa
from lab.udp_proxy import Impairment, proxied

ROLL_OVER = 40 << 20  # bytes: 81,920 blocks of 512, beyond 65,535


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_real_client_gets_every_byte(tmp_path: Path, client: str) -> None:
    async with serving(tmp_path) as chassis:
        sizes = {"odd": 74_213, "multiple": 512 * 40, "of1428": 1428 * 20, "empty-block": 512, "small": 1}
        for name, size in sizes.items():
            (tmp_path / "loaders" / name).write_bytes(loader_bytes(size))
            await fetch(CLIENTS[client], address_of(chassis), name, tmp_path / "got")
            assert (tmp_path / "got").read_bytes() == loader_bytes(size), name
        assert chassis.health.counters["tftp_sent"] == len(sizes)


@pytest.mark.parametrize("client", ["curl-no-options", "atftp", "busybox", "hpa"])
async def test_block_numbers_roll_over_for_a_real_client(tmp_path: Path, client: str) -> None:
    async with serving(tmp_path) as chassis:
        contents = loader_bytes(1 << 16) * (ROLL_OVER >> 16)
        (tmp_path / "loaders" / "large").write_bytes(contents)
        await fetch(CLIENTS[client], address_of(chassis), "large", tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == contents


@pytest.mark.parametrize("client", ["curl-1428", "atftp-windowsize", "busybox-1428", "tftpy-1428"])
async def test_a_real_client_gets_every_byte_over_a_bad_link(tmp_path: Path, client: str) -> None:
    bad = Impairment(lost=0.02, repeated=0.05, late=0.05)
    async with serving(tmp_path) as chassis, proxied(address_of(chassis), bad, seed=7) as proxy:
        await fetch(CLIENTS[client], proxy.address, "undionly.kpxe", tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == loader_bytes(74_213)


async def test_a_text_arrives_in_netascii(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        (tmp_path / "loaders" / "text").write_bytes(b"one\ntwo\n")
        await fetch(hpa("ascii"), address_of(chassis), "text", tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == b"one\ntwo\n", "the client turns it back"


async def test_a_real_client_understands_that_a_file_is_missing(tmp_path: Path) -> None:
    async with serving(tmp_path) as chassis:
        with pytest.raises(AssertionError, match=r"curl: \(68\)"):  # CURLE_TFTP_NOTFOUND
            await fetch(curl(), address_of(chassis), "missing.efi", tmp_path / "got")


async def test_a_real_client_cannot_upload(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b"x")
    async with serving(tmp_path) as chassis:
        host, port = address_of(chassis)
        upload = ["curl", "--silent", "--show-error", "--upload-file", str(tmp_path / "upload")]
        with pytest.raises(AssertionError):
            await fetch(lambda *_: [*upload, f"tftp://{host}:{port}/upload"], (host, port), "upload", tmp_path)
        assert not (tmp_path / "loaders" / "upload").exists()
