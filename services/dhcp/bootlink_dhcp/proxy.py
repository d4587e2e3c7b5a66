"""The proxy: tells PCs what to boot where another server gives out addresses (PXE 2.1 section 2.2, proxyDHCP).

Theory of operation. A PXE client's DISCOVER is heard by both servers. The other one offers an address, we offer none
(`yiaddr` 0) and what to boot; the client puts the two together. It then asks the other server for its address with a
REQUEST that everybody hears, and we learn from it that the exchange is complete. Some firmware asks us as well, on
port 4011, once it has its address. Operating systems are not answered at all.

No one shape of such an offer is right for all firmware (FIELD section 4), so there are two, `Shape`, and each PC is
offered the one that it takes:

    FILE    the boot file in the offer, and option 43.6 = 8: "use it, ask nobody"     EDK2, iPXE
    BINL    no option 43 and no file: "ask me on port 4011", as Windows' servers do    what rejects the other

A client that asks again after our offer (0, 4, 12, 28 s) has rejected its shape: it gets the other one. That may be
wrong, as it also asks again where the other server is slow, and costs nothing then: it changes back at the next
repeat. A shape that led to a script is kept until a boot with it fails. iPXE and HTTP boot have one shape each, and
are never offered another.

An iPXE that asks for its script uses what is in the offer, and there is no acknowledgement of ours to wait for; so a
script that was offered counts as used, and another transaction is another boot (`Ask.offered_is_used`).

The machine does no I/O and knows no clock. It raises nothing for any packet that the codec accepted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from bootlink_dhcp.bootfiles import boot_client
from bootlink_dhcp.boots import BootAnswer, BootAsk, BootBook, Boots
from bootlink_dhcp.decision import LIMITED_BROADCAST, Decision, Reply, Via
from bootlink_dhcp.firmware import Shape
from bootlink_dhcp.machine import STRANGERS_BURST, STRANGERS_PER_SECOND
from bootlink_events import normalise_mac
from bootlink_runtime import Allowance
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, DhcpMalformed, DhcpPacket, MessageType

REPEAT_SECONDS: Final = 2.0
"""From when a client that asks again does so for want of a good offer. Before, it is a copy that the network made."""
OFFERS_MAX: Final = 4_096  # clients whose last offer is remembered, for half a minute each: a room that starts at once
PXE_BOOT_ITEM: Final = 71  # of option 43, PXE 2.1 table 2-1: the boot server that a client has chosen from a menu
BOOT_FILE_OPTIONS: Final = frozenset((opt.VENDOR_SPECIFIC.code, opt.TFTP_SERVER_NAME.code, opt.BOOT_FILE_NAME.code))


class ProxyMachine:
    """Decides for one server address."""

    def __init__(self, server: IPv4Address, boots: Boots, book: BootBook) -> None:
        self._server = server
        self._boots = boots
        self._book = book
        self._offered: OrderedDict[str, float] = OrderedDict()  # when each firmware was last made an offer
        self._strangers = Allowance(STRANGERS_BURST, STRANGERS_PER_SECOND)

    def handle(self, packet: DhcpPacket, now: float) -> Decision:
        """Decide about one packet that arrived at port 67 at `now` (seconds since the epoch)."""
        ask = _ask(packet, now)
        if isinstance(ask, str):
            return Decision(ask)
        if packet.message_type is MessageType.DISCOVER:
            return self._told(ask, self._discover(ask))
        if packet.message_type is MessageType.REQUEST:
            return self._told(ask, self._overheard(ask))
        return Decision("ignored_not_for_a_proxy")

    def asked(self, packet: DhcpPacket, source: IPv4Address, now: float) -> Decision:
        """Decide about one packet that arrived at port 4011 from `source`; a reply goes back there."""
        ask = _ask(packet, now)
        if isinstance(ask, str):
            return Decision(ask)
        if packet.message_type not in (MessageType.REQUEST, MessageType.INFORM, MessageType.DISCOVER):
            return Decision("dropped_not_a_request")
        address = packet.ciaddr if packet.ciaddr != NO_ADDRESS else source
        answer = self._boots.named(replace(ask, proxied=True), address)
        if not answer.file:
            return self._told(ask, Decision("proxy_no_loader", events=answer.events))
        reply = self._reply(packet, MessageType.ACK, answer, _with_boot_item(packet, answer.options))
        return self._told(ask, Decision("proxy_request", Reply(reply, Via.UNICAST, source), events=answer.events))

    def _discover(self, ask: BootAsk) -> Decision:
        answer = self._boots.discovered(replace(ask, proxied=True), None)
        if not answer.file:
            return Decision("proxy_no_loader", events=answer.events)
        options: Iterable[tuple[int, bytes]] = answer.options
        if self._shape(ask, answer) is Shape.BINL:
            options = (pair for pair in options if pair[0] not in BOOT_FILE_OPTIONS)
            answer = answer._replace(file="")
        reply = self._reply(ask.packet, MessageType.OFFER, answer, options)
        if reply.giaddr != NO_ADDRESS:
            to = Reply(reply, Via.RELAY, reply.giaddr)
            return Decision("proxy_discover", to, events=answer.events, begun=answer.begun)
        # The client has no address yet, and we have none for it: whatever its flags say, everybody hears it.
        to = Reply(reply, Via.BROADCAST, LIMITED_BROADCAST)
        return Decision("proxy_discover", to, events=answer.events, begun=answer.begun)

    def _overheard(self, ask: BootAsk) -> Decision:
        """A client takes up another server's offer: its exchange is complete, as far as we shall ever know."""
        address = ask.packet.get(opt.REQUESTED_ADDRESS)
        if address is None or ask.packet.ciaddr != NO_ADDRESS:
            return Decision("ignored_not_for_a_proxy")  # a renewal
        return Decision("proxy_overheard", events=self._boots.acknowledged(replace(ask, proxied=True), address).events)

    def _shape(self, ask: BootAsk, answer: BootAnswer) -> Shape:
        if ask.client.ipxe or ask.client.http:
            return Shape.FILE
        known = self._boots.firmware.of(ask.mac)
        before = self._offered.pop(ask.mac, None)
        self._offered[ask.mac] = ask.now
        while len(self._offered) > OFFERS_MAX:
            self._offered.popitem(last=False)
        again = not answer.boot.minted and before is not None and ask.now - before >= REPEAT_SECONDS
        if not known.proved and (again or answer.boot.former_lost):
            return self._boots.firmware.reshape(ask.mac)
        return known.shape

    def _reply(
        self, packet: DhcpPacket, message: MessageType, answer: BootAnswer, options: Iterable[tuple[int, bytes]]
    ) -> DhcpPacket:
        pairs = [opt.MESSAGE_TYPE.encode(message), opt.SERVER_ID.encode(self._server), *options]
        relay = packet.get(opt.RELAY_AGENT)
        if relay is not None and len(relay) <= opt.OPTION_SIZE:  # else no relay agent's, see `DhcpMachine`
            pairs.append(opt.RELAY_AGENT.encode(relay))  # RFC 3046 section 2.2: verbatim
        return DhcpPacket(
            op=dhcp.BOOTREPLY,
            xid=packet.xid,
            chaddr=packet.chaddr,
            flags=packet.flags,
            ciaddr=packet.ciaddr,
            giaddr=packet.giaddr,
            siaddr=answer.server,
            sname=str(answer.server).encode() if answer.file else b"",
            file=answer.file.encode(),
            options=dhcp.options(*pairs),
        )

    def _told(self, ask: BootAsk, decision: Decision) -> Decision:
        """As `DhcpMachine` does it: strangers are told of as far as an allowance goes."""
        if decision.events and self._book.name(ask.mac) is None and not self._strangers.spend(ask.now):
            return replace(decision, events=(), withheld=len(decision.events))
        return decision


