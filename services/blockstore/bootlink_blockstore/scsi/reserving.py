"""PERSISTENT RESERVE IN and OUT, RESERVE(6) and RELEASE(6): the commands on a unit's `Reservations`.

Whoever is hit by a change is told by a unit attention, and every session looks anew whether it may take its short cut
around `LogicalUnit.prepare`. PREEMPT AND ABORT is answered once the tasks of the preempted sessions are dead; that is
the session's part (`Outcome.abort`).
"""

from __future__ import annotations

from typing import Final

from bootlink_blockstore.image import Buffer
from bootlink_blockstore.scsi.blocks import cut
from bootlink_blockstore.scsi.device import GOOD, LogicalUnit, Nexus, Outcome, Running
from bootlink_blockstore.scsi.reservations import TYPES, Notice
from bootlink_wire import scsi_reservations as codec
from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_reservations import In, Out
from bootlink_wire.scsi_sense import CheckCondition

LOGICAL_UNIT: Final = 0  # the only scope there is

# RESERVE and RELEASE need a type; a PREEMPT does where it takes a reservation, which is seen there.
_TYPED: Final = (Out.RESERVE, Out.RELEASE)


def persistent_in(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    held, action = unit.reservations, cdb[1] & 0x1F
    if action == In.READ_KEYS:
        answer = codec.keys(held.generation, list(held.keys.values()))
    elif action == In.READ_RESERVATION:
        answer = codec.reservation(held.generation, held.key, held.kind)
    elif action == In.REPORT_CAPABILITIES:
        answer = codec.capabilities()
    else:
        registered = [(port, key, held.holds(port)) for port, key in held.keys.items()]
        answer = codec.full_status(held.generation, registered, held.kind)
    return cut(answer, int.from_bytes(cdb[7:9], "big"))


def persistent_out_size(_unit: LogicalUnit, cdb: bytes) -> int:
    """Bytes of the parameter list, which has one length."""
    action, scope, kind = cdb[1] & 0x1F, cdb[2] >> 4, cdb[2] & 0x0F
    if action in _TYPED and (scope != LOGICAL_UNIT or kind not in TYPES):
        raise CheckCondition(sense.INVALID_FIELD.at(2))
    if int.from_bytes(cdb[5:9], "big") != codec.PARAMETERS:
        raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
    return codec.PARAMETERS


def persistent_out(unit: LogicalUnit, nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
    key, action_key = codec.parse(bytes(data))
    held, port, action, kind = unit.reservations, nexus.port, cdb[1] & 0x1F, cdb[2] & 0x0F
    notices: list[Notice] = []
    if action in (Out.REGISTER, Out.REGISTER_AND_IGNORE):
        notices = held.register(port, key, action_key, ignore=action == Out.REGISTER_AND_IGNORE)
    elif action == Out.RESERVE:
        held.reserve(port, key, kind)
    elif action == Out.RELEASE:
        notices = held.release(port, key, kind)
    elif action == Out.CLEAR:
        notices = held.clear(port, key)
    else:
        notices = held.preempt(port, key, action_key, kind)
    unit.notify(notices)
    unit.changed()
    if action != Out.PREEMPT_AND_ABORT:
        return GOOD
    preempted = {victim for victim, what in notices if what is sense.REGISTRATIONS_PREEMPTED}
    return Outcome(abort=tuple(hit for hit in (*unit.nexuses, *unit.ending) if hit.port in preempted))


def reserve_6(unit: LogicalUnit, nexus: Nexus, _cdb: bytes, _data: Buffer) -> Running:
    """RESERVE(6) of the whole unit, for its session alone (SPC-2, section 7.21): third parties are obsolete."""
    unit.reservations.reserve_unit(nexus, nexus.port)
    unit.changed()
    return GOOD


def release_6(unit: LogicalUnit, nexus: Nexus, _cdb: bytes, _data: Buffer) -> Running:
    """RELEASE(6). By who does not hold it, it is without effect (SPC-2, section 7.18)."""
    unit.reservations.check_release_unit(nexus.port)
    if unit.reservations.unit_holder is nexus:
        unit.reservations.release_unit()
        unit.changed()
    return GOOD
