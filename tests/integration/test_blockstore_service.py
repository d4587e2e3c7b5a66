"""The block store as the process that it is: started, killed and started again, without NATS."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import httpx
import pytest

from bootlink_events import BootId
from lab.blockstore import MAC, make_image, plan
from lab.blockstore_process import Service

SIZE = 8 << 20


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_readiness_names_the_portal_the_store_and_the_plans(tmp_path: Path) -> None:
    service = Service(tmp_path, plan(make_image(tmp_path / "base.img", SIZE)))
    service.start()
    try:
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://127.0.0.1:{service.ports['health']}/readyz")
        report = answer.json()
        assert answer.status_code == 200
        assert report["addresses"]["iscsi"] == f"127.0.0.1:{service.ports['iscsi']}"
        assert {"portal", "write-backs", "event loop"} <= set(report["checks"])
        assert report["checks"]["plans"]["detail"].startswith("1 plans from the snapshot")
    finally:
        assert service.process.stop() == 0


def start_fails(service: Service) -> str:
    """What it says when it does not come up; it must have exited with 1."""
    with pytest.raises(RuntimeError) as caught:
        service.start()
    assert service.process._child is not None
    assert service.process._child.returncode == 1
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = start_fails(Service(tmp_path, port=port))
    assert re.search(rf"problem.*{port}", words)
    assert "BOOTLINK_BLOCKSTORE_PORT" in words


def test_a_folder_that_cannot_be_written_to_is_one_clear_line(tmp_path: Path) -> None:
    service = Service(tmp_path)
    (service.data / "blockstore" / "writebacks").write_text("in the way")
    words = start_fails(service)
    assert "writebacks" in words
    assert "remedy" in words


async def test_a_stop_while_a_client_writes_is_clean(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", SIZE)
    service = Service(tmp_path, plan(base, mac=MAC))
    service.start()
    pc = await service.login(BootId.mint())
    for number in range(40):
        pc.send(
            pc.command(bytes.fromhex("2a000000000000000800"), expected=4096, write=True, data=bytes([number]) * 4096)
        )
    assert await asyncio.to_thread(service.process.stop) == 0
    await pc.close()
