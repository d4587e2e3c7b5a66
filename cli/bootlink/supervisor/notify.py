"""Tells systemd how `up` is: that it is ready, what runs, that it stops, and that it is alive.

systemd names a datagram socket in NOTIFY_SOCKET and, where the unit has a watchdog, a time in WATCHDOG_USEC. Both are
for the process that systemd started: they are taken out of the environment, so that no child speaks in its name. Where
nobody asked, nothing is said; what systemd does not take is lost, as it matters less than the PCs.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Final

BEATS: Final = 3  # signs of life per watchdog time: one that is late is no reason to end a room's disks
STATUS_LENGTH: Final = 200  # characters; `systemctl status` shows one line
_MICROSECONDS: Final = 1_000_000


class Notifier:
    """The socket that systemd listens on, or nothing."""

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        """`address` is a path, or a name in the abstract namespace with `@` before it; `watchdog` in seconds."""
        self.beat_seconds = watchdog / BEATS  # between two signs of life; 0: none are wanted
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def taken_from(cls, environment: MutableMapping[str, str]) -> Notifier:
        """What systemd put into the environment, which has it no longer afterwards."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", str(os.getpid()))
        watched = microseconds.isdigit() and process == str(os.getpid())
        return cls(address, int(microseconds) / _MICROSECONDS if watched else 0.0)

    def ready(self) -> None:
        """All that was to be started is ready."""
        self._say("READY=1")

    def stopping(self) -> None:
        """The stop has begun."""
        self._say("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._say(f"STATUS={' '.join(text.split())[:STATUS_LENGTH]}")

    def beat(self) -> None:
        """Still alive."""
        self._say("WATCHDOG=1")

    def _say(self, what: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(what.encode(), self._address)
