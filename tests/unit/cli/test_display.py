"""What `up` shows: to people and to programs; and that a reader who does not read holds nobody."""

from __future__ import annotations

import io
import json
import threading
import time
from pathlib import Path

from rich.console import Console

from bootlink.supervisor.display import QUEUE_LINES, JsonDisplay, PeopleDisplay, Printer
from bootlink.supervisor.keeper import Happening
from bootlink.supervisor.lines import LogLine

FACTS = {
    "nats": "nats://127.0.0.1:4222",
    "api": "http://127.0.0.1:8600",
    "data": "/var/lib/bootlink",
    "services": {"registry": {"health": "127.0.0.1:5", "api": "127.0.0.1:8600"}, "tftp": {"tftp": "0.0.0.0:69"}},
}


def test_each_json_line_is_an_object_with_its_event() -> None:
    out = io.StringIO()
    display = JsonDisplay(out)
    display.happened(Happening("started", "tftp", pid=7))
    display.happened(Happening("ready", "tftp", pid=7, addresses={"tftp": "0.0.0.0:69"}))
    display.happened(Happening("died", "tftp", status=-9, pause=0.5))
    display.happened(Happening("log", "tftp", line=LogLine("file sent", "info", {"bytes": 7})))
    display.ready(FACTS)
    display.stopping()
    display.close()
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"event": "started", "service": "tftp", "pid": 7},
        {"event": "service_ready", "service": "tftp", "pid": 7, "addresses": {"tftp": "0.0.0.0:69"}},
        {"event": "died", "service": "tftp", "status": -9, "retry_in": 0.5},
        {"event": "log", "service": "tftp", "level": "info", "message": "file sent", "fields": {"bytes": 7}},
        {"event": "ready", **FACTS},
        {"event": "stopping"},
    ]


def test_people_see_what_runs_where_and_what_to_do_next() -> None:
    out = io.StringIO()
    display = PeopleDisplay(Console(file=out, width=100, highlight=False))
    display.happened(Happening("log", "dhcp", line=LogLine("client unknown", "warning", {"mac": "52:54:00:12:34:56"})))
    display.happened(Happening("log", "dhcp", line=LogLine("[bold]not markup[/bold]")))
    display.happened(Happening("died", "tftp", status=1, pause=0.5))
    display.ready(FACTS)
    display.close()
    text = out.getvalue()
    assert "dhcp        client unknown  mac=52:54:00:12:34:56" in text
    assert "[bold]not markup[/bold]" in text
    assert "tftp        died with status 1; starts again in 0.5 s" in text
    assert "api 127.0.0.1:8600" in text
    assert "bootlink image add NAME" in text
    assert "export" not in text  # all is where the command looks by itself


def test_unusual_addresses_are_given_as_something_to_paste() -> None:
    out = io.StringIO()
    display = PeopleDisplay(Console(file=out, width=100))
    display.ready(FACTS | {"api": "http://127.0.0.1:1234"})
    display.close()
    assert "  export BOOTLINK_API=http://127.0.0.1:1234\n" in out.getvalue()


def test_a_data_folder_elsewhere_is_named_by_what_finds_token_and_key_in_it() -> None:
    out = io.StringIO()
    display = PeopleDisplay(Console(file=out, width=100))
    display.ready(FACTS | {"data": "/srv/bl", "token_file": "/srv/bl/admin.token"})
    display.close()
    assert "  export BOOTLINK_DATA=/srv/bl\n" in out.getvalue()


def test_a_command_that_the_shell_does_not_find_is_found_after_the_line_to_paste() -> None:
    out = io.StringIO()
    display = PeopleDisplay(Console(file=out, width=100), command_in=Path("/root/bootlink/.venv/bin"))
    display.ready(FACTS)
    display.close()
    assert "  export PATH=/root/bootlink/.venv/bin:$PATH\n" in out.getvalue()


def test_where_nats_or_the_api_listen_beyond_loopback_the_files_that_let_the_command_in_are_named() -> None:
    out = io.StringIO()
    display = PeopleDisplay(Console(file=out, width=100))
    files = {"token_file": "/var/lib/bootlink/admin.token", "nats_key_file": "/var/lib/bootlink/nats/keys/command.nk"}
    display.ready(FACTS | files | {"nats": "nats://10.77.0.1:4222"})
    display.close()
    assert (
        "  export BOOTLINK_NATS_URL=nats://10.77.0.1:4222 "
        "BOOTLINK_NATS_CREDENTIALS_FILE=/var/lib/bootlink/nats/keys/command.nk\n"
    ) in out.getvalue()


class Held(io.StringIO):
    """A terminal that is held: nothing is taken until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.released.wait(30)
        return super().write(text)


def test_a_reader_who_does_not_read_holds_nobody_and_is_told_later_what_was_lost() -> None:
    stream = Held()
    printer = Printer(stream)
    for number in range(3 * QUEUE_LINES):
        printer.put(str(number))  # a write that blocks would last until the test's time is up
    stream.released.set()
    deadline = time.monotonic() + 10
    while str(QUEUE_LINES - 1) not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    printer.put("after")
    printer.close()
    lines = stream.getvalue().splitlines()
    assert lines[-1] == "after"
    assert any("lines were not shown" in line for line in lines)
    assert len(lines) < QUEUE_LINES + 10
