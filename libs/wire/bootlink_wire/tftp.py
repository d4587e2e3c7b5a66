"""TFTP packets (RFC 1350, options RFC 2347): bytes in, one of six frozen packets out, and back.

How it works. A packet is a 16-bit opcode and what the opcode says. Requests (RRQ, WRQ) and OACK are strings that end
in NUL: file name and mode, then pairs of option and value. DATA and ACK carry a 16-bit block number, ERROR a code and
a text. `decode` reads one datagram once and never past its end.

There is one error: `TftpMalformed`, which the peer caused. It carries the ERROR packet to answer with, or None where
an answer would be wrong: never an ERROR for an ERROR (two such peers would never stop), and nothing for what is too
short to have an opcode.

Where firmware bends the rules, `decode` bends with it and says so on the line; what a name or an option *means* is
decided elsewhere (`tftp_options`, and the service for names). So file names stay bytes here.

Not done on purpose: mail mode (RFC 1350 calls it obsolete) decodes, but no server of ours serves it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = [
    "Ack",
    "Data",
    "Error",
    "ErrorCode",
    "Opcode",
    "OptionAck",
    "Options",
    "Packet",
    "ReadRequest",
    "TftpMalformed",
    "WriteRequest",
    "ack",
    "acknowledged",
    "data",
    "decode",
    "encode",
    "is_request",
]

REQUEST_MAX: Final = 512  # octets of a request, RFC 2347 section 3
ERROR_TEXT_MAX: Final = 256  # octets of an ERROR's text that are kept: enough for a line of log
MODES: Final = ("octet", "netascii", "mail")  # RFC 1350 section 1; upper and lower case are the same

_HEADER: Final = struct.Struct("!HH")
_OPCODE: Final = struct.Struct("!H")

Options = tuple[tuple[str, str], ...]
"""Option names in lower case with their values, in the order of the packet."""


class Opcode(IntEnum):
    """RFC 1350 section 5, RFC 2347 section 3."""

    RRQ = 1
    WRQ = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OACK = 6


class ErrorCode(IntEnum):
    """RFC 1350 appendix, and 8 from RFC 2347 section 3."""

    UNDEFINED = 0
    NOT_FOUND = 1
    ACCESS_VIOLATION = 2
    DISK_FULL = 3
    ILLEGAL_OPERATION = 4
    UNKNOWN_TRANSFER = 5
    FILE_EXISTS = 6
    NO_SUCH_USER = 7
    OPTIONS_REFUSED = 8


# What each block of each transfer asks for, without a look at an enumeration and a structure.
_ACK: Final = int(Opcode.ACK)
_DATA: Final = int(Opcode.DATA)
_HEADER_SIZE: Final = _HEADER.size
_pack: Final = _HEADER.pack
_unpack: Final = _HEADER.unpack_from


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """RRQ: send me this file. `mode` and option names are in lower case, the file name is as it came."""

    filename: bytes
    mode: str = "octet"
    options: Options = ()


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """WRQ: take this file."""

    filename: bytes
    mode: str = "octet"
    options: Options = ()


@dataclass(frozen=True, slots=True)
class Data:
    """DATA: block `block` (16 bits, the first is 1) of the file."""

    block: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """ACK: everything up to block `block` has arrived; 0 answers an OACK."""

    block: int


@dataclass(frozen=True, slots=True)
class Error:
    """ERROR: ends the transfer. `code` may be one that `ErrorCode` does not know."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class OptionAck:
    """OACK: the options that hold from now on."""

    options: Options


Packet = ReadRequest | WriteRequest | Data | Ack | Error | OptionAck


class TftpMalformed(ValueError):
    """A datagram that is no TFTP packet. `answer` is the ERROR to send back, None where nothing is."""

    def __init__(self, problem: str, *, answered: bool = True) -> None:
        super().__init__(problem)
        self.answer = Error(ErrorCode.ILLEGAL_OPERATION, problem) if answered else None


def is_request(datagram: bytes) -> bool:
    """Whether a datagram begins as RRQ or WRQ does: what belongs to no transfer."""
    return datagram[:2] in (b"\0\1", b"\0\2")


