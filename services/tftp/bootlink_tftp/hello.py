"""A guest's hello: what an operating system posts when it is up. Pure.

A guest has no credentials of ours, and needs none: the initiator's name that it booted under, which it finds in the
iBFT, holds its MAC address and its boot id. That id is random (74 bits), new at each boot, and known to nobody who did
not see this boot's packets; so it says whose hello it is. Whether the asker may be that PC is for the chronicle to say.

The body is a form (`application/x-www-form-urlencoded`), as curl and PowerShell send it without being asked to:

    initiator  the initiator's name: iqn.2026-11.io.bootlink:<client>:<boot id>
    system     what the system calls itself; may be left out
    uptime     seconds since its kernel began, a decimal number; may be left out
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl

from bootlink_events import BootId, parse_initiator

PATH: Final = b"/hello"
BODY_MAX: Final = 1_024  # octets; a hello of Windows has some 200
FIELDS_MAX: Final = 8
SYSTEM_MAX: Final = 64  # characters that are kept; "Microsoft Windows 11 Enterprise LTSC" has 36
UPTIME_MAX: Final = timedelta(hours=1)  # no kernel takes longer to be up; a later hello does not say when that was


class HelloRefused(ValueError):
    """The body is no hello; the text is fit for whoever wrote the agent."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Whose system is up, and since when its kernel has been running, where it says that."""

    mac: str
    boot_id: BootId
    system: str = ""
    uptime: timedelta | None = None

    def began(self, now: datetime) -> datetime:
        """When the kernel began; `now`, where that is not known.

        Not before its boot did, which its earliest stage would else begin: Windows counts on over a fast startup, and
        anybody may write a number. Where the boot has not begun yet, clocks differ, and it tells nothing.
        """
        if self.uptime is None:
            return now
        began, booted_ms = now - self.uptime, self.boot_id.timestamp_ms
        if booted_ms > now.timestamp() * 1000:
            return began
        return max(began, datetime.fromtimestamp(booted_ms / 1000, UTC))


def read(body: bytes) -> Hello:
    """The hello in this body, of at most BODY_MAX octets. Raises HelloRefused."""
    try:
        pairs = parse_qsl(body.decode("ascii"), max_num_fields=FIELDS_MAX)
    except ValueError as error:
        raise HelloRefused("send a form: initiator=IQN&system=NAME&uptime=SECONDS") from error
    fields = dict(pairs)
    mac, boot_id = parse_initiator(fields.get("initiator", "").strip())
    if mac is None or boot_id is None:
        raise HelloRefused("initiator: it names no boot of ours; send the name that the iBFT holds")
    system = "".join(c if c.isprintable() else " " for c in fields.get("system", "")).strip()[:SYSTEM_MAX]
    return Hello(mac, boot_id, system, _uptime(fields.get("uptime", "")))


def _uptime(text: str) -> timedelta | None:
    """Seconds as a time; None where there are none, or more than a boot takes."""
    try:
        seconds = float(text.replace(",", "."))  # as PowerShell writes a number in half of Europe
    except ValueError:
        return None
    return timedelta(seconds=seconds) if 0 <= seconds <= UPTIME_MAX.total_seconds() else None
