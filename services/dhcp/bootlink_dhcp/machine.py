"""The decision machine: one DHCP packet and the time in; a reply, events and a count out.

Theory of operation. We are authoritative for our subnets: we alone know their leases, so a client that claims an
address which is not its own is told so (NAK) rather than left in doubt. `Topology` says in which of them a packet's
client is; each has a lease table of its own. Each message type has one method, each as RFC 2131 section 4.3 has it. Two
others are asked on the way: the lease table says which address, `Boots` says which boot and which file. It hears of
DISCOVERs, and of REQUESTs that we acknowledge, from clients that want to boot and from nobody else: a running system's
DHCP client never begins a boot.

A REQUEST comes from one of four states (RFC 2131 section 4.3.2), told apart by what is filled in:

    state         server id   requested address   ciaddr   if the address is not the client's
    SELECTING     yes         yes                 0        NAK; if another server was chosen, silence
    INIT-REBOOT   no          yes                 0        NAK
    RENEWING      no          no                  yes      NAK
    REBINDING     no          no                  yes      NAK

Where another DHCP server is named that belongs here, it knows of leases that we do not: an address which is none of
ours, neither of a pool nor reserved, is left to it (RFC 2131 section 4.3.2: who has no record of a client is silent).

A renewal of an address that we have no lease of, but that is free, is granted: the lease file may be lost, and
a NAK would take the address from under a mounted root disk. For the same reason a client that has booted from us
keeps its address until its next power-on, although its reservation, somebody else's or the pool says otherwise by
now: its firmware is moved, its operating system never is.

What happens to a client that the registry does not know is told as far as an allowance goes: anybody can make up
MAC addresses, and each would else cost the bus events and the registry rows. They are answered all the same.

`Decision.durable` says that the reply promises something: it must not be sent before what was recorded is on disk.

The machine does no I/O and knows no clock. It raises nothing for any packet that the codec accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Final, Literal, NamedTuple, Protocol

from bootlink_dhcp.bootfiles import boot_client, boot_file_options, boot_options
from bootlink_dhcp.boots import BootAnswer, BootAsk, Boots
from bootlink_dhcp.decision import LIMITED_BROADCAST, Decision, Promise, Reply, Via
from bootlink_dhcp.leases import LeaseTable
from bootlink_dhcp.replies import fit, size_limit
from bootlink_dhcp.subnet import Subnet
from bootlink_dhcp.topology import Scope, Topology, server_id
from bootlink_events import DhcpAddressTaken, initiator_iqn, normalise_mac
from bootlink_runtime import Allowance
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, DhcpPacket, MessageType

BOOTP_SECONDS: Final = 30 * 24 * 3600.0
"""How long a BOOTP client keeps its address after its last boot: it knows no leases and never renews one."""
STRANGERS_BURST: Final = 3_000
"""Packets of unknown clients that are told at once: a thousand new PCs that boot together; each has three such."""
STRANGERS_PER_SECOND: Final = 60.0  # and then; the registry writes some hundreds
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOST_NAME: Final = re.compile(rf"(?=.{{1,63}}\Z){_LABEL}(?:\.{_LABEL})*")
"""What option 12 may carry: RFC 1123 section 2.1, and no longer than Linux takes (64 with its end, sethostname(2))."""


Bootp = Literal["off", "reserved", "dynamic"]


class Book(Protocol):
    """What the machine asks about a client: its name if the registry knows it, its reserved address, and the options
    that its group has."""

    def name(self, mac: str) -> str | None: ...
    def reserved(self, mac: str) -> IPv4Address | None: ...
    def options(self, mac: str) -> Sequence[tuple[int, bytes]]: ...


class _Asked(NamedTuple):
    """A request, with what every handler wants to know of it."""

    packet: DhcpPacket
    mac: str
    scope: Scope
    server: IPv4Address  # what we call ourselves in the answer
    boot: BootAsk | None  # None for an operating system, which only wants an address
    now: float

    @property
    def subnet(self) -> Subnet:
        return self.scope.subnet

    @property
    def leases(self) -> LeaseTable:
        return self.scope.leases


class DhcpMachine:
    """Decides for all our subnets."""

    def __init__(
        self, topology: Topology, boots: Boots, book: Book, *, bootp: Bootp = "reserved", beside_others: bool = False
    ) -> None:
        """`beside_others`: other DHCP servers give out addresses of the same subnets, and belong here."""
        self._bootp_for = bootp
        self._beside_others = beside_others
        self._topology = topology
        self._boots = boots
        self._book = book
        self._strangers = Allowance(STRANGERS_BURST, STRANGERS_PER_SECOND)
        self._handlers: Mapping[MessageType, Callable[[_Asked], Decision]] = {
            MessageType.DISCOVER: self._discover,
            MessageType.REQUEST: self._request,
            MessageType.DECLINE: self._decline,
            MessageType.RELEASE: self._release,
            MessageType.INFORM: self._inform,
        }

    def handle(self, packet: DhcpPacket, now: float) -> Decision:
        """Decide about one packet that arrived at `now` (seconds since the epoch)."""
        if packet.op != dhcp.BOOTREQUEST:
            return Decision("dropped_not_a_request")
        if packet.htype != dhcp.ETHERNET or len(packet.chaddr) != dhcp.ETHERNET_LENGTH:
            return Decision("dropped_not_ethernet")
        scope = self._topology.of(packet)
        if scope is None:
            return Decision("dropped_relay_of_another_subnet")
        try:
            mac = normalise_mac(packet.chaddr.hex(":"))
        except ValueError:
            return Decision("dropped_impossible_mac")
        message = packet.message_type
        handler = self._handlers.get(message) if message is not None else self._bootp
        if handler is None:
            return Decision("dropped_not_a_request")
        client = boot_client(packet)
        boot = BootAsk(packet, mac, client, now) if client is not None else None
        server = server_id(packet) or scope.subnet.server
        decision = handler(_Asked(packet, mac, scope, server, boot, now))
        if decision.events and self._book.name(mac) is None and not self._strangers.spend(now):
            return replace(decision, events=(), begun=None, withheld=len(decision.events))
        return decision

    # -- the message types -------------------------------------------------------------------------------------

    def _discover(self, asked: _Asked) -> Decision:
        reserved = self._book.reserved(asked.mac)
        address = self._in_use(asked) or asked.leases.choose(
            asked.mac,
            reserved,
            asked.packet.get(opt.REQUESTED_ADDRESS),
            asked.now,
            known=self._known(asked),
        )
        boot = self._boots.discovered(asked.boot, address) if asked.boot is not None else None
        events = boot.events if boot is not None else ()
        if address is None:
            if asked.boot is not None and boot is not None and boot.boot.minted:
                events = (*events, self._boots.failed(asked.boot, boot.boot, *POOL_EXHAUSTED))
            return Decision("pool_exhausted", events=events)
        fresh = (reserved is None or address != reserved) and asked.leases.new_to(asked.mac, address)
        asked.leases.offer(asked.mac, address, asked.now)
        reply = self._answer(asked, MessageType.OFFER, address, boot)
        promise = Promise(address, asked.mac, asked.now) if fresh else None
        begun = boot.begun if boot is not None else None
        return Decision("discover", self._to_client(asked, reply), fresh=promise, events=events, begun=begun)

    def _request(self, asked: _Asked) -> Decision:
        packet = asked.packet
        server, wanted = packet.get(opt.SERVER_ID), packet.get(opt.REQUESTED_ADDRESS)
        if server is not None and server not in (asked.server, asked.subnet.server):
            lease = asked.leases.of_client(asked.mac, asked.now)
            if lease is not None and packet.ciaddr is NO_ADDRESS:
                asked.leases.withdraw(asked.mac, lease.address)
            return Decision("request_for_another_server")
        beginning = packet.ciaddr is NO_ADDRESS  # SELECTING or INIT-REBOOT: the client has no address in use
        address = wanted if beginning else packet.ciaddr
        if address is None:
            return Decision("dropped_request_without_address")
        refusal = self._refusal(asked, address, selecting=server is not None, beginning=beginning)
        if refusal is not None and server is None and self._theirs(asked, address):
            return Decision("request_of_another_servers_client")
        if refusal is not None:
            return self._nak(asked, refusal)
        lease = asked.leases.bind(asked.mac, address, asked.now)
        boot = self._boots.acknowledged(asked.boot, address) if asked.boot is not None and beginning else None
        reply = self._answer(asked, MessageType.ACK, address, boot)
        events = boot.events if boot is not None else ()
        promise = Promise(address, asked.mac, lease.expires)
        return Decision("request", self._to_client(asked, reply), durable=True, promised=promise, events=events)

    def _refusal(self, asked: _Asked, address: IPv4Address, *, selecting: bool, beginning: bool) -> str | None:
        """Why this client may not have this address; None if it may."""
        if not asked.scope.usable(address):
            return f"{address} is not in {asked.subnet.network}"
        in_use = self._in_use(asked)
        if in_use is not None and address == in_use:
            return None
        if not asked.leases.may_use(asked.mac, address, asked.now):
            return f"{address} is not free for this client"
        if asked.leases.kept_from(asked.mac, address, self._known(asked)):
            return f"{address} is kept for clients that are known here"
        if beginning:
            lease = asked.leases.of_client(asked.mac, asked.now)
            if lease is not None and int(lease.address) != int(address):
                return f"this client's address is {lease.address}"
            if lease is None and not selecting:
                return f"this client has no lease of {address}"  # RFC 2131 section 4.3.2: silence, if not authoritative
        return None

    def _theirs(self, asked: _Asked, address: IPv4Address) -> bool:
        """Another server may have leased this address to the client, which is not for us to refuse then."""
        if self._beside_others and asked.scope.usable(address) and not asked.leases.ours(address):
            return True
        return asked.leases.theirs(address)

    def _in_use(self, asked: _Asked) -> IPv4Address | None:
        """The address that the root disk of this client's running system hangs on, as far as we know."""
        if asked.boot is not None or not self._boots.begun(asked.mac):
            return None
        lease = asked.leases.of_client(asked.mac, asked.now)
        return lease.address if lease is not None else None

    def _known(self, asked: _Asked) -> Callable[[str], bool] | None:
        """Who is to be spared by this client, if it is a stranger."""
        return None if self._book.name(asked.mac) is not None else lambda mac: self._book.name(mac) is not None

    def _decline(self, asked: _Asked) -> Decision:
        address = asked.packet.get(opt.REQUESTED_ADDRESS)
        if asked.packet.get(opt.SERVER_ID) not in (None, asked.server, asked.subnet.server) or address is None:
            return Decision("dropped_decline")
        if not asked.leases.decline(asked.mac, address, asked.now):
            return Decision("dropped_decline")
        taken = DhcpAddressTaken(
            mac=None,  # the client knows whose it is, and does not say
            address=address,
            addresses=1,
            everything=False,
            remedy=DECLINED,
            at=datetime.fromtimestamp(asked.now, UTC),
        )
        return Decision("decline", events=(taken,))

    def _release(self, asked: _Asked) -> Decision:
        if asked.packet.get(opt.SERVER_ID) not in (None, asked.server, asked.subnet.server):
            return Decision("dropped_release")
        released = asked.leases.release(asked.mac, asked.packet.ciaddr, asked.now)
        return Decision("release" if released else "dropped_release")

    def _inform(self, asked: _Asked) -> Decision:
        if not asked.subnet.usable(asked.packet.ciaddr):
            return Decision("dropped_inform")
        reply = self._answer(asked, MessageType.ACK, NO_ADDRESS, None)
        return Decision("inform", Reply(reply, Via.UNICAST, asked.packet.ciaddr))

    def _bootp(self, asked: _Asked) -> Decision:
        """A packet without message type: BOOTP, RFC 951 and RFC 1534. One packet, one answer, and no lease time.

        It never begins a boot: printers and switches ask in the same way. The boot begins when what was loaded asks.
        """
        packet = asked.packet
        reserved = self._book.reserved(asked.mac)
        if self._bootp_for == "off" or (reserved is None and self._bootp_for == "reserved"):
            return Decision("dropped_bootp")
        if packet.sname not in (b"", str(asked.server).encode()):
            return Decision("dropped_bootp_for_another_server")  # RFC 951 section 7.3
        address = asked.leases.choose(asked.mac, reserved, None, asked.now, known=self._known(asked))
        if address is None or (self._bootp_for == "reserved" and address != reserved):
            return Decision("pool_exhausted")
        lease = asked.leases.bind(asked.mac, address, asked.now, seconds=BOOTP_SECONDS)
        file = self._boots.bootp_file(asked.mac, packet.file.decode("ascii", "replace"))
        server = self._boots.file_server if file else NO_ADDRESS
        name = str(server).encode() if file else b""
        options: dict[int, bytes] = {}
        if packet.cookie:  # who has no options cannot read any
            needed = boot_file_options(server, file) if file else []
            options = asked.scope.options | dict(self._host_name(asked)) | dict(needed)
            _echo(packet, options)
            optional = self._book.options(asked.mac)
            fit(options, optional, keep=[code for code, _ in needed], most=size_limit(packet))
        reply = _reply(packet, options, packet.ciaddr, address, server, name, file.encode())
        promise = Promise(address, asked.mac, lease.expires)
        return Decision("bootp", self._to_client(asked, reply), durable=True, promised=promise)

    # -- replies -----------------------------------------------------------------------------------------------

    def _answer(self, asked: _Asked, message: MessageType, address: IPv4Address, boot: BootAnswer | None) -> DhcpPacket:
        """An OFFER or ACK; without an address it is the answer to an INFORM, which has no lease times."""
        packet, scope = asked.packet, asked.scope
        if address is NO_ADDRESS:
            options = dict([opt.MESSAGE_TYPE.encode(message), opt.SERVER_ID.encode(asked.server)]) | scope.options
        else:
            options = scope.answers[message].copy()
            if asked.server is not scope.subnet.server:
                options.update([opt.SERVER_ID.encode(asked.server)])
        if packet.asks_for(opt.HOST_NAME):
            options.update(self._host_name(asked))
        # What the administrator set takes the place of the usual, but never of what a boot needs.
        optional = list(self._book.options(asked.mac))
        needed: Sequence[tuple[int, bytes]] = ()
        server, name, file = NO_ADDRESS, b"", b""
        if boot is not None:
            needed = boot.options
            if boot.file:
                server, name, file = boot.server, str(boot.server).encode(), boot.file.encode()
                optional.append(opt.TFTP_SERVERS.encode((server,)))
            if boot.boot.gets_script:
                optional.append(opt.INITIATOR_NAME.encode(initiator_iqn(asked.mac, boot.boot.boot_id)))
        elif asked.boot is not None:
            needed = boot_options(packet, asked.boot.client)
        options.update(needed)
        _echo(packet, options)
        if optional:
            fit(options, optional, keep=[code for code, _ in needed], most=size_limit(packet))
        ciaddr = packet.ciaddr if message is MessageType.ACK else NO_ADDRESS
        return _reply(packet, options, ciaddr, address, server, name, file)

    def _host_name(self, asked: _Asked) -> list[tuple[int, bytes]]:
        name = self._book.name(asked.mac)
        return [opt.HOST_NAME.encode(name)] if name is not None and HOST_NAME.fullmatch(name) else []

    def _nak(self, asked: _Asked, reason: str) -> Decision:
        options = dict(
            [
                opt.MESSAGE_TYPE.encode(MessageType.NAK),
                opt.SERVER_ID.encode(asked.server),
                opt.MESSAGE_TEXT.encode(reason),
            ]
        )
        _echo(asked.packet, options)
        reply = _reply(asked.packet, options)
        if reply.giaddr is not NO_ADDRESS:
            # The relay must broadcast it: the client may not have a working address (RFC 2131 section 4.3.2).
            reply = replace(reply, flags=reply.flags | dhcp.BROADCAST_FLAG)
            return Decision("nak", Reply(reply, Via.RELAY, reply.giaddr))
        return Decision("nak", Reply(reply, Via.BROADCAST, LIMITED_BROADCAST))

    def _to_client(self, asked: _Asked, reply: DhcpPacket) -> Reply:
        if reply.giaddr is not NO_ADDRESS:
            return Reply(reply, Via.RELAY, reply.giaddr)
        if reply.ciaddr is not NO_ADDRESS:
            return Reply(reply, Via.UNICAST, reply.ciaddr)
        if asked.packet.broadcast:
            return Reply(reply, Via.BROADCAST, LIMITED_BROADCAST)
        return Reply(reply, Via.FRAME, reply.yiaddr)