def _ask(packet: DhcpPacket, now: float) -> BootAsk | str:
    """Who wants to boot; or under which count to drop the packet."""
    if packet.op != dhcp.BOOTREQUEST:
        return "dropped_not_a_request"
    if packet.htype != dhcp.ETHERNET or len(packet.chaddr) != dhcp.ETHERNET_LENGTH:
        return "dropped_not_ethernet"
    try:
        mac = normalise_mac(packet.chaddr.hex())
    except ValueError:
        return "dropped_impossible_mac"
    client = boot_client(packet)
    return BootAsk(packet, mac, client, now) if client is not None else "ignored_not_booting"


def _with_boot_item(packet: DhcpPacket, options: tuple[tuple[int, bytes], ...]) -> list[tuple[int, bytes]]:
    """The options, with the client's choice of a boot item repeated, where it has made one."""
    asked = packet.get(opt.VENDOR_SPECIFIC)
    try:
        item = opt.encapsulated(asked).get(PXE_BOOT_ITEM) if asked else None
    except DhcpMalformed:
        item = None
    if item is None:
        return list(options)
    control = [(opt.PXE_DISCOVERY_CONTROL, bytes((opt.PXE_USE_OFFERED_FILE,))), (PXE_BOOT_ITEM, item)]
    return [
        opt.VENDOR_SPECIFIC.encode(opt.encapsulate(control)) if code == opt.VENDOR_SPECIFIC.code else (code, value)
        for code, value in options
    ]
