"""Reservations of a logical unit: who may do what (SPC-4, section 5.13; SPC-2, section 5.5.1).

Theory of operation. There are two kinds, and at most one of each kind at a time:

    persistent   (PERSISTENT RESERVE OUT) A nexus registers a key, and may then reserve. Registrations and reservation
                 belong to the I_T nexus: the initiator port's name (initiator and ISID) at our one target port group.
                 They outlive the session, until they are given up, preempted, cleared, or the unit is gone
    unit         (RESERVE(6), of SPC-2) belongs to the session, and ends with it or with a reset

A command's `Access` and the table below decide. Here `holder` is the nexus that reserved, or any registered one where
the type says all registrants:

    access    TYPES: WE   EA   WE,RO/AR   EA,RO/AR       against RESERVE(6) of another
    ALWAYS           -    -       -          -           -
    OPEN             -    -       -          -           conflict
    READ             -    x       -          u           conflict
    GUARDED, WRITE   x    x       u          u           conflict

    x: conflict for all but the holder. u: conflict for all but registered nexuses

Every change gives the `Notice`s that it owes to others (SPC-4, section 5.13.11): port name and sense. `generation`
counts the changes of registrations, as READ KEYS reports them.

A boot's reservations end with its unit: a PC that starts anew finds none, although firmware never gives up its own.
So nothing is kept over a restart of the block store either (PTPL_C=0, APTPL is refused): the initiators are told by a
power-on attention. Deliberately not here: SPEC_I_PT, ALL_TG_PT, REGISTER AND MOVE (each is refused).
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_sense import CheckCondition, Sense

REGISTRATIONS_LIMIT: Final = 64  # per unit; twice the sessions that a boot may have


class Access(Enum):
    """What a command does to a logical unit, as far as reservations and write protection care."""

    ALWAYS = "tells who is there"
    OPEN = "tells how it is"
    READ = "reads blocks"
    GUARDED = "changes or tells what is the holder's"
    WRITE = "changes blocks"


class Type(NamedTuple):
    """One type of persistent reservation (SPC-4, table 61)."""

    reads: bool  # others may read
    registrants: bool  # registered nexuses may do everything
    everyone: bool  # every registered nexus is the holder


TYPES: Final[dict[int, Type]] = {
    1: Type(True, False, False),  # Write Exclusive
    3: Type(False, False, False),  # Exclusive Access
    5: Type(True, True, False),  # Write Exclusive, Registrants Only
    6: Type(False, True, False),  # Exclusive Access, Registrants Only
    7: Type(True, True, True),  # Write Exclusive, All Registrants
    8: Type(False, True, True),  # Exclusive Access, All Registrants
}


class Notice(NamedTuple):
    """A unit attention that a change owes to a nexus."""

    port: str
    what: Sense


class ReservationConflict(Exception):
    """It needs a registration or a reservation that is not there, or another nexus's stands in its way."""