def _echo(packet: DhcpPacket, options: dict[int, bytes]) -> None:
    """Put in what each answer repeats of its request."""
    selection = packet.options.get(opt.SUBNET_SELECTION.code)
    if selection is not None:
        options[opt.SUBNET_SELECTION.code] = selection  # RFC 3011 section 3: it was heeded
    relay = packet.options.get(opt.RELAY_AGENT.code)
    # One option, RFC 3046 section 2: what was split comes from no relay agent, and echoed may exceed a frame.
    if relay is not None and len(relay) <= opt.OPTION_SIZE:
        options[opt.RELAY_AGENT.code] = relay  # RFC 3046 section 2.2: verbatim


def _reply(
    packet: DhcpPacket,
    options: Mapping[int, bytes],
    ciaddr: IPv4Address = NO_ADDRESS,
    yiaddr: IPv4Address = NO_ADDRESS,
    siaddr: IPv4Address = NO_ADDRESS,
    sname: bytes = b"",
    file: bytes = b"",
) -> DhcpPacket:
    """The answer, with what it takes from its request."""
    return DhcpPacket(
        dhcp.BOOTREPLY,
        packet.xid,
        packet.chaddr,
        flags=packet.flags,
        ciaddr=ciaddr,
        yiaddr=yiaddr,
        siaddr=siaddr,
        giaddr=packet.giaddr,
        sname=sname,
        file=file,
        options=options,
        cookie=packet.cookie,
    )


DECLINED: Final = (
    "find the host that has it, and have it ask by DHCP; or choose a pool (BOOTLINK_DHCP_POOL) or a reservation "
    "without that address, which rests for a day"
)
"""What to do about an address that a client has found to be somebody else's."""
POOL_EXHAUSTED: Final = (
    "no address is free in the pool",
    "widen the pool (BOOTLINK_DHCP_POOL) or shorten the lease (BOOTLINK_DHCP_LEASE_SECONDS)",
)