def decode(datagram: bytes) -> Packet:
    """Read one datagram. Raises TftpMalformed and nothing else."""
    if len(datagram) < _OPCODE.size:
        raise TftpMalformed("too short for an opcode", answered=False)
    opcode = _OPCODE.unpack_from(datagram)[0]
    if opcode in (Opcode.RRQ, Opcode.WRQ):
        return _request(opcode, datagram)
    if opcode == Opcode.OACK:
        return OptionAck(_options(_strings(datagram[_OPCODE.size :])))
    if opcode not in (Opcode.DATA, Opcode.ACK, Opcode.ERROR):
        raise TftpMalformed(f"no such opcode: {opcode}")
    if len(datagram) < _HEADER.size:
        raise TftpMalformed("too short", answered=opcode != Opcode.ERROR)
    number = _HEADER.unpack_from(datagram)[1]
    if opcode == Opcode.ACK:
        return Ack(number)  # trailing bytes do no harm: tftpd-hpa and dnsmasq take them too
    if opcode == Opcode.DATA:
        return Data(number, datagram[_HEADER.size :])
    # Some clients send the text without its NUL (RFC 1350 section 5 wants one); the datagram ends it as well.
    text = datagram[_HEADER.size : _HEADER.size + ERROR_TEXT_MAX].partition(b"\0")[0]
    return Error(number, _printable(text))


def acknowledged(datagram: bytes) -> int | None:
    """The block number of an ACK; None of any other datagram. As `decode` has it, without the making of a packet: of
    all that a server hears, all but a few are these."""
    if len(datagram) < _HEADER_SIZE:
        return None
    opcode, block = _unpack(datagram)
    return block if opcode == _ACK else None


def ack(block: int) -> bytes:
    """The datagram of an ACK."""
    return _pack(_ACK, block)


def data(block: int, payload: bytes) -> bytes:
    """The datagram of a DATA packet."""
    return _pack(_DATA, block) + payload


def encode(packet: Packet) -> bytes:
    """The datagram of a packet."""
    match packet:
        case Data(block, payload):
            return data(block, payload)
        case Ack(block):
            return ack(block)
        case Error(code, message):
            text = message.encode("ascii", "replace").replace(b"\0", b"?")[:ERROR_TEXT_MAX]
            return _HEADER.pack(Opcode.ERROR, code) + text + b"\0"
        case OptionAck(options):
            return _OPCODE.pack(Opcode.OACK) + _pairs(options)
        case ReadRequest(filename, mode, options):
            return _OPCODE.pack(Opcode.RRQ) + b"%b\0%b\0" % (filename, mode.encode()) + _pairs(options)
        case WriteRequest(filename, mode, options):
            return _OPCODE.pack(Opcode.WRQ) + b"%b\0%b\0" % (filename, mode.encode()) + _pairs(options)


def _request(opcode: int, datagram: bytes) -> ReadRequest | WriteRequest:
    if len(datagram) > REQUEST_MAX:
        raise TftpMalformed("request longer than 512 octets")
    strings = _strings(datagram[_OPCODE.size :])
    if len(strings) < 2 or not strings[0]:
        raise TftpMalformed("request without file name and mode")
    mode = _printable(strings[1]).lower()
    if mode not in MODES:
        raise TftpMalformed("no such mode")
    kind = ReadRequest if opcode == Opcode.RRQ else WriteRequest
    return kind(strings[0], mode, _options(strings[2:]))


def _strings(field: bytes) -> list[bytes]:
    """The NUL-terminated strings of a field; none of an empty one, as of an OACK that grants nothing."""
    if field and not field.endswith(b"\0"):
        raise TftpMalformed("a string without its end")
    return field.split(b"\0")[:-1]


def _options(strings: list[bytes]) -> Options:
    # Some PXE ROMs send a request in a buffer of fixed size, filled up with NULs: an empty name ends the options.
    if b"" in strings[::2]:
        end = 2 * strings[::2].index(b"")
        if any(strings[end:]):
            raise TftpMalformed("an option without a name")
        strings = strings[:end]
    if len(strings) % 2:
        raise TftpMalformed("an option without a value")
    options: dict[str, str] = {}
    for name, value in zip(strings[::2], strings[1::2], strict=True):
        # An option may stand once only (RFC 2347 section 2); of a repeat the first holds.
        options.setdefault(_printable(name).lower(), _printable(value))
    return tuple(options.items())


def _pairs(options: Options) -> bytes:
    return b"".join(f"{name}\0{value}\0".encode("ascii") for name, value in options)


def _printable(text: bytes) -> str:
    """Text from the wire, fit for a log line: what is not printable ASCII becomes a question mark."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in text)
