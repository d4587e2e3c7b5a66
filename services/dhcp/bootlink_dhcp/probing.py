"""Is an address in use by somebody whom we gave none? RFC 2131 section 4.3.1 wants that asked before an offer.

Theory of operation. Asking takes time, and a firmware that waits gives up; so it is asked ahead. The next `AHEAD` free
addresses of each pool are probed, by ARP on our own link and by ICMP echo behind relay agents, and count as clear for
`CLEAR` seconds once nobody has answered for `PATIENCE`. An address that is answered for is offered to no new client for
`TAKEN` seconds, and then asked about again. So an offer waits only where a storm has overtaken the probes, for no
longer than `PATIENCE`; and the address that a client has, or had, or that is reserved for it, is never asked about.

On the link whatever is heard counts, also what others ask: who sends ARP from an address has it. A host that answers
for many addresses answers for whatever it is asked (proxy ARP, a broken bridge), and leaves new clients no address at
all: that is told apart from a host whose address was set by hand. No I/O; time is passed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

AHEAD: Final = 256
"""Free addresses of a pool that are kept probed: more PCs than switch on within the half second that probes take."""
PATIENCE: Final = 0.25  # seconds; hosts answer ARP in a few milliseconds, and a firmware waits for more than one second
CLEAR: Final = 300.0  # seconds
TAKEN: Final = 600.0  # seconds
AT_ONCE: Final = 64  # probes sent in one go, which a switch passes on without a loss
REMEMBERED: Final = 8192  # verdicts; more than all pools' next addresses, so that only a flood on the link exceeds it
EVERYTHING: Final = 16
"""Addresses of the pool that one host answers for, from which on it counts as one that answers for every one."""


@dataclass(frozen=True, slots=True)
class Answering:
    """A host that answers for addresses which it was not given."""

    mac: str  # empty where that is not known: who answers behind a relay agent
    address: IPv4Address  # one of them
    addresses: int

    @property
    def everything(self) -> bool:
        """Whether it answers for whatever is asked. Who is not known may be many."""
        return bool(self.mac) and self.addresses >= EVERYTHING


class Probing:
    """What is known of addresses that nobody has a lease of."""

    def __init__(self) -> None:
        self._hosts: Counter[str] = Counter()  # of how many addresses in `_taken` each is the host
        self._asked: dict[IPv4Address, float] = {}  # and not answered for yet
        self._clear: dict[IPv4Address, float] = {}
        self._taken: dict[IPv4Address, tuple[str, float]] = {}  # by which MAC address, empty if that is not known

    def wanted(self, ahead: Iterable[IPv4Address], now: float) -> Iterator[IPv4Address]:
        """Which of these to ask about now."""
        return (
            address
            for address in ahead
            if address not in self._asked and not self.clear(address, now) and not self.taken(address, "", now)
        )

    def asked(self, address: IPv4Address, now: float) -> None:
        """A probe was sent."""
        self._asked[address] = now

    def heard(self, address: IPv4Address, mac: str, now: float) -> Answering | None:
        """Somebody has this address. Who, if we asked for it or believed it clear."""
        news = self._asked.pop(address, None) is not None
        news = self._clear.pop(address, None) is not None or news
        if not news:
            return None
        self._forget(address)
        self._taken[address] = (mac, now + TAKEN)
        self._hosts[mac] += 1
        return Answering(mac, address, self._hosts[mac])

    def answering(self, now: float) -> list[tuple[IPv4Address, str]]:
        """The addresses that are answered for, and by whom, as far as that was asked lately."""
        return [(address, mac) for address, (mac, until) in self._taken.items() if now < until + CLEAR]

    def settle(self, now: float) -> None:
        """What was asked long enough ago is clear. Forgets what is out of date."""
        for address, at in list(self._asked.items()):
            if now - at < PATIENCE and at <= now:
                break  # they stand in the order in which they were asked
            del self._asked[address]
            self._clear.pop(address, None)
            self._clear[address] = now
            self._forget(address)
        while len(self._clear) > REMEMBERED:
            del self._clear[next(iter(self._clear))]
        while len(self._taken) > REMEMBERED:
            self._forget(next(iter(self._taken)))

    def _forget(self, address: IPv4Address) -> None:
        """Nobody is known to answer for this address any more."""
        found = self._taken.pop(address, None)
        if found is not None:
            self._hosts[found[0]] -= 1
            if not self._hosts[found[0]]:
                del self._hosts[found[0]]

    def clear(self, address: IPv4Address, now: float) -> bool:
        """Nobody answered a while ago."""
        at = self._clear.get(address)
        return at is not None and 0 <= now - at < CLEAR

    def taken(self, address: IPv4Address, client: str, now: float) -> bool:
        """Somebody else than this client answered."""
        found = self._taken.get(address)
        return found is not None and found[0] != client and now < found[1]

    @property
    def waiting(self) -> bool:
        return bool(self._asked)
