"""A client's boot as it is open here: its disks, and the sessions that sit at them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final, Protocol

from bootlink_blockstore.access import NotAdmitted
from bootlink_blockstore.disk import ClientDisk
from bootlink_blockstore.login import Admission
from bootlink_blockstore.pagemap import PAGE
from bootlink_blockstore.scsi.device import LogicalUnit
from bootlink_blockstore.writeback import Manifest
from bootlink_events import BootId
from bootlink_wire.iscsi_codes import LoginStatus

SESSIONS_LIMIT: Final = 32  # per boot; one more ends the oldest, as iPXE leaves its sessions behind (PROTOCOLS 2.2 #3)


class Seat(Protocol):
    """A session's place at a disk."""

    async def evict(self, why: str) -> None:
        """End the session, and return when none of its tasks can write any more."""


@dataclass(eq=False)
class Attached:
    """One disk of a boot."""

    manifest: Manifest
    disk: ClientDisk
    unit: LogicalUnit


Key = tuple[str, bytes]  # initiator name and ISID


@dataclass(eq=False)
class Boot:
    """One client's current boot."""

    mac: str
    client: str
    boot_id: BootId
    disks: dict[int, Attached]
    absent: LogicalUnit
    entry: str = ""  # what was chosen at the boot menu
    seats: dict[Key, Seat] = field(default_factory=dict)  # oldest first
    idle_since: float = 0.0

    @property
    def written(self) -> int:
        """Bytes of the pages that all its overlays hold."""
        return sum(attached.disk.overlay.pages for attached in self.disks.values()) * PAGE

    @property
    def units(self) -> dict[int, LogicalUnit]:
        return {lun: attached.unit for lun, attached in self.disks.items()}

    async def take(self, admission: Admission, seat: Seat) -> None:
        """Let a session sit down. NotAdmitted if it asks for what a session cannot have."""
        key = (admission.initiator, admission.isid)
        if admission.tsih:
            # One connection per session, so nobody may add one; and there is nothing to reinstate without a session.
            known = key in self.seats
            raise NotAdmitted(
                LoginStatus.TOO_MANY_CONNECTIONS if known else LoginStatus.SESSION_DOES_NOT_EXIST,
                f"{admission.initiator} asks to join session {admission.tsih}",
                "none: it logs in anew by itself",
            )
        former = self.seats.pop(key, None)
        if former is not None:
            await former.evict("reinstated")
        while len(self.seats) >= SESSIONS_LIMIT:
            await self.seats.pop(next(iter(self.seats))).evict("too many sessions")
        self.seats[key] = seat

    async def evict_all(self, why: str) -> None:
        """End all sessions."""
        seats, self.seats = list(self.seats.values()), {}
        await asyncio.gather(*(seat.evict(why) for seat in seats))
