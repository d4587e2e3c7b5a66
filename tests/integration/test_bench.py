"""The load client and its servers agree on what is read and written, so that `make bench` compares like with like."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bench import servers
from bench.load import Work, measured
from bench.servers import Server
from lab.blockstore import digest

DISK = 4 << 20
SHORT = 0.05

Serving = Callable[[Path, Path], AbstractContextManager[Server]]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return servers.make_disk(tmp_path / "disk.raw", DISK)


@pytest.mark.parametrize("serving", [servers.store, servers.tgt, servers.loop, servers.bare])
def test_every_server_answers_the_load_client_with_the_sectors_it_asked_for(
    serving: Serving, image: Path, tmp_path: Path
) -> None:
    with serving(tmp_path / "server", image) as server:
        for mode, size, depth, clients in (("rand", 4096, 32, 3), ("seq", 262144, 4, 1)):
            sample = measured(server.pid, server.logins(clients), Work(mode, size, depth, DISK, SHORT, SHORT))
            assert sample.ops > 0
            assert sample.server_cpu > 0
            assert sample.p50 <= sample.p99 <= sample.p999 <= sample.longest * 1.02


@pytest.mark.parametrize("serving", [servers.store, servers.tgt])
def test_what_the_load_client_wrote_is_what_it_reads(serving: Serving, image: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "server", image) as server:
        for writes in (True, False):
            sample = measured(server.pid, server.logins(2), Work("rand", 4096, 8, DISK, SHORT, SHORT, writes))
            assert sample.ops > 0


def test_a_quick_answer_with_the_wrong_data_ends_a_measurement(image: Path, tmp_path: Path) -> None:
    with image.open("r+b") as disk:
        for lba in range(0, DISK // 512, 8):
            disk.seek(lba * 512)
            disk.write((lba + 1).to_bytes(8, "big"))
    with servers.loop(tmp_path / "server", image) as server, pytest.raises(RuntimeError, match="wrong data"):
        measured(server.pid, server.logins(1), Work("rand", 4096, 1, DISK, SHORT, SHORT))


def test_a_trace_is_read_once_by_each_client_and_leaves_the_image_as_it_was(image: Path, tmp_path: Path) -> None:
    before = digest(image)
    trace = tmp_path / "trace"
    trace.write_text("0 512\n1048576 32768\n512 131072\n")
    with servers.store(tmp_path / "server", image) as server:
        work = Work("trace", depth=2, seconds=20, warm=0, trace=trace)
        assert measured(server.pid, server.logins(5), work).ops == 15
    assert digest(image) == before
