"""The subnets that we are authoritative for: their addresses, and what every client in them is told.

One is that of our own card. The others lie behind relay agents, and are written as text (`parse_subnet`). They are
checked here, each by itself and all together: what contradicts itself is refused when the service starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from typing import Final

from bootlink_wire.dhcp_values import VALUE_LIMIT, encode_domains

LEASE_MIN: Final = 60  # seconds: each client renews twice in one
LEASE_MAX: Final = 30 * 86_400
MAX_LISTED: Final = 4
"""Name servers, time servers or search domains in one answer: resolvers use three, and every byte counts in a packet of
548."""
MAX_POOL: Final = 65_536
"""Addresses in one pool: a /16. Each has a place in memory from the start; no broadcast domain is larger than that."""
SUBNET_FORM: Final = "like 10.78.0.0/24 pool=10.78.0.100-10.78.0.199 router=10.78.0.1"
SUBNET_WORDS: Final = frozenset({"pool", "router", "dns", "ntp", "domain", "search", "lease"})


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
        # As numbers: addresses compare in Python, and each packet asks several times.
        return int(self.first) <= int(address) <= int(self.last)

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1

    def __iter__(self) -> Iterator[IPv4Address]:
        return (IPv4Address(number) for number in range(int(self.first), int(self.last) + 1))

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    @property
    def ranges(self) -> tuple[Pool, ...]:
        return (self,)


@dataclass(frozen=True, slots=True)
class Pools:
    """Several pools of one subnet, which act as one."""

    ranges: tuple[Pool, ...]

    def __contains__(self, address: IPv4Address) -> bool:
        return any(address in pool for pool in self.ranges)

    def __len__(self) -> int:
        return sum(map(len, self.ranges))

    def __iter__(self) -> Iterator[IPv4Address]:
        return (address for pool in self.ranges for address in pool)

    def __str__(self) -> str:
        return ", ".join(map(str, self.ranges))


@dataclass(frozen=True, slots=True)
class Subnet:
    """One subnet, checked. SubnetError when its parts contradict one another."""

    network: IPv4Network
    server: IPv4Address  # ours: the server identifier, and where the loader comes from unless told otherwise
    pool: Pool | Pools
    lease_seconds: int
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    ntp: tuple[IPv4Address, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.network.num_addresses < 4:
            raise SubnetError(
                f"the subnet {self.network} has no room for clients",
                "give the interface an address with a prefix of /30 or shorter",
            )
        for part in self.pool.ranges:
            self._check_pool(part)
        if len(self.pool) > MAX_POOL:
            raise SubnetError(f"the pool {self.pool} is too large", f"use at most {MAX_POOL} addresses")
        ordered = sorted(self.pool.ranges, key=lambda part: part.first)
        for one, other in pairwise(ordered):
            if other.first <= one.last:
                raise SubnetError(f"the pools {one} and {other} overlap", "end the one before the other begins")
        if self.router is not None and not self.usable(self.router):
            raise SubnetError(
                f"the router {self.router} is not in the subnet {self.network}", "clients could not reach it"
            )
        self._check_options()

    def _check_options(self) -> None:
        if not LEASE_MIN <= self.lease_seconds <= LEASE_MAX:
            raise SubnetError(
                f"a lease of {self.lease_seconds} s in the subnet {self.network}",
                f"let it last from {LEASE_MIN} to {LEASE_MAX} s",
            )
        for what, listed in (("name servers", self.dns), ("time servers", self.ntp), ("search domains", self.search)):
            if len(listed) > MAX_LISTED:
                raise SubnetError(f"{len(listed)} {what} in the subnet {self.network}", f"name at most {MAX_LISTED}")
        if self.domain:
            _check_domains([self.domain])
        if self.search:
            _check_domains(list(self.search))

    def _check_pool(self, pool: Pool) -> None:
        if not (self.usable(pool.first) and self.usable(pool.last)):
            raise SubnetError(
                f"the pool {pool} is not inside the subnet {self.network}",
                f"choose it between {self.network[1]} and {self.network[-2]}",
            )
        if pool.last < pool.first:
            raise SubnetError(f"the pool {pool} ends before it begins", "write the lower address first")
        for what, address in (("the server's own address", self.server), ("the router", self.router)):
            if address is not None and address in pool:
                raise SubnetError(f"the pool {pool} contains {what}, {address}", "choose a pool that leaves it out")

    def usable(self, address: IPv4Address) -> bool:
        """A client in this subnet could have this address."""
        return int(self.network.network_address) < int(address) < int(self.network.broadcast_address)

    def assignable(self, address: IPv4Address) -> bool:
        """Usable, and neither ours nor the router's."""
        return self.usable(address) and address not in (self.server, self.router)