class Reservations:
    """The reservations of one logical unit. Ports are initiator port names, keys 64-bit numbers."""

    __slots__ = ("generation", "keys", "kind", "port", "unit_holder")

    def __init__(self) -> None:
        self.generation = 0
        self.keys: dict[str, int] = {}  # registrations, oldest first
        self.kind = 0  # a key of TYPES, 0 for no reservation
        self.port = ""  # who reserved; empty where every registrant is the holder
        self.unit_holder: object = None  # the nexus that RESERVE(6) was for

    def conflict(self, nexus: object, port: str, access: Access) -> bool:
        """Whether a reservation forbids this nexus such a command."""
        if access is Access.ALWAYS or not (self.kind or self.unit_holder is not None):
            return False
        if self.unit_holder is not None and self.unit_holder is not nexus:
            return True
        if access is Access.OPEN or not self.kind or self.holds(port):
            return False
        kind = TYPES[self.kind]
        if kind.registrants and port in self.keys:
            return False
        return not (kind.reads and access is Access.READ)

    def holds(self, port: str) -> bool:
        """Whether this nexus holds the persistent reservation."""
        return bool(self.kind) and (port in self.keys if TYPES[self.kind].everyone else port == self.port)

    @property
    def key(self) -> int:
        """The key under which the reservation is reported: 0 where every registrant is the holder."""
        return self.keys.get(self.port, 0)

    # RESERVE(6) and RELEASE(6)

    def reserve_unit(self, nexus: object, port: str) -> None:
        """RESERVE(6). Without effect for who is already served by a persistent reservation (SPC-4, 5.13.3: CRH)."""
        if self.kind or self.keys:
            if not self._served(port):
                raise ReservationConflict
            return
        self.unit_holder = nexus

    def release_unit(self) -> None:
        """RELEASE(6) by its holder, the end of its session, or a reset."""
        self.unit_holder = None

    def check_release_unit(self, port: str) -> None:
        """ReservationConflict where SPC-2's RELEASE is not let through beside persistent reservations."""
        if (self.kind or self.keys) and not self._served(port):
            raise ReservationConflict

    def _served(self, port: str) -> bool:
        return self.holds(port) or bool(self.kind and TYPES[self.kind].registrants and port in self.keys)

    # PERSISTENT RESERVE OUT

    def register(self, port: str, key: int, new: int, *, ignore: bool) -> list[Notice]:
        """REGISTER, REGISTER AND IGNORE EXISTING KEY: `new` 0 gives the registration up."""
        if not ignore and self.keys.get(port, 0) != key:
            raise ReservationConflict
        if not new and port not in self.keys:
            return []
        if new and port not in self.keys and len(self.keys) >= REGISTRATIONS_LIMIT:
            raise CheckCondition(sense.INSUFFICIENT_REGISTRATION_RESOURCES)
        self.generation += 1
        if new:
            self.keys[port] = new
            return []
        return self._unregister(port)

    def _unregister(self, port: str) -> list[Notice]:
        held = self.holds(port)
        del self.keys[port]
        if not held or (TYPES[self.kind].everyone and self.keys):
            return []
        released = TYPES[self.kind].registrants
        self.kind, self.port = 0, ""
        return [Notice(other, sense.RESERVATIONS_RELEASED) for other in self.keys] if released else []

    def reserve(self, port: str, key: int, kind: int) -> None:
        """RESERVE."""
        self._require(port, key)
        if self.kind:
            if self.holds(port) and self.kind == kind:
                return
            raise ReservationConflict
        self._take(port, kind)

    def release(self, port: str, key: int, kind: int) -> list[Notice]:
        """RELEASE. Of nothing, or of another's, it is no error."""
        self._require(port, key)
        if not self.holds(port):
            return []
        if self.kind != kind:
            raise CheckCondition(sense.INVALID_RELEASE)
        self.kind, self.port = 0, ""
        if not TYPES[kind].registrants:
            return []
        return [Notice(other, sense.RESERVATIONS_RELEASED) for other in self.keys if other != port]

    def clear(self, port: str, key: int) -> list[Notice]:
        """CLEAR: no registration and no reservation is left."""
        self._require(port, key)
        others = [other for other in self.keys if other != port]
        self.keys.clear()
        self.kind, self.port = 0, ""
        self.generation += 1
        return [Notice(other, sense.RESERVATIONS_PREEMPTED) for other in others]

    def preempt(self, port: str, key: int, victim: int, kind: int) -> list[Notice]:
        """PREEMPT, PREEMPT AND ABORT: remove all registrations with the key `victim`, and take the reservation where
        they held it. The ports of the notices of REGISTRATIONS PREEMPTED are those that were removed."""
        self._require(port, key)
        everyone = bool(self.kind) and TYPES[self.kind].everyone
        if victim:
            matches = [other for other, held in self.keys.items() if held == victim]
            if not matches:
                raise ReservationConflict
            taken = bool(self.port) and self.port in matches
        elif everyone:
            matches, taken = list(self.keys), True
        else:
            raise CheckCondition(sense.INVALID_PARAMETER.at(8))
        if taken and kind not in TYPES:
            raise CheckCondition(sense.INVALID_FIELD.at(2))
        for other in matches:
            if other != port or not taken:  # where there is nothing to take, its own key is a way to give it up
                del self.keys[other]
        self.generation += 1
        notices = [Notice(other, sense.REGISTRATIONS_PREEMPTED) for other in matches if other != port]
        if taken:
            if self.kind != kind:
                notices += [Notice(other, sense.RESERVATIONS_RELEASED) for other in self.keys if other != port]
            self._take(port, kind)
        elif everyone and not self.keys:
            self.kind = 0
        return notices

    def _require(self, port: str, key: int) -> None:
        if port not in self.keys or self.keys[port] != key:
            raise ReservationConflict

    def _take(self, port: str, kind: int) -> None:
        self.kind, self.port = kind, "" if TYPES[kind].everyone else port
