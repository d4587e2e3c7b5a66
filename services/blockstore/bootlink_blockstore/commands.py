"""The SCSI commands of a disk, one handler each, and the table that finds them.

A handler takes the logical unit, the nexus, the CDB (16 bytes, zero-padded) and the data that came with it, and gives
an `Outcome` or a coroutine of one. Data may be shorter than the CDB asks for (the initiator announced less): a write
then writes what came, in whole sectors (RFC 7143, section 11.4.5.1: the target may not touch more than was announced).
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from bootlink_blockstore.device import (
    ACTION_OPCODES,
    GOOD,
    TRANSFER_LIMIT,
    Command,
    LogicalUnit,
    Nexus,
    Outcome,
    Running,
)
from bootlink_blockstore.disk import ClientDisk
from bootlink_blockstore.image import Buffer, Buffers
from bootlink_wire import scsi_cdb as cdbs
from bootlink_wire import scsi_sense as sense
from bootlink_wire import scsi_vpd as vpd
from bootlink_wire.scsi_cdb import FUA, PROTECT, SECTOR, Op
from bootlink_wire.scsi_sense import CheckCondition


def _disk(unit: LogicalUnit) -> ClientDisk:
    if unit.disk is None:
        raise CheckCondition(sense.NO_LOGICAL_UNIT)
    return unit.disk


def _range(unit: LogicalUnit, cdb: bytes) -> tuple[int, int, int]:
    """Offset and length in bytes, and byte 1's flags, of a command on blocks. CheckCondition if it goes too far."""
    lba, sectors, flags = cdbs.blocks(cdb)
    if flags & PROTECT:
        raise CheckCondition(sense.INVALID_FIELD.at(1))  # protection information was never formatted
    if lba + sectors > unit.sectors:
        raise CheckCondition(sense.LBA_OUT_OF_RANGE)
    return lba * SECTOR, sectors * SECTOR, flags


def _transfer(unit: LogicalUnit, cdb: bytes) -> tuple[int, int, int]:
    """The same for a command that moves these blocks, which may be so many and no more (page B0)."""
    offset, length, flags = _range(unit, cdb)
    if length > TRANSFER_LIMIT * SECTOR:
        raise CheckCondition(sense.INVALID_FIELD.at(2))
    return offset, length, flags


def _cut(data: bytes, allocation: int) -> Outcome:
    """Parameter data, as much of it as the initiator has room for."""
    return Outcome(data=[data[:allocation]]) if allocation and data else GOOD


# Reading and writing


def _transfer_size(unit: LogicalUnit, cdb: bytes) -> int:
    return _transfer(unit, cdb)[1]


