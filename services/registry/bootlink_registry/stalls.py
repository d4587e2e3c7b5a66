"""Boots that fell silent on the way: which step did not come, what that usually means, and what to do.

A PC that gets no boot file says so to nobody but its own screen ("TFTP open timeout"), and a service that is never
asked has nothing to tell. Only who sees all of a boot's stages can tell that the next one is missing: so the registry
does, and it is the one service that publishes `boot.failed` for something that did not happen.

A boot counts as silent `SILENT_SECONDS` after something of it was last *heard*: an event that was held up by an outage
of NATS is news when it comes. A boot whose disk was attached is never diagnosed: somebody may be looking at a boot
menu, and an operating system may run without an initiator of its own. A boot that goes on after all is no longer
failed (see `boots`).

Silence is a pure function of the set of stages; `DIAGNOSES` is the whole of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from bootlink_events import (
    BootAddressed,
    BootDiskAttached,
    BootFailed,
    BootLoaderSent,
    BootScriptServed,
    BootStarted,
    Stage,
)

SILENT_SECONDS: Final = 90.0  # firmware tries TFTP for 36 to 70 s before it gives up; iPXE a login for 15 s a time

UEFI: Final = ("uefi-", "http-")  # how `BootStarted.arch` begins where Secure Boot may be on
Step = Literal["started", "addressed", "loaded", "loaded by UEFI", "addressed again", "scripted"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What it means when nothing came after a step."""

    stage: Literal["dhcp", "loader", "script", "disk"]
    cause: str
    remedy: str


DIAGNOSES: Final[dict[Step, Diagnosis]] = {
    "started": Diagnosis(
        "dhcp",
        "the PC asked for an address and did not take the one it was offered",
        "see whether another DHCP server answers on this network, and switch its PXE answers off",
    ),
    "addressed": Diagnosis(
        "loader",
        "the PC has its address, but the boot file never reached it (it may show: TFTP open timeout)",
        "let UDP port 69 of this server through every firewall, and see that no other DHCP server names a boot file",
    ),
    "loaded": Diagnosis(
        "loader",
        "the PC has its boot loader, but the loader never asked for an address",
        "see whether its switch port waits for spanning tree (set it to portfast), or try another loader",
    ),
    "loaded by UEFI": Diagnosis(
        "loader",
        "the PC has its boot loader, but the loader never asked for an address (it may show: Access Denied, or "
        "Security Violation)",
        "where Secure Boot is on, put a signed shim and iPXE into the loaders' folder, or switch it off in the PC's "
        "setup; else see whether its switch port waits for spanning tree, or try another loader",
    ),
    "addressed again": Diagnosis(
        "script",
        "the boot loader has its address, but never fetched its script",
        "let UDP port 69 of this server through every firewall",
    ),
    "scripted": Diagnosis(
        "disk",
        "the PC has its script, but never logged in to its disk",
        "let the block store's TCP port (3260) through every firewall; `bootlink status` shows where it listens",
    ),
}


def diagnose(stages: Iterable[Stage], *, now: datetime) -> BootFailed | None:
    """What is missing in a boot of which nothing was heard for SILENT_SECONDS; None where nothing is known to be."""
    told = sorted(stages, key=lambda stage: (stage.started, stage.ended))
    if not told or any(isinstance(stage, BootDiskAttached | BootFailed) for stage in told):
        return None
    step = _step(told)
    if step is None:
        return None
    last = max(stage.ended for stage in told)
    found = DIAGNOSES[step]
    return BootFailed(
        mac=told[-1].mac,
        client=next((stage.client for stage in reversed(told) if stage.client), None),
        boot_id=told[-1].boot_id,
        started=last,
        ended=max(now, last),
        stage=found.stage,
        cause=found.cause,
        remedy=found.remedy,
    )


def _step(told: list[Stage]) -> Step | None:
    """The last step that was taken."""
    if any(isinstance(stage, BootScriptServed) for stage in told):
        # A screen that asks to be patient is followed by another look at the plan; what stops it is told by tftp.
        scripts = [stage for stage in told if isinstance(stage, BootScriptServed)]
        # And at a menu a PC may wait for as long as nobody chooses.
        return "scripted" if scripts[-1].kind == "sanboot" and not scripts[-1].menu else None
    if any(isinstance(stage, BootAddressed) and stage.pass_ == "ipxe" for stage in told):
        return "addressed again"
    if any(isinstance(stage, BootLoaderSent) for stage in told):
        uefi = any(isinstance(stage, BootStarted) and stage.arch.startswith(UEFI) for stage in told)
        return "loaded by UEFI" if uefi else "loaded"
    if any(isinstance(stage, BootAddressed) for stage in told):
        return "addressed"
    return "started" if any(isinstance(stage, BootStarted) for stage in told) else None
