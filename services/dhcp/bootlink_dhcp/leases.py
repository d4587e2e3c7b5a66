"""Who has which address: the lease table of one subnet.

Theory of operation. Each address of the pool, and each reserved one, is in one of these states:

    free       nobody ever had it; the addresses of the pool start here, lowest first
    offered    held for one client for `OFFER_HOLD` seconds; forgotten at a restart, which is safe: nobody relies on it
    bound      leased until a time. Recorded before the ACK is sent, so that no restart gives it to another
    idle       its lease ran out or was released. Kept in its client's name, who gets it back; when the free addresses
               have run out, the one idle for longest is given to another
    declined   somebody else answered for it on the wire (DHCPDECLINE); given to nobody for `QUARANTINE` seconds

A client is known by its MAC address and by nothing else, although RFC 2131 section 4.2 prefers the client
identifier: firmware, iPXE and the operating system of one PC send three different ones (none, 01+MAC, a DUID),
and the system's own DHCP client must get the address that its root disk is mounted over.

An address that is reserved (by a boot plan) is its client's alone: `may_use` says no to everybody else, also
when they ask to renew, so that they move away. A reservation that another client still holds is not given until
then.

Each change is handed to `record`, keyed by address, and `restore` reads it back. Work per call is constant, or
logarithmic in the size of the pool; memory is bounded by the pool and the reservations. No I/O; time is passed in.

Inside, addresses are numbers: an `IPv4Address` is compared and hashed in Python, twenty times for each packet.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv4Address
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

from bootlink_dhcp.subnet import Subnet
from bootlink_events import normalise_mac

Record = Callable[[IPv4Address, Mapping[str, Any] | None], None]
Owner = Callable[[IPv4Address], str | None]
InUse = Callable[[IPv4Address, str, float], bool]

OFFER_HOLD: Final = 60.0
"""Seconds an offer is kept: a firmware's whole back-off. Short, because an attacker can ask under many names."""
QUARANTINE: Final = 24 * 3600.0
"""Seconds a declined address rests; what Kea does too."""
MAX_DECLINED_SHARE: Final = 4
"""At most one in so many of the pool's addresses rests; beyond that the one declined first returns."""
KEPT_SHARE: Final = 8
"""One in so many of a pool's addresses is kept for clients that the registry knows."""
MAX_STEPS: Final = 1024
"""Addresses looked at for one DISCOVER, when most of the pool is reserved; the next one goes on from there."""


class Permit(Protocol):
    """What other servers on the same pool leave to this one (`Sharing`)."""

    def unused(self, address: IPv4Address) -> bool: ...
    def another(self) -> bool: ...
    def again(self, address: IPv4Address, client: str, now: float) -> bool: ...
    def theirs(self, address: IPv4Address) -> bool: ...


class State(StrEnum):
    """What an address is, see the theory of operation. A free address has no lease."""

    OFFERED = "offered"
    BOUND = "bound"
    IDLE = "idle"
    DECLINED = "declined"


class Lease(NamedTuple):
    """One address that was given to somebody."""

    address: IPv4Address
    client: str  # normalised MAC address; of a declined address: who declined it
    state: State
    expires: float  # seconds since the epoch
    returning: bool = False  # of an offer: the address was this client's before, and stays so if it is not taken up


