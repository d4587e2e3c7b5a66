"""The command table: every command of a disk, and what is to be known of it before it runs.

A handler takes the logical unit, the nexus, the CDB (16 bytes, zero-padded) and the data that came with it, and gives
an `Outcome` or a coroutine of one. See `device.Command` for the columns.
"""

from __future__ import annotations

from typing import Any, Final

from bootlink_blockstore.scsi import blocks, copying, describing, modes, provisioning, reading, reserving, writing
from bootlink_blockstore.scsi.device import Command
from bootlink_blockstore.scsi.reservations import Access
from bootlink_wire import scsi_cdb as cdbs
from bootlink_wire import scsi_copy as copy
from bootlink_wire.scsi_cdb import Op
from bootlink_wire.scsi_reservations import In, Out

ALWAYS, OPEN, READ, GUARDED, WRITE = Access.ALWAYS, Access.OPEN, Access.READ, Access.GUARDED, Access.WRITE


def _usage(op: int, text: str, action: int | None = None) -> bytes:
    """CDB usage data from the bits of the bytes after the operation code, in hex; the control byte is not used."""
    mask = bytearray(bytes((op,)) + bytes.fromhex(text) + b"\0")
    if action is not None:
        mask[1] = mask[1] & 0xE0 | action
    return bytes(mask)


def _row(
    name: str, op: int, run: Any, access: Access, bits: str, action: int | None = None, **more: Any
) -> tuple[int, Command]:
    return op << 8 | (action or 0), Command(name, run, _usage(op, bits, action), access, **more)


def _rows(name: str, op: int, run: Any, access: Access, bits: str, actions: Any, **more: Any) -> list[Any]:
    """One row for each service action."""
    return [
        _row(f"{name}, {action.name.replace('_', ' ')}", op, run, access, bits, action, **more) for action in actions
    ]


_LBA_6 = "1fffffff"
_LBA_10 = "ffffffff00ffff"
_LBA_12 = "ffffffffffffffff00"
_LBA_16 = "ffffffffffffffffffffffff00"
_SELECT_10 = "110000000000ffff"

_READS: Final[dict[str, Any]] = {"reads": blocks.transfer_size}
_WRITES: Final[dict[str, Any]] = {"data_out": blocks.transfer_size}
_VERIFY: Final[dict[str, Any]] = {"data_out": blocks.byte_check_size, "reads": reading.verify_reads}
_WRITE_VERIFY: Final[dict[str, Any]] = {"data_out": writing.write_and_verify_size, "reads": reading.verify_reads}
_PREFETCH: Final[dict[str, Any]] = {"reads": reading.prefetched}
_SAME: Final[dict[str, Any]] = {
    "data_out": provisioning.write_same_size,
    "reads": provisioning.piece_size,
    "whole": True,
}
_SELECT: Final[dict[str, Any]] = {"parameters": modes.select_size}