def dotted(address: IPv4Address) -> str:
    """The address as text; `str` takes five times as long."""
    number = int(address)
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


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


def parse_pool(text: str) -> Pool | Pools:
    """A pool written "10.77.0.100-10.77.0.199", or several with commas between. SubnetError if it is none."""
    parts = tuple(_parse_range(part) for part in text.split(","))
    return parts[0] if len(parts) == 1 else Pools(parts)


def _parse_range(text: str) -> Pool:
    first, dash, last = text.partition("-")
    try:
        if not dash:
            raise ValueError
        return Pool(IPv4Address(first.strip()), IPv4Address(last.strip()))
    except ValueError as error:
        raise SubnetError(f"{text!r} is no pool", "write it like 10.77.0.100-10.77.0.199") from error


def parse_subnet(text: str, like: Subnet) -> Subnet:
    """A subnet behind a relay agent, such as "10.78.0.0/24 pool=10.78.0.100-10.78.0.199 router=10.78.0.1".

    It may have dns, ntp, domain, search and lease besides, which are else those of our own subnet. SubnetError.
    """
    first, *words = text.split()
    try:
        network = IPv4Network(first)
    except ValueError as error:
        raise SubnetError(f"{first!r} is no subnet ({error})", f"write it {SUBNET_FORM}") from error
    given = dict(word.partition("=")[::2] for word in words)
    unknown = set(given) - SUBNET_WORDS
    if unknown or len(given) < len(words):
        what = f"{min(unknown)!r} is nothing that a subnet has" if unknown else "a word stands there twice"
        raise SubnetError(f"the subnet {network}: {what}", f"write it {SUBNET_FORM}")
    for word in ("pool", "router"):
        if word not in given:
            # Without a router its clients would reach neither us nor their disks: we are in another subnet.
            raise SubnetError(f"the subnet {network} has no {word}", f"write it {SUBNET_FORM}")
    try:
        return replace(
            like,
            network=network,
            pool=parse_pool(given["pool"]),
            router=IPv4Address(given["router"]),
            dns=_addresses(given["dns"]) if "dns" in given else like.dns,
            ntp=_addresses(given["ntp"]) if "ntp" in given else like.ntp,
            domain=given.get("domain", like.domain),
            search=tuple(given["search"].split(",")) if "search" in given else like.search,
            lease_seconds=_seconds(given["lease"]) if "lease" in given else like.lease_seconds,
        )
    except ValueError as error:
        if isinstance(error, SubnetError):
            raise
        raise SubnetError(f"the subnet {network}: {error}", f"write it {SUBNET_FORM}") from error


def check_apart(subnets: Sequence[Subnet]) -> None:
    """SubnetError if two of them have addresses in common."""
    for number, one in enumerate(subnets):
        for other in subnets[number + 1 :]:
            if one.network.overlaps(other.network):
                raise SubnetError(f"the subnets {one.network} and {other.network} overlap", "correct one of them")


def _seconds(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"lease={text} is no number of seconds")
    return int(text)


def _addresses(text: str) -> tuple[IPv4Address, ...]:
    return tuple(IPv4Address(part.strip()) for part in text.split(","))


def _check_domains(names: list[str]) -> None:
    try:
        size = len(encode_domains(names))
    except ValueError as error:
        raise SubnetError(str(error), "use letters, digits, dashes and dots") from error
    if size > VALUE_LIMIT:
        raise SubnetError(f"{', '.join(names)} takes {size} bytes; an option has {VALUE_LIMIT}", "leave some out")
