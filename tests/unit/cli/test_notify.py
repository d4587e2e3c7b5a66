"""What systemd hears of `up`, and what its children inherit of it: nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootlink.supervisor.notify import STATUS_LENGTH, Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def test_each_state_is_told_once_and_a_status_is_one_line(systemd: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": systemd.getsockname(), "HOME": "/"}
    notifier = Notifier.taken_from(environment)
    assert environment == {"HOME": "/"}
    notifier.ready()
    notifier.status("two\nlines " + "x" * 300)
    notifier.beat()
    notifier.stopping()
    said = [systemd.recv(4096).decode() for _ in range(4)]
    assert said[0] == "READY=1"
    assert said[1].startswith("STATUS=two lines xxx")
    assert len(said[1]) == len("STATUS=") + STATUS_LENGTH
    assert said[2:] == ["WATCHDOG=1", "STOPPING=1"]


def test_a_name_in_the_abstract_namespace_is_understood() -> None:
    name = f"bootlink-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        sock.settimeout(5)
        Notifier.taken_from({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert sock.recv(64) == b"READY=1"


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 20.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 20.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, 0.0),  # meant for another process
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_a_watchdog_asks_for_three_beats_in_its_time(environment: dict[str, str], seconds: float) -> None:
    assert Notifier.taken_from(environment).beat_seconds == seconds
    assert environment == {}


def test_where_nobody_listens_nothing_happens(tmp_path: Path) -> None:
    Notifier().ready()
    Notifier(str(tmp_path / "gone")).ready()
