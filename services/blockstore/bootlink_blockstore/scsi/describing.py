"""What a disk says of itself: INQUIRY, capacity, units, sense, logs, defects, and what it can do.

Each answer is built whole by the codecs and cut to the allocation length here.
"""

from __future__ import annotations

from typing import Final

from bootlink_blockstore.image import Buffer
from bootlink_blockstore.scsi.blocks import LIMITS, cut
from bootlink_blockstore.scsi.device import GOOD, LogicalUnit, Nexus, Running
from bootlink_wire import scsi_sense as sense
from bootlink_wire import scsi_vpd as vpd
from bootlink_wire.scsi_cdb import ACTION_OPCODES
from bootlink_wire.scsi_sense import CheckCondition

LOG_PAGES: Final = {0x00: b"\x00\x2f", 0x2F: bytes((0, 0, 0x03, 4, 0, 0, 0xFF, 0))}  # no exception, no temperature
CUMULATIVE: Final = 0x40  # LOG SENSE, page control 01b: the only one there is

# ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET (SPC-4, table 248).
FUNCTIONS: Final = 0x80 | 0x40 | 0x10 | 0x08


def unit_ready(_unit: LogicalUnit, _nexus: Nexus, _cdb: bytes, _data: Buffer) -> Running:
    return GOOD


def start_stop_unit(_unit: LogicalUnit, _nexus: Nexus, _cdb: bytes, _data: Buffer) -> Running:
    """Accepted without effect: a boot disk does not stop, and Linux says STOP when it shuts down."""
    return GOOD


def prevent_allow(_unit: LogicalUnit, _nexus: Nexus, _cdb: bytes, _data: Buffer) -> Running:
    """The medium cannot be removed in any case."""
    return GOOD


def request_sense(unit: LogicalUnit, nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    """The pending unit attention, which is told thereby, or that there is nothing to tell."""
    if unit.disk is None:
        held = sense.NO_LOGICAL_UNIT
    else:
        held = nexus.attentions.pop(0) if nexus.attentions else sense.NO_SENSE
    return cut(held.encode(descriptor=bool(cdb[1] & 1)), cdb[4])


def inquiry(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    allocation = int.from_bytes(cdb[3:5], "big")
    if not cdb[1] & 1:
        # Windows tries a page code without EVPD to see whether this is refused as it must be (FIELD section 3).
        if cdb[2]:
            raise CheckCondition(sense.INVALID_FIELD.at(2))
        return cut(vpd.inquiry(vpd.DISK if unit.disk else vpd.NO_DEVICE, copies=True), allocation)
    page = vpd.vital_product_data(cdb[2], unit.identity, LIMITS) if unit.disk else None
    if page is None:
        raise CheckCondition(sense.INVALID_FIELD.at(2))
    return cut(page, allocation)


def report_luns(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    allocation = int.from_bytes(cdb[6:10], "big")
    if cdb[2] not in (0, 1, 2) or allocation < 16:
        raise CheckCondition(sense.INVALID_FIELD.at(2 if cdb[2] > 2 else 6))
    return cut(vpd.report_luns([] if cdb[2] == 1 else list(unit.luns)), allocation)


def read_capacity_10(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    if not cdb[8] & 1 and any(cdb[2:6]):
        raise CheckCondition(sense.INVALID_FIELD.at(2))  # an address without PMI
    return cut(vpd.read_capacity_10(unit.sectors), 8)


def read_capacity_16(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    return cut(vpd.read_capacity_16(unit.sectors), int.from_bytes(cdb[10:14], "big"))


def read_defects_10(_unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    """No defects, in the lists and the format that were asked for (SBC-3, section 5.18)."""
    return cut(bytes((0, cdb[2] & 0x1F, 0, 0)), int.from_bytes(cdb[7:9], "big"))


def read_defects_12(_unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    return cut(bytes((0, cdb[1] & 0x1F)) + bytes(6), int.from_bytes(cdb[6:10], "big"))


def log_sense(_unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    """The list of log pages, and that there is no informational exception (SPC-4, sections 6.8 and 7.3)."""
    page = cdb[2] & 0x3F
    body = LOG_PAGES.get(page)
    if cdb[1] & 1 or (page and cdb[2] & 0xC0 != CUMULATIVE) or body is None:
        raise CheckCondition(sense.INVALID_FIELD.at(1 if cdb[1] & 1 else 2))
    if cdb[3]:
        raise CheckCondition(sense.INVALID_FIELD.at(3))  # there are no subpages
    if any(cdb[5:7]):
        raise CheckCondition(sense.INVALID_FIELD.at(5))  # nor a parameter but the first
    return cut(bytes((page, 0)) + len(body).to_bytes(2, "big") + body, int.from_bytes(cdb[7:9], "big"))


def report_supported_opcodes(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    """All commands, or whether one is supported and with which bits (SPC-4, section 6.35)."""
    options, opcode, action = cdb[2] & 7, cdb[3], int.from_bytes(cdb[4:6], "big")
    timeouts = bytes((0, 10)) + bytes(10) if cdb[2] & 0x80 else b""  # RCTD: no time-out is claimed
    allocation = int.from_bytes(cdb[6:10], "big")
    if options == 0:
        rows = [
            bytes((key >> 8, 0, 0, key & 0xFF, 0, bool(timeouts) << 1 | (key >> 8 in ACTION_OPCODES)))
            + len(row.usage).to_bytes(2, "big")
            + timeouts
            for key, row in sorted(unit.table.items())
        ]
        body = b"".join(rows)
        return cut(len(body).to_bytes(4, "big") + body, allocation)
    has_actions = opcode in ACTION_OPCODES
    if options > 3 or (options == 1 and has_actions) or (options == 2 and not has_actions):
        raise CheckCondition(sense.INVALID_FIELD.at(2))
    row = unit.table.get(opcode << 8 | (action if has_actions else 0)) if action < 256 else None
    if row is None:
        return cut(bytes((0, 0x01, 0, 0)), allocation)  # not supported
    answer = bytes((0, 0x03 | (0x80 if timeouts else 0))) + len(row.usage).to_bytes(2, "big") + row.usage + timeouts
    return cut(answer, allocation)


def report_supported_functions(_unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    """The task management functions (SPC-4, section 6.36). REPD: with time-outs, of which none is claimed."""
    allocation = int.from_bytes(cdb[6:10], "big")
    if allocation < 4:
        raise CheckCondition(sense.INVALID_FIELD.at(6))
    more = bytes((0, 0, 12)) + bytes(12) if cdb[2] & 0x80 else bytes(3)
    return cut(bytes((FUNCTIONS,)) + more, allocation)
