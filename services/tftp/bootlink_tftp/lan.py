"""What this machine's kernel knows of the LAN: which networks are on-link, and the MAC address of a neighbour.

Two small files of /proc, read when needed: they are made in memory, so reading them waits for nothing.

*On-link* decides whether a script sets the gateway to the target's own address (FIELD section 2): it does so when the
client and the target are in one network that this machine is connected to. iPXE's scripts cannot compute with
addresses, so the script cannot decide that itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from bootlink_events import normalise_mac

ROUTES: Final = Path("/proc/net/route")
NEIGHBOURS: Final = Path("/proc/net/arp")

_UP: Final = 0x0001  # RTF_UP, linux/route.h
_GATEWAY: Final = 0x0002  # RTF_GATEWAY
_REJECT: Final = 0x0200  # RTF_REJECT
_COMPLETE: Final = 0x02  # ATF_COM, linux/if_arp.h: the MAC address is known
_HOST_ROUTE: Final = 32


@dataclass(frozen=True, slots=True)
class OnLink:
    """The networks that count as on-link. None: those of this machine's routing table, whenever it is asked."""

    networks: tuple[IPv4Network, ...] | None = None

    def together(self, one: str, other: str) -> bool:
        """True when both addresses are in one on-link network. A host name is in none."""
        try:
            first, second = IPv4Address(one), IPv4Address(other)
        except ValueError:
            return False
        networks = self.networks if self.networks is not None else connected(_read(ROUTES))
        return any(first in network and second in network for network in networks)


def mac_of(address: str) -> str | None:
    """The MAC address of a neighbour on the LAN; None for one behind a router."""
    return neighbour(_read(NEIGHBOURS), address)


def connected(routes: str) -> tuple[IPv4Network, ...]:
    """The networks this machine is connected to without a gateway, from /proc/net/route's text."""
    return tuple(_connected(routes.splitlines()[1:]))


def _connected(lines: Iterable[str]) -> Iterable[IPv4Network]:
    for line in lines:
        fields = line.split()
        try:
            destination, flags, mask = int(fields[1], 16), int(fields[3], 16), int(fields[7], 16)
        except (IndexError, ValueError):
            continue
        if not flags & _UP or flags & (_GATEWAY | _REJECT):
            continue
        # The kernel prints addresses as numbers in its own byte order: little-endian wherever Bootlink runs.
        prefix = mask.bit_count()
        if 0 < prefix < _HOST_ROUTE:
            yield IPv4Network((destination.to_bytes(4, "little"), prefix), strict=False)


def neighbour(table: str, address: str) -> str | None:
    """The MAC address of `address` in /proc/net/arp's text."""
    # Looked for before lines are made of it all: a room of PCs makes the table long, and each of them has us ask.
    at, begins = 0, f"\n{address} "
    while (at := table.find(begins, at)) >= 0:  # one that two cards have seen is there twice
        at += 1
        fields = table[at:].partition("\n")[0].split()
        if len(fields) < 4 or not re.fullmatch(r"0x[0-9a-f]+", fields[2]):
            continue
        if int(fields[2], 16) & _COMPLETE:
            try:
                return normalise_mac(fields[3])
            except ValueError:
                return None
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # not Linux, or no /proc: nothing is known
