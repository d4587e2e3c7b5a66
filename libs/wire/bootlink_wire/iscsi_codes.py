"""The numbers that iSCSI PDUs carry (RFC 7143, section 11): opcodes, flags, reasons, statuses and functions."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

NO_TAG: Final = 0xFFFFFFFF  # the reserved value of task tags (section 11.2.1.8)


class Opcode(IntEnum):
    """RFC 7143, section 11.2.1.2. Below 0x20 the initiator sends it, from 0x20 the target."""

    NOP_OUT = 0x00
    SCSI_COMMAND = 0x01
    TASK_REQUEST = 0x02
    LOGIN_REQUEST = 0x03
    TEXT_REQUEST = 0x04
    DATA_OUT = 0x05
    LOGOUT_REQUEST = 0x06
    SNACK_REQUEST = 0x10
    NOP_IN = 0x20
    SCSI_RESPONSE = 0x21
    TASK_RESPONSE = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    R2T = 0x31
    ASYNC_MESSAGE = 0x32
    REJECT = 0x3F


OPCODE_MASK: Final = 0x3F
IMMEDIATE: Final = 0x40

# Flags in byte 1. FINAL is the transit bit of login PDUs.
FINAL: Final = 0x80
CONTINUE: Final = 0x40  # login and text
READ: Final = 0x40  # SCSI command
WRITE: Final = 0x20
STATUS: Final = 0x01  # Data-In that carries the status
UNDERFLOW: Final = 0x02  # SCSI response and Data-In
OVERFLOW: Final = 0x04


class RejectReason(IntEnum):
    """RFC 7143, section 11.17.1."""

    DATA_DIGEST = 0x02
    SNACK = 0x03
    PROTOCOL_ERROR = 0x04
    NOT_SUPPORTED = 0x05
    IMMEDIATE_COMMANDS = 0x06
    TASK_IN_PROGRESS = 0x07
    INVALID_FIELD = 0x09


class LoginStatus(IntEnum):
    """Status class and detail of a login response, as one number (RFC 7143, section 11.13.5)."""

    SUCCESS = 0x0000
    INITIATOR_ERROR = 0x0200
    AUTHENTICATION_FAILURE = 0x0201
    AUTHORIZATION_FAILURE = 0x0202
    NOT_FOUND = 0x0203
    UNSUPPORTED_VERSION = 0x0205
    TOO_MANY_CONNECTIONS = 0x0206
    MISSING_PARAMETER = 0x0207
    SESSION_TYPE_NOT_SUPPORTED = 0x0209
    SESSION_DOES_NOT_EXIST = 0x020A
    INVALID_DURING_LOGIN = 0x020B
    TARGET_ERROR = 0x0300
    SERVICE_UNAVAILABLE = 0x0301
    OUT_OF_RESOURCES = 0x0302


class TaskFunction(IntEnum):
    """RFC 7143, section 11.5.1."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_ACA = 3
    CLEAR_TASK_SET = 4
    LOGICAL_UNIT_RESET = 5
    TARGET_WARM_RESET = 6
    TARGET_COLD_RESET = 7
    TASK_REASSIGN = 8


class TaskResult(IntEnum):
    """RFC 7143, section 11.6.1."""

    COMPLETE = 0
    NO_TASK = 1
    NO_LUN = 2
    STILL_ALLEGIANT = 3
    NO_REASSIGN = 4
    NOT_SUPPORTED = 5
    NOT_AUTHORIZED = 6
    REJECTED = 255
