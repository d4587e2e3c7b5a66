"""The steps of a boot: when each was reached, and how long it took beside other boots. Pure.

A milestone is a moment that every boot of one kind passes, in seconds from its first packet. A step is the way from one
milestone to the next, so that the steps of a boot add up to the whole. Both are made from the set of stages, whatever
order these came in.

    address       the firmware has its address         login        the firmware has its disk
    loader        the last boot loader is there        first_read   and has read from it
    ipxe_address  the loader has its own address       system       the operating system has its disk
    script        the script is there                  idle         it has read what it needed to come up
                                                       hello        and says so (see docs/traces.md)

A boot is compared with the client's boot before it and with the middle one of its peers: the latest boots of other
clients from the same version. A median does not move when one of them was slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Final

from bootlink_events import (
    BootAddressed,
    BootDiskAttached,
    BootDiskUsed,
    BootHello,
    BootLoaderSent,
    BootScriptServed,
    Stage,
)
from bootlink_events.models import DiskIo

ARRIVED: Final = ("idle", "hello")  # from either on the boot is done
WHOLE: Final = "whole"  # the way from the first packet to the operating system's disk

Milestones = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a boot, in seconds, beside the same one of others; None where they had none."""

    step: str
    at: float | None  # when it was over, from the boot's first packet
    took: float | None
    last: float | None = None
    peers: float | None = None


def milestones(stages: Iterable[Stage]) -> dict[str, float]:
    """When each milestone of a boot was reached, in seconds from its first stage, in the order of time."""
    told = list(stages)
    if not told:
        return {}
    zero = min(stage.started for stage in told)
    found: dict[str, datetime | None] = {
        "address": _first(s.ended for s in told if isinstance(s, BootAddressed) and s.pass_ == "firmware"),
        "ipxe_address": _first(s.ended for s in told if isinstance(s, BootAddressed) and s.pass_ == "ipxe"),
        "script": _first(s.ended for s in told if isinstance(s, BootScriptServed) and s.kind != "screen"),
        "login": _first(s.ended for s in told if isinstance(s, BootDiskAttached) and s.initiator == "firmware"),
        "first_read": _first(s.first_read for s in told if isinstance(s, DiskIo) and s.initiator == "firmware"),
        "system": _first(s.ended for s in told if isinstance(s, BootDiskAttached) and s.initiator == "os"),
        # A session that ended before it fell silent tells nothing: an initial RAM disk's gives way to the system's.
        "idle": _first(s.last_io for s in told if isinstance(s, BootDiskUsed) and s.initiator == "os"),
        "hello": _first(s.ended for s in told if isinstance(s, BootHello)),
    }
    # Loaders may load others; a kernel and what else the script names come after it, and are no step of their own.
    until = found["script"]
    loaders = [s.ended for s in told if isinstance(s, BootLoaderSent) and (until is None or s.ended <= until)]
    found["loader"] = max(loaders, default=None)
    reached = {name: round((at - zero).total_seconds(), 6) for name, at in found.items() if at is not None}
    return dict(sorted(reached.items(), key=lambda pair: pair[1]))


def compared(own: Milestones, last: Milestones | None, peers: Sequence[Milestones]) -> list[Step]:
    """The steps of a boot beside those of others, in its own order, and `WHOLE` at the end where it got so far."""
    took, before = durations(own), durations(last or {})
    others = [durations(peer) for peer in peers]

    def middle(step: str) -> float | None:
        known = [of[step] for of in others if step in of]
        return median(known) if known else None

    steps = [Step(step, own[step], took[step], before.get(step), middle(step)) for step in took]
    if "system" in own:
        whole = [peer["system"] for peer in peers if "system" in peer]
        steps.append(
            Step(
                WHOLE,
                own["system"],
                own["system"],
                (last or {}).get("system"),
                median(whole) if whole else None,
            )
        )
    return steps


def durations(reached: Milestones) -> dict[str, float]:
    """How long each step took: from the milestone before it."""
    took, former = {}, 0.0
    for name, at in sorted(reached.items(), key=lambda pair: pair[1]):
        took[name], former = round(at - former, 6), at
    return took


def _first(moments: Iterable[datetime | None]) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)
