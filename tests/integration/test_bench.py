"""The load client and its servers agree on what is read and written, so that `make bench` compares like with like; and
the measure of the registry measures what its rows say, of a small one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bench import registry, servers
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


def test_the_measure_of_the_registry_sees_each_change_arrive_and_each_list_whole(tmp_path: Path) -> None:
    scale = registry.Scale(clients=130, images=13, rounds=2, singles=2, asked=20, listed=1, import_bytes=4 << 20)
    section = registry.registry(tmp_path, scale)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.text.splitlines() if "|" in line][2:]
    assert [row[1] for row in rows[:5]] == ["2", "2", "1", "1", "20"], "times that each was measured"
    assert int(rows[5][1]) > 0, "GET /clients was answered while an image was imported"
    for _, _, *figures in rows:
        p50, p99, longest = (int(figure.replace(",", "")) for figure in figures)
        assert p50 <= p99 <= longest
    assert len(section.goals) == 4