def read(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    offset, length, _ = _transfer(unit, cdb)
    if not length:
        return GOOD
    buffers = _disk(unit).read(offset, length)
    return Outcome(data=buffers) if isinstance(buffers, list) else _read_later(buffers)


async def _read_later(reading: Coroutine[Any, Any, Buffers]) -> Outcome:
    return Outcome(data=await reading)


def write(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
    offset, _, flags = _transfer(unit, cdb)
    if not data:
        return GOOD
    writing = _disk(unit).write(offset, data, fua=bool(flags & FUA))
    return GOOD if writing is None else _later(writing)


async def _later(doing: Coroutine[Any, Any, None]) -> Outcome:
    await doing
    return GOOD


def _verify_size(unit: LogicalUnit, cdb: bytes) -> int:
    check = cdb[1] & cdbs.BYTE_CHECK
    if check == 0x04:
        raise CheckCondition(sense.INVALID_FIELD.at(1))
    if check == 0:
        return 0 * _range(unit, cdb)[1]
    length = _transfer(unit, cdb)[1]
    return length if check == 0x02 else min(length, SECTOR)  # 11b: one block, compared with each


def _verify_reads(unit: LogicalUnit, cdb: bytes) -> int:
    return _transfer(unit, cdb)[1] if cdb[1] & cdbs.BYTE_CHECK else 0


def verify(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, data: Buffer) -> Running:
    """VERIFY: compare with what came, or, with BYTCHK 0, nothing: what can be read was checked when it was read."""
    if not cdb[1] & cdbs.BYTE_CHECK or not data:
        return GOOD
    offset, length, _ = _transfer(unit, cdb)
    expected = bytes(data) * (length // SECTOR) if cdb[1] & cdbs.BYTE_CHECK == cdbs.BYTE_CHECK else bytes(data)
    buffers = _disk(unit).read(offset, len(expected))
    return _compare(buffers, expected) if isinstance(buffers, list) else _compare_later(buffers, expected)


def _compare(buffers: Buffers, expected: bytes) -> Outcome:
    held = b"".join(buffers)
    if held == expected:
        return GOOD
    # By halves: byte by byte would hold the event loop for a second where 4 MiB differ at their end.
    at, size = 0, len(held)
    while size > 1:
        half = size // 2
        if held[at : at + half] == expected[at : at + half]:
            at += half
            size -= half
        else:
            size = half
    raise CheckCondition(sense.Sense(sense.MISCOMPARE.key, sense.MISCOMPARE.code, information=at))


async def _compare_later(reading: Coroutine[Any, Any, Buffers], expected: bytes) -> Outcome:
    return _compare(await reading, expected)


def synchronize_cache(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    """All of the disk, whatever the range; and no earlier answer with IMMED: a flush that is not done is no flush."""
    _range(unit, cdb)
    flushing = _disk(unit).flush()
    return GOOD if flushing is None else _later(flushing)


# Asking and telling


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
    return _cut(held.encode(descriptor=bool(cdb[1] & 1)), cdb[4])


def inquiry(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    allocation = int.from_bytes(cdb[3:5], "big")
    if not cdb[1] & 1:
        # Windows tries a page code without EVPD to see whether this is refused as it must be (FIELD section 3).
        if cdb[2]:
            raise CheckCondition(sense.INVALID_FIELD.at(2))
        return _cut(vpd.inquiry(vpd.DISK if unit.disk else vpd.NO_DEVICE), allocation)
    page = vpd.vital_product_data(cdb[2], unit.identity, TRANSFER_LIMIT) if unit.disk else None
    if page is None:
        raise CheckCondition(sense.INVALID_FIELD.at(2))
    return _cut(page, allocation)


def report_luns(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    allocation = int.from_bytes(cdb[6:10], "big")
    if cdb[2] not in (0, 1, 2) or allocation < 16:
        raise CheckCondition(sense.INVALID_FIELD.at(2 if cdb[2] > 2 else 6))
    return _cut(vpd.report_luns([] if cdb[2] == 1 else list(unit.luns)), allocation)


def read_capacity_10(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    if not cdb[8] & 1 and any(cdb[2:6]):
        raise CheckCondition(sense.INVALID_FIELD.at(2))  # an address without PMI
    return _cut(vpd.read_capacity_10(unit.sectors), 8)


def read_capacity_16(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    return _cut(vpd.read_capacity_16(unit.sectors), int.from_bytes(cdb[10:14], "big"))


def _mode_pages(cdb: bytes) -> bytes:
    control = cdb[2] >> 6
    if control == vpd.SAVED:
        raise CheckCondition(sense.SAVING_NOT_SUPPORTED)
    pages = vpd.mode_pages(cdb[2] & 0x3F, control) if cdb[3] in (0, 0xFF) else None
    if pages is None:
        raise CheckCondition(sense.INVALID_FIELD.at(2 if cdb[3] in (0, 0xFF) else 3))
    return pages


def mode_sense_6(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    return _cut(vpd.mode_sense_6(_mode_pages(cdb), unit.sectors, descriptor=not cdb[1] & 8), cdb[4])


def mode_sense_10(unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    parameters = vpd.mode_sense_10(
        _mode_pages(cdb), unit.sectors, descriptor=not cdb[1] & 8, long_lba=bool(cdb[1] & 0x10)
    )
    return _cut(parameters, int.from_bytes(cdb[7:9], "big"))


def report_supported_opcodes(_unit: LogicalUnit, _nexus: Nexus, cdb: bytes, _data: Buffer) -> Running:
    """All commands, or whether one is supported and with which bits (SPC-4, section 6.35)."""
    options, opcode, action = cdb[2] & 7, cdb[3], int.from_bytes(cdb[4:6], "big")
    timeouts = bytes((0, 10)) + bytes(10) if cdb[2] & 0x80 else b""  # RCTD: no time-out is claimed
    allocation = int.from_bytes(cdb[6:10], "big")
    if options == 0:
        rows = [
            bytes((key >> 8, 0, 0, key & 0xFF, 0, bool(timeouts) << 1 | (key >> 8 in ACTION_OPCODES)))
            + len(row.usage).to_bytes(2, "big")
            + timeouts
            for key, row in sorted(TABLE.items())
        ]
        body = b"".join(rows)
        return _cut(len(body).to_bytes(4, "big") + body, allocation)
    has_actions = opcode in ACTION_OPCODES
    if options > 3 or (options == 1 and has_actions) or (options == 2 and not has_actions):
        raise CheckCondition(sense.INVALID_FIELD.at(2))
    row = TABLE.get(opcode << 8 | (action if has_actions else 0)) if action < 256 else None
    if row is None:
        return _cut(bytes((0, 0x01, 0, 0)), allocation)  # not supported
    answer = bytes((0, 0x03 | (0x80 if timeouts else 0))) + len(row.usage).to_bytes(2, "big") + row.usage + timeouts
    return _cut(answer, allocation)


def _usage(op: int, text: str, action: int | None = None) -> bytes:
    """CDB usage data from the bits of the bytes after the operation code, in hex; the control byte is not used."""
    mask = bytearray(bytes((op,)) + bytes.fromhex(text) + b"\0")
    if action is not None:
        mask[1] = mask[1] & 0xE0 | action
    return bytes(mask)


def _row(name: str, op: int, run: Any, bits: str, action: int | None = None, **more: Any) -> tuple[int, Command]:
    return op << 8 | (action or 0), Command(name, run, _usage(op, bits, action), **more)


_LBA_10 = "ffffffff00ffff"
_LBA_12 = "ffffffffffffffff00"
_LBA_16 = "ffffffffffffffffffffffff00"

_VERIFY: Final[dict[str, Any]] = {"data_out": _verify_size, "reads": _verify_reads}

TABLE: Final[dict[int, Command]] = dict(
    (
        _row("TEST UNIT READY", Op.TEST_UNIT_READY, unit_ready, "00000000"),
        _row("REQUEST SENSE", Op.REQUEST_SENSE, request_sense, "010000ff", despite_attention=True),
        _row("READ(6)", Op.READ_6, read, "1fffffff", reads=_transfer_size),
        _row("WRITE(6)", Op.WRITE_6, write, "1fffffff", data_out=_transfer_size),
        _row("INQUIRY", Op.INQUIRY, inquiry, "01ffffff", despite_attention=True),
        _row("MODE SENSE(6)", Op.MODE_SENSE_6, mode_sense_6, "08ffffff"),
        _row("START STOP UNIT", Op.START_STOP_UNIT, start_stop_unit, "010000f7"),
        _row("PREVENT ALLOW MEDIUM REMOVAL", Op.PREVENT_ALLOW_MEDIUM_REMOVAL, prevent_allow, "00000003"),
        _row("READ CAPACITY(10)", Op.READ_CAPACITY_10, read_capacity_10, "00ffffffff000001"),
        _row("READ(10)", Op.READ_10, read, "f8" + _LBA_10, reads=_transfer_size),
        _row("WRITE(10)", Op.WRITE_10, write, "f8" + _LBA_10, data_out=_transfer_size),
        _row("VERIFY(10)", Op.VERIFY_10, verify, "f6" + _LBA_10, **_VERIFY),
        _row("SYNCHRONIZE CACHE(10)", Op.SYNCHRONIZE_CACHE_10, synchronize_cache, "02" + _LBA_10),
        _row("MODE SENSE(10)", Op.MODE_SENSE_10, mode_sense_10, "18ffff000000ffff"),
        _row("READ(16)", Op.READ_16, read, "f8" + _LBA_16, reads=_transfer_size),
        _row("WRITE(16)", Op.WRITE_16, write, "f8" + _LBA_16, data_out=_transfer_size),
        _row("VERIFY(16)", Op.VERIFY_16, verify, "f6" + _LBA_16, **_VERIFY),
        _row("SYNCHRONIZE CACHE(16)", Op.SYNCHRONIZE_CACHE_16, synchronize_cache, "02" + _LBA_16),
        _row(
            "READ CAPACITY(16)",
            *(Op.SERVICE_ACTION_IN_16, read_capacity_16, "1f" + "00" * 8 + "ffffffff" + "00", cdbs.READ_CAPACITY_16),
        ),
        _row("REPORT LUNS", Op.REPORT_LUNS, report_luns, "00ff000000ffffffff00", despite_attention=True),
        _row(
            "REPORT SUPPORTED OPERATION CODES",
            *(Op.MAINTENANCE_IN, report_supported_opcodes, "1f87ffffffffffffff00", cdbs.REPORT_SUPPORTED_OPCODES),
        ),
        _row("READ(12)", Op.READ_12, read, "f8" + _LBA_12, reads=_transfer_size),
        _row("WRITE(12)", Op.WRITE_12, write, "f8" + _LBA_12, data_out=_transfer_size),
        _row("VERIFY(12)", Op.VERIFY_12, verify, "f6" + _LBA_12, **_VERIFY),
    )
)

assert all(len(row.usage) == cdbs.length(key >> 8) for key, row in TABLE.items())