class LeaseTable:
    """The leases of one subnet. Not for use by several threads."""

    def __init__(
        self, subnet: Subnet, owner: Owner, record: Record, permit: Permit | None = None, in_use: InUse | None = None
    ) -> None:
        """`owner` tells whose reservation an address is, if it is one. Without a permit everything is permitted.
        `in_use` tells that somebody else answers for an address, which is then no new client's.
        """
        self._in_use = in_use
        self.subnet = subnet
        self._owner = owner
        self._record = record
        self._permit = permit
        self._ranges = tuple((int(part.first), int(part.last)) for part in subnet.pool.ranges)
        self._kept = len(subnet.pool) // KEPT_SHARE
        self._by_address: dict[int, Lease] = {}
        self._by_client: dict[str, int] = {}
        self._free = OrderedDict.fromkeys(map(int, subnet.pool))
        self._idle: OrderedDict[int, None] = OrderedDict()  # idle for longest first
        self._declined: OrderedDict[int, None] = OrderedDict()
        self._deadlines: list[tuple[float, int]] = []  # a heap; entries of changed leases are skipped

    def of_client(self, client: str, now: float) -> Lease | None:
        """The client's address, offered, bound or idle."""
        self._expire(now)
        number = self._by_client.get(client)
        return self._by_address[number] if number is not None else None

    def may_use(self, client: str, address: IPv4Address, now: float) -> bool:
        """Whether this client could be given this address now."""
        self._expire(now)
        lease = self._by_address.get(int(address))
        if lease is not None:
            if lease.state is State.DECLINED:
                return False
            if lease.client != client and (
                lease.state is not State.IDLE or (self._permit is not None and not self._permit.another())
            ):
                return False
        owner = self._owner(address)
        if owner is not None:
            return owner == client and self.subnet.assignable(address)
        if not self._pooled(int(address)):
            return False
        return self._permit is None or not _spare(lease) or self._permit.unused(address)

    def choose(
        self,
        client: str,
        reserved: IPv4Address | None,
        wanted: IPv4Address | None,
        now: float,
        *,
        known: Callable[[str], bool] | None = None,
    ) -> IPv4Address | None:
        """The address to offer: the reserved one, the one it had, the one it wants, a free one, one idle for long.

        A stranger is given by `known`, which says who is none: it gets no idle address of such, nor one of the last
        `KEPT_SHARE` of the pool, so that made-up clients cannot take from those that belong here.
        """
        self._expire(now)
        number = self._by_client.get(client)
        had = self._by_address[number].address if number is not None else None
        if had is not None and self.spare(had) and self._answered(had, client, now):
            had = None  # it was offered, and somebody answered for it
        # Another client's, maybe idle: not while there are free ones.
        if wanted is not None and (
            int(wanted) in self._by_address
            or self._answered(wanted, client, now)
            or self.kept_from(client, wanted, known)
        ):
            wanted = None
        for address in (reserved, had, wanted):
            if address is not None and self.may_use(client, address, now) and self._again(client, address, now):
                return address
        if known is not None and self._scarce:
            return None
        # Reserved addresses lie in the pool too: each that is met moves to the end, so that it is met once.
        for addresses in (self._free, self._idle):
            for _ in range(min(len(addresses), MAX_STEPS)):
                number = next(iter(addresses))
                lease = self._by_address.get(number)
                address = lease.address if lease is not None else IPv4Address(number)
                kept = known is not None and lease is not None and known(lease.client)
                if not kept and self.may_use(client, address, now) and not self._answered(address, client, now):
                    return address
                addresses.move_to_end(number)
        return None

    def kept_from(self, client: str, address: IPv4Address, known: Callable[[str], bool] | None) -> bool:
        """Whether this is to be spared by a stranger who names it, as `choose` spares it: what is offered is one way to
        an address, and to ask for it by name another."""
        if known is None:
            return False
        lease = self._by_address.get(int(address))
        if lease is not None and lease.client == client:
            return False
        return self._scarce or (lease is not None and known(lease.client))

    @property
    def _scarce(self) -> bool:
        """No more is left than what is kept for clients that the registry knows."""
        return len(self._free) + len(self._idle) <= self._kept

    def _pooled(self, number: int) -> bool:
        for first, last in self._ranges:  # noqa: SIM110 - `any` takes three times as long
            if first <= number <= last:
                return True
        return False

    def _answered(self, address: IPv4Address, client: str, now: float) -> bool:
        return self._in_use is not None and self._in_use(address, client, now)

    def ahead(self) -> Iterator[IPv4Address]:
        """The addresses that new clients are offered next, in this order."""
        return (
            address
            for address in map(IPv4Address, islice(self._free, MAX_STEPS))
            if self._owner(address) is None and (self._permit is None or self._permit.unused(address))
        )

    def _again(self, client: str, address: IPv4Address, now: float) -> bool:
        """Our offer of an address that is the client's already can become a lease."""
        return self._permit is None or self.spare(address) or self._permit.again(address, client, now)

    def spare(self, address: IPv4Address) -> bool:
        """Nobody has a lease of this address."""
        return _spare(self._by_address.get(int(address)))

    def new_to(self, client: str, address: IPv4Address) -> bool:
        """The address was never this client's. Whoever had it before may use it still, though its lease ran out: a
        system whose root disk hangs on it may never have renewed."""
        lease = self._by_address.get(int(address))
        return lease is None or lease.client != client or _spare(lease)

    def ours(self, address: IPv4Address) -> bool:
        """It is for us to give: of the pool, reserved, or leased before the settings changed."""
        number = int(address)
        return self._pooled(number) or number in self._by_address or self._owner(address) is not None

    def theirs(self, address: IPv4Address) -> bool:
        """It is for another server to say whose this address is."""
        return self._permit is not None and self._permit.theirs(address)

    def at(self, address: IPv4Address) -> Lease | None:
        """What this address is."""
        return self._by_address.get(int(address))

    def leased(self) -> Iterator[IPv4Address]:
        """The addresses that are, or were, somebody's."""
        return iter([lease.address for lease in self._by_address.values()])

    def lapsed(self, address: IPv4Address, now: float) -> bool:
        """Nobody uses this address any more, as far as we know."""
        self._expire(now)
        lease = self._by_address.get(int(address))
        return lease is None or lease.state is State.IDLE

    def absorb(self, address: IPv4Address, lease: Lease | None) -> None:
        """Another server says what this address is: a lease, or nobody's."""
        held = self._by_address.get(int(address))
        if lease is None:
            if held is not None and held.state is not State.OFFERED:
                self._free_again(held)
            return
        if not self.subnet.assignable(address):
            return
        if held is not None and held.client != lease.client:
            self._forget(held)
        self._place(lease)
        self._record(address, _as_record(lease))

    def offer(self, client: str, address: IPv4Address, now: float) -> None:
        """Hold the address, which `may_use` allowed, for this client. A lease that it is bound to stays bound."""
        lease = self._by_address.get(int(address))
        if lease is not None and lease.client == client and lease.state is State.BOUND:
            return
        returning = lease is not None and lease.client == client and (lease.state is State.IDLE or lease.returning)
        self._put(Lease(address, client, State.OFFERED, now + OFFER_HOLD, returning))

    def bind(self, client: str, address: IPv4Address, now: float, *, seconds: float | None = None) -> Lease:
        """Lease the address, which `may_use` allowed, to this client, for as long as is usual here unless told."""
        lease = Lease(address, client, State.BOUND, now + (self.subnet.lease_seconds if seconds is None else seconds))
        self._put(lease)
        return lease

    def release(self, client: str, address: IPv4Address, now: float) -> bool:
        """The client gives its address back. False if it is not its own."""
        lease = self._by_address.get(int(address))
        if lease is None or lease.client != client or lease.state not in (State.OFFERED, State.BOUND):
            return False
        self._put(Lease(address, client, State.IDLE, now))
        return True

    def withdraw(self, client: str, address: IPv4Address) -> None:
        """The client took another server's offer: ours need not be held. A lease stays."""
        lease = self._by_address.get(int(address))
        if lease is not None and lease.client == client and lease.state is State.OFFERED:
            self._lapse(lease)

    def decline(self, client: str, address: IPv4Address, now: float) -> bool:
        """The client found the address in use. False if it was not offered or leased to it."""
        lease = self._by_address.get(int(address))
        if lease is None or lease.client != client or lease.state not in (State.OFFERED, State.BOUND):
            return False
        self._put(Lease(address, client, State.DECLINED, now + QUARANTINE))
        while len(self._declined) > max(1, len(self.subnet.pool) // MAX_DECLINED_SHARE):
            self._free_again(self._by_address[next(iter(self._declined))])
        return True

    def counts(self, now: float) -> dict[str, int]:
        """How many addresses are in each state."""
        self._expire(now)
        counts = {"free": len(self._free), **dict.fromkeys((state.value for state in State), 0)}
        for lease in self._by_address.values():
            counts[lease.state.value] += 1
        return counts

    def restore(self, records: Iterable[tuple[str, Mapping[str, Any]]], now: float) -> int:
        """Take up what `record` was given before a restart. Returns how many could not be read or fit no more."""
        unfit = 0
        found = []
        for key, value in records:
            try:
                client, state = normalise_mac(value["client"]), State(value["state"])
                found.append(Lease(IPv4Address(key), client, state, float(value["expires"])))
            except (KeyError, ValueError, TypeError, AttributeError):
                unfit += 1
        for lease in sorted(found, key=lambda lease: lease.expires):
            if self.subnet.assignable(lease.address) and (
                lease.state is State.DECLINED or lease.client not in self._by_client
            ):
                self._place(lease)
            else:
                unfit += 1
        self._expire(now)
        return unfit

    def _put(self, lease: Lease) -> None:
        """Make this the state of its address, and its client's only one; hand it to `record`."""
        number = int(lease.address)
        former = self._by_address.get(number)
        if former is not None and former.client != lease.client:
            self._forget(former)
        elsewhere = self._by_client.get(lease.client)
        if elsewhere is not None and elsewhere != number:
            self._free_again(self._by_address[elsewhere])
        self._place(lease)
        if lease.state is not State.OFFERED:
            self._record(lease.address, _as_record(lease))
        elif former is not None and former.client != lease.client:
            self._record(lease.address, None)  # an idle address offered to another is its former client's no more

    def _place(self, lease: Lease) -> None:
        number = int(lease.address)
        self._free.pop(number, None)
        self._idle.pop(number, None)
        self._declined.pop(number, None)
        self._by_address[number] = lease
        if lease.state is State.DECLINED:
            if self._by_client.get(lease.client) == number:
                del self._by_client[lease.client]
            self._declined[number] = None
        else:
            # Two servers may have given one client an address each: the lease that ends later is the one it uses.
            other = self._by_client.get(lease.client)
            if other is None or other not in self._by_address or self._by_address[other].expires <= lease.expires:
                self._by_client[lease.client] = number
        if lease.state is State.IDLE:
            self._idle[number] = None
        else:
            heapq.heappush(self._deadlines, (lease.expires, number))
            self._compact_deadlines()

    def _forget(self, lease: Lease) -> None:
        number = int(lease.address)
        if self._by_client.get(lease.client) == number:
            del self._by_client[lease.client]
        del self._by_address[number]

    def _free_again(self, lease: Lease) -> None:
        self._forget(lease)
        number = int(lease.address)
        self._idle.pop(number, None)
        self._declined.pop(number, None)
        if self._pooled(number):
            self._free[number] = None
        self._record(lease.address, None)

    def _expire(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            expires, number = heapq.heappop(self._deadlines)
            lease = self._by_address.get(number)
            if lease is None or lease.expires != expires or lease.state is State.IDLE:
                continue  # renewed or changed since; its present deadline has an entry of its own
            self._lapse(lease)

    def _lapse(self, lease: Lease) -> None:
        if lease.state is State.BOUND or lease.returning:
            self._place(Lease(lease.address, lease.client, State.IDLE, lease.expires))
        else:
            self._free_again(lease)

    def _compact_deadlines(self) -> None:
        """Renewals leave their former deadlines behind: drop them once they are most of the heap."""
        if len(self._deadlines) > 64 + 4 * len(self._by_address):
            self._deadlines = [
                (lease.expires, number) for number, lease in self._by_address.items() if lease.state is not State.IDLE
            ]
            heapq.heapify(self._deadlines)


def _spare(lease: Lease | None) -> bool:
    """This is nobody's lease: the address is at most on offer to somebody who never had it."""
    return lease is None or (lease.state is State.OFFERED and not lease.returning)


def _as_record(lease: Lease) -> dict[str, Any]:
    return {"client": lease.client, "state": lease.state.value, "expires": lease.expires}


def restore(tables: Sequence[LeaseTable], records: Iterable[tuple[str, Mapping[str, Any]]], now: float) -> int:
    """Give each table the records of its subnet. Returns how many could not be read or fit none any more."""
    of_table: list[list[tuple[str, Mapping[str, Any]]]] = [[] for _ in tables]
    unfit = 0
    for key, value in records:
        try:
            address = IPv4Address(key)
            number = next(n for n, table in enumerate(tables) if address in table.subnet.network)
        except (ValueError, StopIteration):
            unfit += 1
            continue
        of_table[number].append((key, value))
    return unfit + sum(table.restore(held, now) for table, held in zip(tables, of_table, strict=True))
