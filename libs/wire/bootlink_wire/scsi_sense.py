"""SCSI status and sense data (SAM-5, section 5.3; SPC-4, section 4.5).

A command ends with a status. CHECK CONDITION comes with sense data: a key (what kind of trouble) and an additional
code with its qualifier (which trouble). `Sense` is one such answer; those that a disk gives are named below. They are
encoded in fixed format (response code 70h), which every initiator reads, or in descriptor format (72h) where the
initiator asked for it by the D_SENSE bit or a REQUEST SENSE with DESC.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final


class Status(IntEnum):
    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    TASK_ABORTED = 0x40


class SenseKey(IntEnum):
    NO_SENSE = 0x0
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    MISCOMPARE = 0xE


FIXED_SIZE: Final = 18
_SPECIFIC: Final = 0x80  # SKSV: the sense-key specific bytes are valid
_IN_CDB: Final = 0x40  # C/D: the field is in the CDB, not in the parameter data


@dataclass(frozen=True, slots=True)
class Sense:
    """One sense. `field` is the byte at fault (ILLEGAL REQUEST); `information` what the code says of it."""

    key: SenseKey
    code: int  # additional sense code << 8 | qualifier
    field: int | None = None
    information: int | None = None
    in_data: bool = False  # `field` counts in the parameter data, not in the CDB

    def at(self, field: int) -> Sense:
        """The same, with the byte at fault: of the CDB, or of the parameter data."""
        return replace(self, field=field)

    def _specific(self) -> bytes:
        """The sense-key specific bytes; empty if there is nothing to say."""
        if self.field is not None:
            return bytes((_SPECIFIC | (0 if self.in_data else _IN_CDB),)) + self.field.to_bytes(2, "big")
        return b""

    def encode(self, *, descriptor: bool = False) -> bytes:
        """The sense data."""
        return self._descriptors() if descriptor else self._fixed()

    def _fixed(self) -> bytes:
        data = bytearray(FIXED_SIZE)
        data[0] = 0x70
        data[2] = self.key
        data[7] = FIXED_SIZE - 8
        data[12:14] = self.code.to_bytes(2, "big")
        if self.information is not None and self.information < 1 << 32:
            data[0] |= 0x80
            data[3:7] = self.information.to_bytes(4, "big")
        data[15 : 15 + len(self._specific())] = self._specific()
        return bytes(data)

    def _descriptors(self) -> bytes:
        parts = b""
        if self.information is not None:
            parts += bytes((0x00, 0x0A, 0x80, 0)) + self.information.to_bytes(8, "big")
        if specific := self._specific():
            parts += bytes((0x02, 0x06, 0, 0)) + specific + b"\0"
        return bytes((0x72, self.key, self.code >> 8, self.code & 0xFF, 0, 0, 0, len(parts))) + parts


class CheckCondition(Exception):
    """A command ends with CHECK CONDITION and this sense."""

    def __init__(self, sense: Sense) -> None:
        super().__init__(f"{sense.key.name} {sense.code:04x}")
        self.sense = sense


NO_SENSE: Final = Sense(SenseKey.NO_SENSE, 0x0000)
POWER_ON: Final = Sense(SenseKey.UNIT_ATTENTION, 0x2900)
MODE_PARAMETERS_CHANGED: Final = Sense(SenseKey.UNIT_ATTENTION, 0x2A01)
RESERVATIONS_PREEMPTED: Final = Sense(SenseKey.UNIT_ATTENTION, 0x2A03)
RESERVATIONS_RELEASED: Final = Sense(SenseKey.UNIT_ATTENTION, 0x2A04)
REGISTRATIONS_PREEMPTED: Final = Sense(SenseKey.UNIT_ATTENTION, 0x2A05)
BUS_DEVICE_RESET: Final = Sense(SenseKey.UNIT_ATTENTION, 0x2903)
PARAMETER_LIST_LENGTH: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x1A00)
INVALID_OPCODE: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x2000, field=0)
LBA_OUT_OF_RANGE: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x2100)
INVALID_FIELD: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x2400)
INVALID_PARAMETER: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x2600, in_data=True)
INVALID_RELEASE: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x2604)
TOO_MANY_TARGETS: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x2606)
UNKNOWN_TARGET_TYPE: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x2607)
TOO_MANY_SEGMENTS: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x2608)
UNKNOWN_SEGMENT_TYPE: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x2609)
INSUFFICIENT_REGISTRATION_RESOURCES: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x5504)
NO_LOGICAL_UNIT: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x2500)
SAVING_NOT_SUPPORTED: Final = Sense(SenseKey.ILLEGAL_REQUEST, 0x3900)
READ_ERROR: Final = Sense(SenseKey.MEDIUM_ERROR, 0x1100)
WRITE_ERROR: Final = Sense(SenseKey.MEDIUM_ERROR, 0x0C00)
INTERNAL_FAILURE: Final = Sense(SenseKey.HARDWARE_ERROR, 0x4400)
SPACE_ALLOCATION_FAILED: Final = Sense(SenseKey.DATA_PROTECT, 0x2707)
WRITE_PROTECTED: Final = Sense(SenseKey.DATA_PROTECT, 0x2700)
SOFTWARE_WRITE_PROTECTED: Final = Sense(SenseKey.DATA_PROTECT, 0x2702)
MISCOMPARE: Final = Sense(SenseKey.MISCOMPARE, 0x1D00)
COPY_TARGET_UNREACHABLE: Final = Sense(SenseKey.COPY_ABORTED, 0x0D02)
PROTOCOL_SERVICE_CRC: Final = Sense(SenseKey.ABORTED_COMMAND, 0x4705)
UNEXPECTED_UNSOLICITED_DATA: Final = Sense(SenseKey.ABORTED_COMMAND, 0x0C0C)
INCORRECT_AMOUNT_OF_DATA: Final = Sense(SenseKey.ABORTED_COMMAND, 0x0C0D)
