"""The subnet that we are authoritative for: its addresses, and what every client in it is told."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

MAX_POOL: Final = 65_536
"""Addresses in one pool: a /16. Each has a place in memory from the start; no broadcast domain is larger than that."""


class SubnetError(ValueError):
    """The settings contradict one another. Carries what is wrong and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Pool:
    """Addresses given out on demand, both ends included."""

    first: IPv4Address
    last: IPv4Address

    def __contains__(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Subnet:
    """One subnet, checked. SubnetError when its parts contradict one another."""

    network: IPv4Network
    server: IPv4Address  # ours: the server identifier, and where the loader comes from unless told otherwise
    pool: Pool
    lease_seconds: int
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()

    def __post_init__(self) -> None:
        if self.network.num_addresses < 4:
            raise SubnetError(
                f"the subnet {self.network} has no room for clients",
                "give the interface an address with a prefix of /30 or shorter",
            )
        if not (self.usable(self.pool.first) and self.usable(self.pool.last)):
            raise SubnetError(
                f"the pool {self.pool} is not inside the subnet {self.network}",
                f"choose it between {self.network[1]} and {self.network[-2]}",
            )
        if self.pool.last < self.pool.first:
            raise SubnetError(f"the pool {self.pool} ends before it begins", "write the lower address first")
        if len(self.pool) > MAX_POOL:
            raise SubnetError(f"the pool {self.pool} is too large", f"use at most {MAX_POOL} addresses")
        for what, address in (("the server's own address", self.server), ("the router", self.router)):
            if address is not None and address in self.pool:
                raise SubnetError(
                    f"the pool {self.pool} contains {what}, {address}", "choose a pool that leaves it out"
                )
        if self.router is not None and not self.usable(self.router):
            raise SubnetError(
                f"the router {self.router} is not in the subnet {self.network}", "clients could not reach it"
            )

    def usable(self, address: IPv4Address) -> bool:
        """A client in this subnet could have this address."""
        return self.network.network_address < address < self.network.broadcast_address

    def assignable(self, address: IPv4Address) -> bool:
        """Usable, and neither ours nor the router's."""
        return self.usable(address) and address not in (self.server, self.router)


def upper_half(network: IPv4Network, taken: set[IPv4Address]) -> Pool:
    """The pool nobody asked for: the upper half of the subnet, without the addresses that are `taken` in it."""
    first = max(network[network.num_addresses // 2], network[1])
    last = network[-2]
    if int(last) - int(first) >= MAX_POOL:
        first = IPv4Address(int(last) - MAX_POOL + 1)
    # A taken address cuts the half in two; the larger piece is the pool.
    pieces, start = [], first
    for address in sorted(a for a in taken if first <= a <= last):
        pieces.append((start, address - 1))
        start = address + 1
    pieces.append((start, last))
    return Pool(*max(pieces, key=lambda piece: int(piece[1]) - int(piece[0])))


def parse_pool(text: str) -> Pool:
    """A pool written "10.77.0.100-10.77.0.199". SubnetError if it is not."""
    first, dash, last = text.partition("-")
    try:
        if not dash:
            raise ValueError
        return Pool(IPv4Address(first.strip()), IPv4Address(last.strip()))
    except ValueError as error:
        raise SubnetError(f"{text!r} is no pool", "write it like 10.77.0.100-10.77.0.199") from error
