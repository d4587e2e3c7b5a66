"""Several dhcp servers on one pool: which addresses each may give to whom, also while they cannot hear one another.

Theory of operation. What all servers know lies in a key-value bucket: an entry for each address that was ever given
out (`Entry`), and one for each server (`Peer`). An address' entry is only written by compare-and-set, so of two servers
that want one address one gets it. But an answer must not wait for that, and must be possible while NATS is away. So it
is settled beforehand who may do what:

    held      the server that the entry names gives the address to a new client, with or without NATS. Each server holds
              its share of the free addresses before anybody asks.
    bound     the address is its client's. The server that the entry names renews it at once and writes later; another
              one makes the entry its own first (`must_confirm`), and answers when that is done.
    idle      the lease has run out. The address stays its client's, until the server that the entry names takes it
              back and holds it: `GRACE` after the lease's end, and only while all other servers are heard. For one that
              is not heard may have renewed that lease meanwhile.

A server that cannot write (NATS is away) goes on with what it holds and with leases that have not run out, its own or
another's: those can be given to nobody else meanwhile. It promises nothing beyond `lead` seconds after its last write;
when it has been silent for longer than that, the others forget it, and what it held or gave out may be taken over. (The
DHCP failover draft of the IETF has the same two ideas: split free addresses, and a maximum client lead time.)

A server with no peer is *alone*: all addresses are its own, nothing is held, and no write is waited for. A new server
finds the others in the bucket, and neither holds nor takes over anything until each of them has written that it knows
of it: from then on none is alone. Not defended against: a server that has never reached NATS at all, beside another.

The clock is passed in, in seconds since the epoch; servers compare with their own clock only what they heard by it, but
for the ends of leases, where `GRACE` is the difference between clocks that is borne.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Any, Final

from pydantic_core import to_json

from bootlink_events import subject_token

LEAD: Final = 24 * 3600.0
"""Seconds that a server which cannot write goes on for, where it is not alone: a night and a day to mend NATS."""
HEARTBEAT: Final = 5.0  # seconds between a server's signs of life
PRESENT: Final = 20.0  # seconds after the last sign in which a server counts as heard
GRACE: Final = 60.0
"""Seconds after a lease's end until its address is taken back: longer than a server counts as heard, so that one which
renewed the lease just before it was cut off is no longer heard by then; and for clocks that differ."""
SHARE_LIMIT: Final = 4096
"""Addresses of a subnet that one server holds at most: a room of that size boots at once, and it takes some seconds to
claim them."""


class Held(StrEnum):
    """What an entry says of its address."""

    FREE = "free"
    HELD = "held"
    BOUND = "bound"
    IDLE = "idle"
    DECLINED = "declined"


@dataclass(frozen=True, slots=True)
class Entry:
    """What all servers know of one address."""

    server: str  # which of them wrote it last
    state: Held
    client: str = ""  # normalised MAC address, of a lease
    expires: float = 0.0
    revision: int = 0  # in the bucket; no part of the value

    def encode(self) -> bytes:
        # Not `json`, which takes three times as long.
        return to_json({"server": self.server, "state": self.state, "client": self.client, "expires": self.expires})


@dataclass(frozen=True, slots=True)
class Peer:
    """Another server."""

    knows_us: bool = False
    heard: float | None = None  # when it last gave a sign; None: never since we started
    since: float = 0.0  # when we last had reason to think it there
    lead: float = LEAD


def decode_entry(data: bytes, revision: int) -> Entry:
    """ValueError if these bytes are no entry."""
    try:
        value = json.loads(data)
        return Entry(
            str(value["server"]), Held(value["state"]), str(value["client"]), float(value["expires"]), revision
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no lease: {error!r}") from error


class Sharing:
    """One server's view of all. No I/O."""

    def __init__(self, me: str, *, lead: float = LEAD) -> None:
        self.me = me
        self.lead = lead
        self.contact = 0.0  # when our last write was confirmed
        self.cut = True  # the last write was not
        self.peers: dict[str, Peer] = {}
        self.entries: dict[IPv4Address, Entry] = {}
        self.spares: set[IPv4Address] = set()  # what we hold
        self._promised: dict[IPv4Address, tuple[str, float]] = {}  # while cut: to whom, until when

    # -- who is there ------------------------------------------------------------------------------------------

    @property
    def alone(self) -> bool:
        return not self.peers

    @property
    def joined(self) -> bool:
        """All others know of us."""
        return all(peer.knows_us for peer in self.peers.values())

    def complete(self, now: float) -> bool:
        """All others are heard."""
        return all(peer.heard is not None and 0 <= now - peer.heard < PRESENT for peer in self.peers.values())

    def told(self, node: str, value: Mapping[str, Any], now: float, *, fresh: bool) -> bool:
        """What a server's entry says. `fresh`: it was written just now. True if that server is new to us."""
        held = self.peers.get(node)
        knows_us = self.me in value.get("peers", ())
        lead = float(value.get("lead", LEAD))
        heard = now if fresh else held.heard if held is not None else None
        self.peers[node] = Peer(knows_us, heard, now if fresh or held is None else held.since, lead)
        return held is None

    def overdue(self, now: float) -> list[str]:
        """Servers that have been silent for so long that nothing they promised holds any more; and a former self of
        this node, which was made anew without its folder."""
        return [
            name
            for name, peer in self.peers.items()
            if now - peer.since > peer.lead + GRACE
            or (peer.heard is None and node_of(name) == node_of(self.me) and now - peer.since > 2 * PRESENT)
        ]

    def forget(self, node: str) -> None:
        self.peers.pop(node, None)

    def sign(self, now: float) -> bytes:
        """Our own sign of life."""
        return json.dumps({"peers": sorted(self.peers), "lead": self.lead, "at": now}).encode()

    def confirmed(self, now: float) -> None:
        """A write of ours is stored."""
        self.contact, self.cut = now, False

    # -- what we may do ----------------------------------------------------------------------------------------

    def may_write(self, address: IPv4Address, client: str) -> bool:
        """An entry may say that this client has the address: nobody else has it, or may give it away."""
        if self.alone:
            return True
        entry = self.entries.get(address)
        if entry is None or entry.state is Held.FREE or entry.server == self.me:
            return True
        return entry.client == client or (entry.state is Held.HELD and entry.server not in self.peers)

    def unused(self, address: IPv4Address) -> bool:
        """An address without a lease may be given to whoever asks."""
        if self.alone:
            return True
        entry = self.entries.get(address)
        return entry is not None and entry.server == self.me and entry.state is Held.HELD

    def another(self) -> bool:
        """An idle address may be given to another client at once. Else it is taken back first, see `reclaimable`."""
        return self.alone

    def again(self, address: IPv4Address, client: str, now: float) -> bool:
        """A client may be told that it still has this address, at once or after a confirmation."""
        if not self.must_confirm(address):
            return True
        if self.cut:
            return self._holds_on(address, client, now)
        entry = self.entries.get(address)
        peer = self.peers.get(entry.server) if entry is not None else None
        return self.joined if peer is None else peer.knows_us

    def theirs(self, address: IPv4Address) -> bool:
        """Another server knows better than we whose this address is; so it is not for us to refuse it to a client."""
        if self.alone:
            return False
        entry = self.entries.get(address)
        if entry is not None and entry.server == self.me:
            return False
        return self.cut or (entry is not None and entry.server in self.peers)

    def may_promise(self, until: float) -> bool:
        """A lease may end so late."""
        return self.alone or until <= self.contact + self.lead

    def must_confirm(self, address: IPv4Address) -> bool:
        """The entry has to be made our own before this address is promised."""
        if self.alone:
            return False
        entry = self.entries.get(address)
        return entry is None or entry.server != self.me

    def _holds_on(self, address: IPv4Address, client: str, now: float) -> bool:
        """Cut off: the lease has not run out, as far as we know, so that nobody else is given the address."""
        entry = self.entries.get(address)
        if entry is not None and entry.client == client and entry.state is Held.BOUND and entry.expires > now:
            return True
        promised = self._promised.get(address)
        return promised is not None and promised[0] == client and promised[1] > now

    def unconfirmed(self, address: IPv4Address, client: str, until: float, now: float) -> bool:
        """Whether to promise this without the entry being our own, as no write is possible; remembers it if so."""
        if not (self.cut and self._holds_on(address, client, now)):
            return False
        self._promised[address] = (client, until)
        return True

    # -- the shares --------------------------------------------------------------------------------------------

    def share(self, size: int) -> int:
        """How many free addresses of a pool of this size we hold."""
        return 0 if self.alone else min(SHARE_LIMIT, -(-size // (len(self.peers) + 1)))

    def claimable(self, address: IPv4Address) -> bool:
        """Nobody has this address, nor holds it."""
        entry = self.entries.get(address)
        if entry is None or entry.state is Held.FREE:
            return True
        return entry.state is Held.HELD and entry.server != self.me and entry.server not in self.peers

    def reclaimable(self, address: IPv4Address, now: float) -> bool:
        """A lease that has run out and was ours, or that of a server which is forgotten: it may be taken back."""
        entry = self.entries.get(address)
        if entry is None or entry.state not in (Held.BOUND, Held.IDLE) or entry.server in self.peers:
            return False
        return entry.expires + GRACE < now and self.complete(now)

    def gone(self, address: IPv4Address) -> Entry | None:
        """The bucket has no entry any more: it was made anew. Returns the former one."""
        self.spares.discard(address)
        return self.entries.pop(address, None)

    def anew(self) -> None:
        """The bucket is another one, in which revisions begin at 1: those that we know of are none of its own."""
        for address, entry in self.entries.items():
            self.entries[address] = replace(entry, revision=0)

    def stored(self, address: IPv4Address, entry: Entry, revision: int) -> None:
        """The bucket has this entry now, unless it is known already what came after it: what another server wrote upon
        an entry of ours may be told before our own write is answered."""
        held = self.entries.get(address)
        if held is not None and held.revision > revision:
            return
        if entry.revision != revision:
            entry = Entry(entry.server, entry.state, entry.client, entry.expires, revision)
        self.entries[address] = entry
        if entry.server == self.me and entry.state is Held.HELD:
            self.spares.add(address)
        else:
            self.spares.discard(address)
        if entry.server == self.me:
            self._promised.pop(address, None)


def server_name(node: str, identity: str) -> str:
    """What a server is called in the bucket: two machines may have one name, and one machine's folder may be lost."""
    return f"{subject_token(node)}_{identity}"


def node_of(name: str) -> str:
    """The node of a server's name."""
    return name.rpartition("_")[0]