TABLE: Final[dict[int, Command]] = dict(
    (
        # What a disk says of itself
        _row("TEST UNIT READY", Op.TEST_UNIT_READY, describing.unit_ready, OPEN, "00000000"),
        _row("REQUEST SENSE", Op.REQUEST_SENSE, describing.request_sense, ALWAYS, "010000ff", despite_attention=True),
        _row("INQUIRY", Op.INQUIRY, describing.inquiry, ALWAYS, "01ffffff", despite_attention=True),
        _row(
            "REPORT LUNS",
            Op.REPORT_LUNS,
            describing.report_luns,
            ALWAYS,
            "00ff000000ffffffff00",
            despite_attention=True,
        ),
        _row("LOG SENSE", Op.LOG_SENSE, describing.log_sense, ALWAYS, "01ffff00ffffffff"),
        _row("READ CAPACITY(10)", Op.READ_CAPACITY_10, describing.read_capacity_10, OPEN, "00ffffffff000001"),
        _row(
            *("READ CAPACITY(16)", Op.SERVICE_ACTION_IN_16, describing.read_capacity_16, OPEN),
            *("1f" + "00" * 8 + "ffffffff" + "00", cdbs.READ_CAPACITY_16),
        ),
        _row("READ DEFECT DATA(10)", Op.READ_DEFECT_DATA_10, describing.read_defects_10, READ, "001f00000000ffff"),
        _row("READ DEFECT DATA(12)", Op.READ_DEFECT_DATA_12, describing.read_defects_12, READ, "1f00000000ffffffff00"),
        _row(
            *("REPORT SUPPORTED OPERATION CODES", Op.MAINTENANCE_IN, describing.report_supported_opcodes, GUARDED),
            *("1f87ffffffffffffff00", cdbs.REPORT_SUPPORTED_OPCODES),
        ),
        _row(
            *("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", Op.MAINTENANCE_IN, describing.report_supported_functions),
            *(GUARDED, "1f80000000ffffffff00", cdbs.REPORT_SUPPORTED_FUNCTIONS),
        ),
        _row("START STOP UNIT", Op.START_STOP_UNIT, describing.start_stop_unit, GUARDED, "010000f7"),
        _row(
            *("PREVENT ALLOW MEDIUM REMOVAL", Op.PREVENT_ALLOW_MEDIUM_REMOVAL, describing.prevent_allow),
            *(GUARDED, "00000003"),
        ),
        # Reading
        _row("READ(6)", Op.READ_6, reading.read, READ, _LBA_6, **_READS),
        _row("READ(10)", Op.READ_10, reading.read, READ, "f8" + _LBA_10, **_READS),
        _row("READ(12)", Op.READ_12, reading.read, READ, "f8" + _LBA_12, **_READS),
        _row("READ(16)", Op.READ_16, reading.read, READ, "f8" + _LBA_16, **_READS),
        _row("VERIFY(10)", Op.VERIFY_10, reading.verify, READ, "f6" + _LBA_10, **_VERIFY),
        _row("VERIFY(12)", Op.VERIFY_12, reading.verify, READ, "f6" + _LBA_12, **_VERIFY),
        _row("VERIFY(16)", Op.VERIFY_16, reading.verify, READ, "f6" + _LBA_16, **_VERIFY),
        _row("PRE-FETCH(10)", Op.PREFETCH_10, reading.prefetch, READ, "02" + _LBA_10, **_PREFETCH),
        _row("PRE-FETCH(16)", Op.PREFETCH_16, reading.prefetch, READ, "02" + _LBA_16, **_PREFETCH),
        # Writing
        _row("WRITE(6)", Op.WRITE_6, writing.write, WRITE, _LBA_6, **_WRITES),
        _row("WRITE(10)", Op.WRITE_10, writing.write, WRITE, "f8" + _LBA_10, **_WRITES),
        _row("WRITE(12)", Op.WRITE_12, writing.write, WRITE, "f8" + _LBA_12, **_WRITES),
        _row("WRITE(16)", Op.WRITE_16, writing.write, WRITE, "f8" + _LBA_16, **_WRITES),
        _row(
            *("WRITE AND VERIFY(10)", Op.WRITE_AND_VERIFY_10, writing.write_and_verify, WRITE, "f6" + _LBA_10),
            **_WRITE_VERIFY,
        ),
        _row(
            *("WRITE AND VERIFY(12)", Op.WRITE_AND_VERIFY_12, writing.write_and_verify, WRITE, "f6" + _LBA_12),
            **_WRITE_VERIFY,
        ),
        _row(
            *("WRITE AND VERIFY(16)", Op.WRITE_AND_VERIFY_16, writing.write_and_verify, WRITE, "f6" + _LBA_16),
            **_WRITE_VERIFY,
        ),
        _row(
            *("COMPARE AND WRITE", Op.COMPARE_AND_WRITE, writing.compare_and_write, WRITE),
            *("f8" + "ff" * 8 + "000000ff00",),
            data_out=writing.compare_and_write_size,
            whole=True,
        ),
        _row(
            *("ORWRITE(16)", Op.ORWRITE_16, writing.orwrite, WRITE, "f8" + _LBA_16),
            data_out=writing.orwrite_size,
            whole=True,
        ),
        _row(
            *("WRITE ATOMIC(16)", Op.WRITE_ATOMIC_16, writing.write_atomic, WRITE, "f8" + _LBA_16),
            data_out=writing.write_atomic_size,
            whole=True,
        ),
        _row("SYNCHRONIZE CACHE(10)", Op.SYNCHRONIZE_CACHE_10, writing.synchronize_cache, GUARDED, "02" + _LBA_10),
        _row("SYNCHRONIZE CACHE(16)", Op.SYNCHRONIZE_CACHE_16, writing.synchronize_cache, GUARDED, "02" + _LBA_16),
        # Space
        _row(*("UNMAP", Op.UNMAP, provisioning.unmap, WRITE, "010000000000ffff"), parameters=provisioning.unmap_size),
        _row("WRITE SAME(10)", Op.WRITE_SAME_10, provisioning.write_same, WRITE, "f8" + _LBA_10, **_SAME),
        _row("WRITE SAME(16)", Op.WRITE_SAME_16, provisioning.write_same, WRITE, "f9" + _LBA_16, **_SAME),
        _row(
            *("GET LBA STATUS", Op.SERVICE_ACTION_IN_16, provisioning.get_lba_status, READ),
            *("1f" + "ff" * 12 + "00", cdbs.GET_LBA_STATUS),
        ),
        _row(
            *("EXTENDED COPY", Op.EXTENDED_COPY, copying.extended_copy, WRITE),
            *("1f" + "00" * 8 + "ffffffff" + "00", copy.EXTENDED_COPY),
            parameters=copying.copy_size,
            reads=copying.piece_size,
        ),
        _row(
            *("RECEIVE COPY RESULTS, COPY STATUS", Op.RECEIVE_COPY_RESULTS, copying.copy_status, GUARDED),
            *("1fff" + "00" * 7 + "ffffffff" + "00", copy.COPY_STATUS),
        ),
        _row(
            *("RECEIVE COPY RESULTS, OPERATING PARAMETERS", Op.RECEIVE_COPY_RESULTS, copying.operating_parameters),
            *(GUARDED, "1f" + "00" * 8 + "ffffffff" + "00", copy.OPERATING_PARAMETERS),
        ),
        # Modes
        _row("MODE SENSE(6)", Op.MODE_SENSE_6, modes.sense_6, GUARDED, "08ffffff"),
        _row("MODE SENSE(10)", Op.MODE_SENSE_10, modes.sense_10, GUARDED, "18ffff000000ffff"),
        _row("MODE SELECT(6)", Op.MODE_SELECT_6, modes.select, GUARDED, "110000ff", **_SELECT),
        _row("MODE SELECT(10)", Op.MODE_SELECT_10, modes.select, GUARDED, _SELECT_10, **_SELECT),
        # Reservations
        _row("RESERVE(6)", Op.RESERVE_6, reserving.reserve_6, OPEN, "00000000"),
        _row("RELEASE(6)", Op.RELEASE_6, reserving.release_6, ALWAYS, "00000000"),
        *_rows(
            *("PERSISTENT RESERVE IN", Op.PERSISTENT_RESERVE_IN, reserving.persistent_in, OPEN),
            *("1f0000000000ffff", In),
        ),
        *_rows(
            *("PERSISTENT RESERVE OUT", Op.PERSISTENT_RESERVE_OUT, reserving.persistent_out, OPEN),
            *("1fff0000ffffffff", Out),
            parameters=reserving.persistent_out_size,
        ),
    )
)

assert all(len(row.usage) == cdbs.length(key >> 8) for key, row in TABLE.items())
