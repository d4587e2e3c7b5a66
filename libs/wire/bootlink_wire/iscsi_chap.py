"""CHAP over iSCSI: its algorithms and its values (RFC 7143, sections 6.1 and 12.1.3; RFC 1994).

A response is the hash of the identifier's one byte, the secret and the challenge. Which hash is negotiated under a
number: MD5 must be there, the others are what open-iscsi offers besides.

Challenges and responses are binary values: hexadecimal (0x) or base64 (0b), the prefix in either case. We write
hexadecimal, which every initiator reads.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

VALUE_LIMIT: Final = 1024  # bytes of a binary value (section 12.1.3)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One hash. `size` is the length of a response, and of the challenges that we make."""

    name: str
    size: int

    def response(self, identifier: int, secret: bytes, challenge: bytes) -> bytes:
        """What answers a challenge."""
        material = bytes([identifier]) + secret + challenge
        return hashlib.new(self.name, material, usedforsecurity=False).digest()  # as the peer wants it, MD5 too


# By their numbers (IANA, PPP authentication algorithms). The initiator's order of preference holds.
ALGORITHMS: Final = {
    5: Algorithm("md5", 16),
    6: Algorithm("sha1", 20),
    7: Algorithm("sha256", 32),
    8: Algorithm("sha3_256", 32),
}


def choose(offer: str) -> int | None:
    """The first number of a CHAP_A list that we have; None if there is none."""
    return next((int(n) for n in offer.split(",") if n.isascii() and n.isdigit() and int(n[:4]) in ALGORITHMS), None)


def encode(value: bytes) -> str:
    """A binary value as text."""
    return f"0x{value.hex()}"


def decode(text: str) -> bytes:
    """A binary value. ValueError if it is none, is empty, or is longer than VALUE_LIMIT."""
    prefix, digits = text[:2].lower(), text[2:]
    if prefix == "0x":
        value = _hexadecimal(digits)
    elif prefix == "0b":
        value = _base64(digits)
    else:
        raise ValueError("a binary value begins with 0x or 0b")
    if not 0 < len(value) <= VALUE_LIMIT:
        raise ValueError(f"a binary value of {len(value)} bytes")
    return value


def _hexadecimal(digits: str) -> bytes:
    if not digits.isascii() or not digits.isalnum():  # fromhex would take white space
        raise ValueError("a hexadecimal value holds something else")
    return bytes.fromhex(digits.rjust(len(digits) + len(digits) % 2, "0"))


def _base64(digits: str) -> bytes:
    bare = digits.rstrip("=")
    if len(digits) - len(bare) > 2:
        raise ValueError("a base64 value with too much padding")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"a base64 value: {error}") from error
