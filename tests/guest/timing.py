"""Where the seconds went between power-on and the first read of the disk, and which of them are of our making.

Of our making is what a PC waits for at us, or could be spared by an answer of ours: from its DISCOVER until it has its
loader, and from the loader's DISCOVER until the disk is read for the first time. (IPv6 without a router would be in
there with 13 s for each, and a proxyDHCP server that never speaks with 3 s.) Not ours is how long the PC's firmware
takes to ask at all, and the loader to start: Debian's iPXE waits 2 s for Ctrl-B.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

OURS_LIMIT: Final = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a boot, in seconds."""

    what: str
    seconds: float
    ours: bool


def steps(power_on: datetime, records: Iterable[Mapping[str, Any]]) -> list[Step]:
    """The parts of a boot, from what `bootlink boot show --json` tells of its stages. ValueError if one is missing."""
    held = [(str(record["kind"]).rpartition("boot.")[2], record) for record in records]

    def first(kind: str, field: str, **wanted: str) -> datetime:
        found = [
            datetime.fromisoformat(record[field])
            for name, record in held
            if name == kind and all(record["data"].get(key) == value for key, value in wanted.items())
        ]
        if not found:
            raise ValueError(f"this boot has no {kind} {wanted or ''}")
        return min(found)

    reads = [
        datetime.fromisoformat(record["data"]["first_read"])
        for name, record in held
        if name in ("disk_detached", "disk_used") and record["data"].get("first_read")
    ]
    if not reads:
        raise ValueError("nothing was read of this boot's disk")
    marks = (
        ("power-on, until the firmware asks", first("started", "started"), False),
        ("DHCP for the firmware", first("addressed", "ended", **{"pass": "firmware"}), True),
        ("TFTP: the loader", first("loader_sent", "ended"), True),
        ("the loader starts, until it asks", first("addressed", "started", **{"pass": "ipxe"}), False),
        ("DHCP for the loader", first("addressed", "ended", **{"pass": "ipxe"}), True),
        ("TFTP: the script", first("script_served", "ended"), True),
        ("iSCSI: the login", first("disk_attached", "ended"), True),
        ("iSCSI: the first read of the disk", min(reads), True),
    )
    found, before = [], power_on
    for what, at, ours_too in marks:
        found.append(Step(what, (at - before).total_seconds(), ours_too))
        before = at
    return found


def ours(parts: Sequence[Step]) -> float:
    """Seconds of our making."""
    return sum(part.seconds for part in parts if part.ours)


def lines(parts: Sequence[Step]) -> list[str]:
    """The parts as lines of text, ours marked, and what ours come to."""
    width = max(len(part.what) for part in parts)
    table = [f"{part.what:<{width}}  {part.seconds:6.3f} s{'  *' if part.ours else ''}" for part in parts]
    whole = sum(part.seconds for part in parts)
    return [*table, f"{whole:.1f} s in all; * of our making: {ours(parts):.1f} s, where {OURS_LIMIT:g} s are the aim"]
