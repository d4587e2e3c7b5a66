"""This machine: its network cards and what we may do on it."""

from __future__ import annotations

import fcntl
import socket
import struct
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h
_NAME_BYTES: Final = 16  # IFNAMSIZ
_IFREQ: Final = struct.Struct(f"{_NAME_BYTES}s24s")

_PRIVILEGES: Final = {"CAP_NET_BIND_SERVICE": 10, "CAP_NET_RAW": 13}  # linux/capability.h


def cards() -> dict[str, IPv4Address | None]:
    """The network cards, without loopback, each with its first IPv4 address."""
    return {name: _address(name) for _, name in socket.if_nameindex() if name != "lo"}


def described_cards() -> str:
    """The cards in words, for a message that asks to choose one."""
    found = cards()
    if not found:
        return "this machine has no network card but loopback"
    return "this machine has " + ", ".join(f"{name} ({address or 'no address'})" for name, address in found.items())


def missing_privileges(*wanted: str) -> list[str]:
    """Which of these capabilities this process does not have."""
    with Path("/proc/self/status").open() as status:
        effective = next((int(line.split()[1], 16) for line in status if line.startswith("CapEff:")), 0)
    return [name for name in wanted if not effective >> _PRIVILEGES[name] & 1]


def _address(name: str) -> IPv4Address | None:
    request = _IFREQ.pack(name.encode()[: _NAME_BYTES - 1], struct.pack("=HH4s", socket.AF_INET, 0, b""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFADDR, request)
        except OSError:
            return None
    return IPv4Address(answer[_NAME_BYTES + 4 : _NAME_BYTES + 8])
