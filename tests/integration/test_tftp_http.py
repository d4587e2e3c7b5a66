"""The boot files over HTTP on a real socket: the same files and scripts, confined to the same folders, bounded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bootlink.engines.nats import free_port
from bootlink_events import PLANS_BUCKET, BootHello, initiator_iqn, mac_token
from bootlink_runtime import Chassis, StartupError, follow
from bootlink_tftp import TftpSettings, chronicle, folders, web
from lab.boot_plans import BOOT_ID, MAC, plan, refused
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.registry import until
from lab.tftp import address_of, get, loader_bytes, serving, snapshot

TOKEN = "52-54-00-12-34-56"
SCRIPT = f"/boot/{BOOT_ID}/{TOKEN}.ipxe"


@contextlib.asynccontextmanager
async def both(folder: Path, **settings: Any) -> AsyncIterator[tuple[Chassis, httpx.AsyncClient]]:
    """The service with its HTTP port, and a client of that."""
    port = free_port("127.0.0.1")
    async with serving(folder, http_port=port, **settings) as chassis:
        assert address_of(chassis, "http") == ("127.0.0.1", port)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield chassis, client


def root_of(chassis: Chassis) -> str:
    host, port = address_of(chassis, "http")
    return f"http://{host}:{port}"


async def test_a_loader_is_the_same_as_over_tftp_whole_in_parts_and_by_its_size(tmp_path: Path) -> None:
    async with both(tmp_path) as (chassis, http):
        whole = await http.get(f"/boot/{BOOT_ID}/undionly.kpxe")
        assert whole.status_code == 200
        assert whole.content == loader_bytes(74_213) == await get(address_of(chassis), "undionly.kpxe")
        await until(lambda: chassis.health.counters["tftp_sent"] == 2, "the one over HTTP, and the one over TFTP")
        head = await http.head("/SNPONLY.efi")
        assert (head.headers["content-length"], head.headers["content-type"]) == ("146800", "application/efi")
        part = await http.get("/snponly.efi", headers={"Range": "bytes=1000-1999"})
        assert part.status_code == 206
        assert part.content == loader_bytes(146_800)[1000:2000]
        behind = await http.get("/snponly.efi", headers={"Range": "bytes=146800-"})
        assert (behind.status_code, behind.headers["content-range"]) == (416, "bytes */146800")
        assert chassis.health.counters["tftp_sent"] == 2, "neither a size nor a part is a loader that was sent"


async def test_a_script_that_came_over_http_leads_back_over_http(tmp_path: Path) -> None:
    snapshot(tmp_path / "data", refused("no_link"))
    async with both(tmp_path) as (chassis, http):
        script = (await http.get(SCRIPT)).text
        assert f"chain --autofree --replace {root_of(chassis)}{SCRIPT} ||" in script
        assert f"chain --autofree --replace {root_of(chassis)}/" in (await http.get("/autoexec.ipxe")).text


async def test_a_setting_sends_who_came_by_tftp_to_http(tmp_path: Path) -> None:
    snapshot(tmp_path / "data", plan())
    async with both(tmp_path, script_urls="http") as (chassis, _):
        over_tftp = (await get(address_of(chassis), SCRIPT)).decode()
        assert f"chain --autofree --replace {root_of(chassis)}/boot/" in over_tftp
        assert "tftp://" not in over_tftp
    with pytest.raises(ValueError, match="BOOTLINK_TFTP_HTTP_PORT"):
        TftpSettings(script_urls="http")


async def test_nothing_outside_the_folders_is_served(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"the secret itself")
    names = ("/link", "/folder", "/%2e%2e/secret", "/..%2fsecret", "/%5c..%5csecret", "/a%00b", "//host/x", "/C:/x")
    async with both(tmp_path) as (chassis, http):
        (tmp_path / "loaders" / "link").symlink_to(tmp_path / "secret")
        (tmp_path / "loaders" / "folder").mkdir()
        for name in names:
            answer = await http.get(f"{root_of(chassis)}{name}")
            assert answer.status_code == 403, name
            assert b"the secret itself" not in answer.content
        missing = await http.get("/missing.efi")
        assert (missing.status_code, missing.text) == (404, "no file missing.efi here\n")
        assert (await http.post("/tiny", content=b"x")).status_code == 405
        assert (await http.get("/tiny")).content == loader_bytes(10), "it serves on"


async def test_a_file_too_large_for_memory_is_sent_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "FILE_MAX", 1 << 20)
    large = os.urandom((3 << 20) + 17)
    async with both(tmp_path) as (chassis, http):
        (tmp_path / "loaders" / "initrd.img").write_bytes(large)
        assert (await http.get("/initrd.img")).content == large
        assert (await http.get("/initrd.img", headers={"Range": "bytes=-100"})).content == large[-100:]
        assert (await http.head("/initrd.img")).headers["content-length"] == str(len(large))
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            await http.get("/initrd.img", headers={"Range": "bytes=5-9"})
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2, "each was closed"
        assert chassis.health.counters["http_internal_errors"] == 0


async def test_a_file_that_fails_is_not_called_the_clients_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(folders, "FILE_MAX", 1 << 20)
    monkeypatch.setattr(
        chronicle.Chronicle,
        "not_delivered",
        lambda self, boot_id, stage, file, outcome, **_: told.append(outcome.detail),
    )
    async with both(tmp_path) as (_, http):
        file = tmp_path / "loaders" / "initrd"
        file.write_bytes(bytes(4 << 20))
        read = folders.OpenFile.read

        def shortened(opened: folders.OpenFile, start: int, size: int) -> bytes:
            os.truncate(file, 2 << 20)  # somebody writes it anew
            return read(opened, start, size)

        monkeypatch.setattr(folders.OpenFile, "read", shortened)
        with pytest.raises(httpx.HTTPError):
            await http.get(f"/boot/{BOOT_ID}/initrd")
        await until(lambda: bool(told), "the outcome")
    assert told == [f"the file became shorter while it was sent after {2 << 20} bytes"]


async def test_two_hundred_clients_at_once_get_their_files(tmp_path: Path) -> None:
    async with both(tmp_path, transfers_per_client_max=250) as (chassis, _):
        url = f"{root_of(chassis)}/boot/{BOOT_ID}/snponly.efi"

        async def fetch() -> bytes:
            async with httpx.AsyncClient(trust_env=False, verify=False, timeout=60) as client:
                return (await client.get(url)).content

        got = await asyncio.gather(*(fetch() for _ in range(200)))
        assert all(content == loader_bytes(146_800) for content in got)
        assert chassis.health.counters["http_over_capacity"] == 0


async def test_who_falls_silent_or_takes_nothing_is_cut_and_the_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(web, "PIECE_SECONDS", 0.3)
    async with both(tmp_path, transfers_per_client_max=3) as (chassis, http):
        (tmp_path / "loaders" / "large").write_bytes(bytes(40 << 20))
        host, port = address_of(chassis, "http")
        silent, half, lazy = [await asyncio.open_connection(host, port, limit=1 << 10) for _ in range(3)]
        half[1].write(b"GET /tiny HTTP/1.1\r\nHo")
        lazy[1].write(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        async with asyncio.timeout(20):
            for reader, _ in (silent, half):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            while chassis.health.counters["tftp_broken_off"] == 0:
                await asyncio.sleep(0.05)
            while True:  # their places are free again
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get("/tiny")).content == loader_bytes(10):
                        break
                await asyncio.sleep(0.05)
        for _, writer in (silent, half, lazy):
            writer.transport.abort()
        assert chassis.health.counters["http_internal_errors"] == 0


async def test_one_address_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    async with both(tmp_path, transfers_per_client_max=2) as (chassis, _):
        connections = [await asyncio.open_connection(*address_of(chassis, "http")) for _ in range(3)]
        async with asyncio.timeout(20):
            while chassis.health.counters["http_over_capacity"] == 0:
                await asyncio.sleep(0.02)
        for _, writer in connections:
            writer.transport.abort()


async def test_a_port_that_is_taken_is_named_with_its_setting(tmp_path: Path) -> None:
    async with both(tmp_path) as (chassis, _):
        (tmp_path / "second").mkdir()
        with pytest.raises(StartupError) as caught:
            async with serving(tmp_path / "second", http_port=address_of(chassis, "http")[1]):
                pass
        assert "BOOTLINK_TFTP_HTTP_PORT" in caught.value.remedy


async def test_curl_and_busybox_fetch_and_go_on_after_an_interruption(tmp_path: Path) -> None:
    async with both(tmp_path) as (chassis, _):
        url = f"{root_of(chassis)}/snponly.efi"
        (tmp_path / "curl").write_bytes(loader_bytes(146_800)[:50_000])
        for command in (
            ("curl", "-s", "-S", "--noproxy", "*", "-C", "-", "-o", str(tmp_path / "curl"), url),
            ("busybox", "wget", "-q", "-Y", "off", "-O", str(tmp_path / "wget"), url),
        ):
            if shutil.which(command[0]) is None:
                pytest.fail(f"{command[0]} is missing: apt install {command[0]}")
            process = await asyncio.create_subprocess_exec(*command)
            assert await process.wait() == 0
        assert (tmp_path / "curl").read_bytes() == loader_bytes(146_800)
        assert (tmp_path / "wget").read_bytes() == loader_bytes(146_800)


async def test_a_guest_says_hello_with_nothing_but_curl(tmp_path: Path, nats: NatsServer) -> None:
    """As docs/traces.md has it; the same with `Expect: 100-continue`, which PowerShell sends."""
    form = ("initiator", initiator_iqn(MAC, BOOT_ID)), ("uptime", "3.5"), ("system", "Debian 12")
    fields = [word for name, value in form for word in ("--data-urlencode", f"{name}={value}")]
    async with bus_on(nats.url) as bus, both(tmp_path, nats_url=nats.url) as (chassis, http):
        await bus.put(PLANS_BUCKET, mac_token(MAC), plan().model_dump_json().encode())
        await until(lambda: chassis.plan_book().get(MAC) is not None, "the plan")
        for more in ((), ("-H", "Expect: 100-continue")):
            curl = await asyncio.create_subprocess_exec(
                "curl", "-fsS", "--noproxy", "*", *more, *fields, f"{root_of(chassis)}/hello"
            )
            assert await curl.wait() == 0
        assert chassis.health.counters["hellos_again"] == 1, "it is told once"
        async with asyncio.timeout(10):
            async for event in follow(bus):
                if isinstance(told := event.decode(), BootHello):
                    break
        assert isinstance(told, BootHello)
        assert (told.mac, told.boot_id, told.system) == (MAC, BOOT_ID, "Debian 12")
        assert (told.ended - told.started).total_seconds() == 3.5
        unknown = await http.post("/hello", data={"initiator": initiator_iqn("52:54:00:00:00:99", BOOT_ID)})
        assert (unknown.status_code, unknown.text) == (403, "no client 52:54:00:00:00:99 is known here\n")
        assert (await http.post("/hello", data={"initiator": "x"})).status_code == 400
        assert (await http.post("/hello", content=b"x" * 5000)).status_code == 413
        assert (await http.get("/tiny")).status_code == 200, "it serves on"


async def test_who_sends_many_requests_at_once_leaves_others_their_turns(tmp_path: Path) -> None:
    """All that has come is answered without waiting for anything: TFTP's blocks would wait for the last of it."""
    many = 200
    async with both(tmp_path) as (chassis, _):
        _, writer = await asyncio.open_connection(*address_of(chassis, "http"))
        counted, in_a_turn, before = chassis.health.counters, 0, 0
        writer.write(b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" * many)
        async with asyncio.timeout(10):
            while counted["hellos_unreadable"] < many:
                await asyncio.sleep(0)
                in_a_turn = max(in_a_turn, counted["hellos_unreadable"] - before)
                before = counted["hellos_unreadable"]
        writer.close()
        assert in_a_turn <= 2
