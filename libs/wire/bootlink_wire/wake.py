"""Wake-on-LAN: the magic packet (AMD, Magic Packet Technology, publication 20213, 1995). Bytes in, bytes out.

Six octets FFh, then the sleeping card's MAC address sixteen times, anywhere in a frame that reaches it. The card
compares bits and knows no protocol, so whatever carries it is a matter of taste; here it is a UDP broadcast to port 9,
discard, as most tools send it. Not done: the SecureOn password behind it, which hardly a card asks for.
"""

from __future__ import annotations

from typing import Final

WAKE_PORT: Final = 9  # discard, RFC 863
_SYNC: Final = b"\xff" * 6
_REPEATS: Final = 16


class WakeMalformed(ValueError):
    """Bytes that hold no magic packet, or an address that is none."""


def encode(mac: bytes) -> bytes:
    """The magic packet that wakes the card with this address, of 6 octets. Raises WakeMalformed."""
    if len(mac) != 6:
        raise WakeMalformed(f"a MAC address has 6 octets, not {len(mac)}")
    return _SYNC + mac * _REPEATS


def decode(data: bytes) -> bytes:
    """The MAC address that the first magic packet in `data` wakes. Raises WakeMalformed."""
    at = data.find(_SYNC)
    while at >= 0:
        mac = data[at + 6 : at + 12]
        if len(mac) == 6 and data[at + 6 : at + 6 + 6 * _REPEATS] == mac * _REPEATS:
            return mac
        at = data.find(_SYNC, at + 1)
    raise WakeMalformed("there is no magic packet in it")
