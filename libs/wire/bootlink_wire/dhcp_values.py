"""DHCP options that an administrator writes: a code, a type and a value as text; checked, and turned into bytes.

The types are those of RFC 2132 section 2 and of the RFCs that came after it. A value that is valid here fits one option
on the wire (255 bytes): clients of old join no parts (RFC 3396).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Final

from bootlink_wire import dhcp_options as opt

CODES: Final = range(1, 255)
VALUE_LIMIT: Final = opt.OPTION_SIZE
NAME_LIMIT: Final = 255  # octets of a domain name, RFC 1035 section 2.3.4
RESERVED: Final[Mapping[int, str]] = {
    1: "the subnet mask follows from the subnet",
    28: "the broadcast address follows from the subnet",
    50: "it is the client's to send",
    51: "the lease time is BOOTLINK_DHCP_LEASE_SECONDS",
    52: "Bootlink never overloads header fields",
    53: "it is the message type",
    54: "it is the server's identifier",
    55: "it is the client's to send",
    56: "it carries the reason of a refusal",
    57: "it is the client's to send",
    58: "the renewal time follows from the lease time",
    59: "the rebinding time follows from the lease time",
    61: "it is the client's to send",
    66: "the TFTP server is that of the boot loader (BOOTLINK_DHCP_TFTP_ADDRESS)",
    67: "the boot file names the boot loader, or the client's script",
    77: "it is the client's to send",
    82: "it is the relay agent's to send",
    93: "it is the client's to send",
    94: "it is the client's to send",
    97: "it is the client's to send",
    175: "it carries iPXE's own settings",
    203: "the initiator's name carries the boot",
}
"""What cannot be set by hand, and why."""

TYPES: Final[Mapping[int, str]] = {
    **dict.fromkeys((3, 4, 6, 7, 9, 33, 41, 42, 44, 45, 48, 49, 69, 70, 72, 150), "addresses"),
    **dict.fromkeys((12, 14, 15, 17, 40, 47, 60, 100, 101, 252), "text"),
    **dict.fromkeys((19, 20, 27, 31, 36), "flag"),
    **dict.fromkeys((23, 37, 46), "byte"),
    **dict.fromkeys((13, 22, 26), "word"),
    **dict.fromkeys((24, 35, 38), "long"),
    119: "domains",
}
"""The type of options that an RFC settles (2132; 4833 for 100 and 101, 5859 for 150, 3397 for 119), and of 252, which
browsers have settled. A value of another type is one that no client understands."""

_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_TRUTHS: Final = {"true": 1, "false": 0}


def encode_value(kind: str, text: str) -> bytes:
    """The option's bytes. ValueError says what is wrong with the type or the value."""
    encode = KINDS.get(kind)
    if encode is None:
        raise ValueError(f"{kind!r} is no type of option; there are: {', '.join(KINDS)}")
    value = encode(text)
    if not value:
        raise ValueError("the value is empty")
    if len(value) > VALUE_LIMIT:
        raise ValueError(f"the value takes {len(value)} bytes; an option has {VALUE_LIMIT} at most")
    return value


def check_code(code: int) -> None:
    """ValueError, with the reason, if an administrator cannot set the option of this code."""
    if code not in CODES:
        raise ValueError(f"{code} is no option: codes go from {CODES[0]} to {CODES[-1]}")
    if code in RESERVED:
        raise ValueError(f"option {code} is set by Bootlink itself: {RESERVED[code]}")


def check_type(code: int, kind: str) -> None:
    """ValueError if the option of this code holds values of another type. Bytes in hexadecimal may be anything."""
    settled = TYPES.get(code, kind)
    if kind not in (settled, "hex") and (settled, kind) != ("addresses", "address"):
        raise ValueError(f"it holds {settled}, not {kind}")


def encode_domains(names: list[str]) -> bytes:
    """A list of domain names, RFC 1035 section 3.1, as option 119 carries it (RFC 3397; nothing is compressed)."""
    return b"".join(map(_domain, names))


def _domain(name: str) -> bytes:
    labels = name.rstrip(".").split(".")
    if not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{name!r} is no domain name")
    wire = b"".join(bytes((len(label),)) + label.encode("ascii") for label in labels) + b"\0"
    if len(wire) > NAME_LIMIT:
        raise ValueError(f"{name!r} is no domain name: it takes {len(wire)} bytes, and one has {NAME_LIMIT} at most")
    return wire


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _address(text: str) -> bytes:
    return IPv4Address(text.strip()).packed


def _addresses(text: str) -> bytes:
    return b"".join(_address(part) for part in _parts(text))


def _text(text: str) -> bytes:
    if not (text.isascii() and text.isprintable()):
        raise ValueError(f"{text!r} has characters that are no printable ASCII")
    return text.encode("ascii")


def _number(size: int) -> Callable[[str], bytes]:
    def encode(text: str) -> bytes:
        limit = (1 << 8 * size) - 1
        if not re.fullmatch(r"[0-9]{1,10}", text.strip()) or int(text) > limit:
            raise ValueError(f"{text!r} is no number from 0 to {limit}")
        return int(text).to_bytes(size)

    return encode


def _flag(text: str) -> bytes:
    if text.strip().lower() not in _TRUTHS:
        raise ValueError(f"{text!r} is neither true nor false")
    return bytes((_TRUTHS[text.strip().lower()],))


def _hex(text: str) -> bytes:
    digits = re.sub(r"[\s:.-]", "", text).removeprefix("0x")
    if len(digits) % 2 or not re.fullmatch(r"[0-9A-Fa-f]*", digits):
        raise ValueError(f"{text!r} is no row of hexadecimal bytes, such as 01:0a:ff")
    return bytes.fromhex(digits)


KINDS: Final[Mapping[str, Callable[[str], bytes]]] = {
    "address": _address,
    "addresses": _addresses,
    "text": _text,
    "byte": _number(1),
    "word": _number(2),
    "long": _number(4),
    "flag": _flag,
    "domains": lambda text: encode_domains(_parts(text)),
    "hex": _hex,
}
"""The types, and how each writes its bytes."""
