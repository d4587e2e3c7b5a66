"""What happens under `up`, for people, for systemd's journal, or as one JSON object per line.

Lines leave through a bounded queue and a thread, because a terminal that is held (Ctrl-S) or a pipe that nobody reads
would otherwise hold the supervisor, then its children's pipes, and in the end the services. What does not fit is
counted and said later.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bootlink.settings import DEFAULT_API, DEFAULT_DATA, DEFAULT_NATS_URL, is_here
from bootlink.supervisor.keeper import Happening
from bootlink.supervisor.lines import LogLine

QUEUE_LINES: Final = 2_000  # some MiB; minutes of an ordinary log
CLOSE_SECONDS: Final = 2.0  # given to a slow reader at the end
_SYSLOG: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_OWN_LEVELS: Final = {"slow": "warning", "died": "error"}  # of what happens to a child; the rest is information
_LEVEL_STYLES: Final = {"warning": "yellow", "error": "bold red", "critical": "bold red", "debug": "bright_black"}


class Printer:
    """Lines to a stream that may block, without ever blocking the caller."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._queue: queue.Queue[str | None] = queue.Queue(QUEUE_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="printer", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what is waiting, as far as the reader lets us."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=CLOSE_SECONDS)
        self._thread.join(CLOSE_SECONDS)

    def _write(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more: the services matter, not the talk
            while (line := self._queue.get()) is not None:
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    line = f"({dropped} lines were not shown)\n{line}"
                self._stream.write(line + "\n")
                self._stream.flush()


class Display(Protocol):
    """Shows what happens."""

    def happened(self, happening: Happening) -> None: ...

    def ready(self, facts: Mapping[str, Any]) -> None: ...

    def stopping(self) -> None: ...

    def close(self) -> None: ...


class JsonDisplay:
    """For programs: each line is an object with `event`."""

    def __init__(self, stream: IO[str]) -> None:
        self._printer = Printer(stream)

    def happened(self, happening: Happening) -> None:
        record: dict[str, Any] = {"event": happening.what, "service": happening.name}
        if happening.what == "ready":
            record["event"] = "service_ready"
        for key in ("pid", "status", "addresses"):
            if (value := getattr(happening, key)) is not None:
                record[key] = value
        if happening.pause is not None:
            record["retry_in"] = happening.pause
        if happening.line is not None:
            line = happening.line
            record |= {"level": line.level, "message": line.event, "fields": dict(line.fields)}
        self._put(record)

    def ready(self, facts: Mapping[str, Any]) -> None:
        self._put({"event": "ready", **facts})

    def stopping(self) -> None:
        self._put({"event": "stopping"})

    def close(self) -> None:
        self._printer.close()

    def _put(self, record: Mapping[str, Any]) -> None:
        self._printer.put(json.dumps(record, default=str))


class JournalDisplay:
    """For systemd's journal, which has the time and the unit of each line: `<level>service: words`.

    The level is syslog's, and the journal's own (`journalctl -p warning`). Source: sd-daemon(3).
    """

    def __init__(self, stream: IO[str]) -> None:
        self._printer = Printer(stream)

    def happened(self, happening: Happening) -> None:
        _, text = _words(happening)
        if text:
            level = happening.line.level if happening.line is not None else _OWN_LEVELS.get(happening.what, "info")
            self._put(f"{happening.name}: {text}", level)

    def ready(self, facts: Mapping[str, Any]) -> None:
        self._put(f"ready: api {facts.get('api')}, nats {facts['nats']}, data {facts['data']}")

    def stopping(self) -> None:
        self._put("stopping: services, then the engines")

    def close(self) -> None:
        self._printer.close()

    def _put(self, text: str, level: str = "info") -> None:
        for line in text.splitlines():  # each is an entry of its own there
            self._printer.put(f"<{_SYSLOG.get(level, _SYSLOG['info'])}>{line}")


def in_journal(stream: IO[str], environment: Mapping[str, str]) -> bool:
    """Whether this stream leads to systemd's journal. Source: JOURNAL_STREAM in systemd.exec(5)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class PeopleDisplay:
    """For people: a line for what happens, and a table of what runs and where."""

    def __init__(self, console: Console, *, command_in: Path | None = None) -> None:
        """`command_in`: the folder of the command, where the shell does not find it by its name."""
        self._console = console
        self._command_in = command_in
        self._printer = Printer(console.file)

    def happened(self, happening: Happening) -> None:
        style, text = _words(happening)
        if text:
            now = datetime.now().astimezone().strftime("%H:%M:%S")
            line = Text.assemble((now, "bright_black"), "  ", (happening.name.ljust(10), "cyan"), "  ", (text, style))
            self._show(line)

    def ready(self, facts: Mapping[str, Any]) -> None:
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
        for column in ("what runs", "where"):
            table.add_column(column, overflow="fold")
        table.add_row("nats", facts["nats"])
        for name, addresses in facts["services"].items():
            where = ", ".join(f"{what} {address}" for what, address in addresses.items() if what != "health")
            table.add_row(name, where or "running")
        self._show("")
        self._show(table)
        self._show(f"\nEverything is written below {facts['data']}.")
        if facts.get("api"):
            named = {
                "BOOTLINK_API": (facts["api"], DEFAULT_API),
                "BOOTLINK_NATS_URL": (facts["nats"], DEFAULT_NATS_URL),
            }
            unusual = [f"{variable}={url}" for variable, (url, usual) in named.items() if url != usual]
            unusual += _data_folder(facts)
            if self._command_in is not None:
                unusual.append(f"PATH={self._command_in}:$PATH")
            export = f"\n  export {' '.join(unusual)}" if unusual else ""
            self._show(_NEXT.format(export=export))

    def stopping(self) -> None:
        self._show(Text("stopping: services, then the engines (Ctrl-C again: at once)", style="bold"))

    def close(self) -> None:
        self._printer.close()

    def _show(self, what: Any) -> None:
        with self._console.capture() as captured:
            self._console.print(what, soft_wrap=isinstance(what, (str, Text)), highlight=False, markup=False)
        self._printer.put(captured.get().rstrip("\n"))


def _data_folder(facts: Mapping[str, Any]) -> list[str]:
    """The variables by which the command finds its token and its key for NATS; none where it finds them by itself."""
    data, token, key = facts["data"], facts.get("token_file"), facts.get("nats_key_file")
    found = [] if data == str(DEFAULT_DATA) else [f"BOOTLINK_DATA={data}"]
    # What lies in the data folder is shown to addresses of this machine's loopback alone.
    if token and not is_here(facts["api"]):
        found.append(f"BOOTLINK_TOKEN_FILE={token}")
    if key and not is_here(facts["nats"]):
        found.append(f"BOOTLINK_NATS_CREDENTIALS_FILE={key}")
    return found


# A service's own words that the supervisor's repeat, with the addresses.
_SAID_BETTER: Final = ("listening", "stopping", "stopped")

_NEXT: Final = """
What to do next, in another terminal:{export}
  bootlink image add NAME /path/to/disk.vhd    tell Bootlink of an image; the file stays where it is
  bootlink link set --default NAME             every PC boots it
  then power on a PC, and: bootlink client list; bootlink boot list; bootlink boot show
Ctrl-C stops everything."""


def _words(happening: Happening) -> tuple[str, str]:
    """Style and text of one line; no text for what people need not see."""
    match happening.what:
        case "started":
            return "bright_black", f"started, process {happening.pid}"
        case "slow":
            return "yellow", "is still starting"
        case "ready":
            addresses = {k: v for k, v in (happening.addresses or {}).items() if k != "health"}
            return "green", "ready" + "".join(f"  {what} {address}" for what, address in addresses.items())
        case "died":
            return "bold red", f"died with status {happening.status}; starts again in {happening.pause:g} s"
        case "stopped":
            return "bright_black", "stopped"
    line = happening.line or LogLine("")
    if line.event in _SAID_BETTER:
        return "", ""
    fields = "  ".join(f"{key}={_short(value)}" for key, value in line.fields.items() if key != "exception")
    text = f"{line.event}  {fields}".rstrip()
    if "exception" in line.fields:
        text += f"\n{line.fields['exception']}"
    return _LEVEL_STYLES.get(line.level, ""), text


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
