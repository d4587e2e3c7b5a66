"""What a TFTP client asks for, and what it gets (RFC 2347, 2348, 2349, 7440).

A client offers options with its request; the server answers with the values it grants, in an OACK. The rule that
keeps old firmware working: an OACK names only options that were asked for, and a request without any option that we
grant gets no OACK at all but its first block. An option with a senseless value is left out, as tftpd-hpa and dnsmasq
do, rather than refused: the client then goes on without it (RFC 2347 section 2).

One table says how each option is granted. All other options (multicast, RFC 2090, among them) are not granted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bootlink_wire.tftp import Options

__all__ = ["Limits", "Terms", "negotiate"]

BLOCK_DEFAULT: Final = 512  # octets of a block where nothing was agreed, RFC 1350 section 2
BLOCK_MIN: Final = 8  # RFC 2348
BLOCK_MAX: Final = 65_464  # RFC 2348
# What fits an Ethernet frame: 1500 - 20 (IP) - 8 (UDP) - 4 (TFTP). Larger blocks travel as IP fragments, which PXE
# ROMs reassemble badly or not at all (edk2 #7632), so they are granted only where the administrator says so.
BLOCK_ON_ETHERNET: Final = 1_468
WINDOW_MAX: Final = 65_535  # RFC 7440 section 3
WINDOW_GRANTED: Final = 16  # blocks in flight: a 23 KB burst, which NIC queues and switches take without loss
# A long interval holds a transfer open for minutes after its client has gone, and a server that waits as long as its
# client leaves the client to give up first (Citrix CPVS61E011). Longer ones are not granted; ours is 1 s then.
TIMEOUT_GRANTED: Final = 3
RESEND_AFTER: Final = 1.0  # seconds
VALUE_DIGITS_MAX: Final = 20  # of a number in an option: more than 2**64 takes is no number


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a server grants."""

    block_size: int = BLOCK_ON_ETHERNET
    window: int = WINDOW_GRANTED


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one transfer. `granted` is the OACK's content; empty: no OACK is sent."""

    block_size: int = BLOCK_DEFAULT
    window: int = 1
    resend_after: float = RESEND_AFTER
    granted: Options = field(default=())

    @property
    def size_told(self) -> bool:
        return any(name == "tsize" for name, _ in self.granted)


def _blksize(asked: int, size: int, limits: Limits) -> int | None:
    return min(asked, limits.block_size, BLOCK_MAX) if asked >= BLOCK_MIN else None


def _tsize(asked: int, size: int, limits: Limits) -> int | None:
    return size  # the client sends 0 (RFC 2349); what else it may send does not matter


def _timeout(asked: int, size: int, limits: Limits) -> int | None:
    return asked if 1 <= asked <= TIMEOUT_GRANTED else None  # granted as asked or not at all, RFC 2349


def _windowsize(asked: int, size: int, limits: Limits) -> int | None:
    return min(asked, limits.window) if 1 <= asked <= WINDOW_MAX else None


# Option → what is granted of the number asked for, None: nothing.
GRANTS: Final[Mapping[str, Callable[[int, int, Limits], int | None]]] = {
    "blksize": _blksize,
    "tsize": _tsize,
    "timeout": _timeout,
    "windowsize": _windowsize,
}


def negotiate(options: Options, *, size: int, limits: Limits) -> Terms:
    """The terms for a file of `size` octets, from the options of a request (names in lower case)."""
    granted: dict[str, int] = {}
    for name, value in options:
        grant = GRANTS.get(name)
        if grant is None or not (value.isascii() and value.isdigit()) or len(value) > VALUE_DIGITS_MAX:
            continue
        number = grant(int(value), size, limits)
        if number is not None:
            granted[name] = number
    return Terms(
        block_size=granted.get("blksize", BLOCK_DEFAULT),
        window=granted.get("windowsize", 1),
        resend_after=float(granted.get("timeout", RESEND_AFTER)),
        granted=tuple((name, str(number)) for name, number in granted.items()),
    )
