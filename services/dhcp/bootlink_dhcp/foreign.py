"""Other servers on the PCs' network: who else answers DHCP and PXE, and whether that is news. Pure.

A second server is the commonest reason why a PC does not boot, and the PC cannot say so: it takes an address, or a
boot file, from whoever is faster. So every answer of a server that is not ours, and every client that chooses one, is
looked at. A server is told once, again when it gives something that it did not before, and again when it comes back
after a silence.

Which servers belong here is a matter of the mode: where we are a proxy, another server gives out addresses, and none
but us says what to boot. Other dhcp services of this Bootlink always belong here, and servers named in the settings.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Final

from bootlink_dhcp.bootfiles import HTTP_CLASS, PXE_CLASS
from bootlink_events import DhcpForeignServer
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, DhcpPacket, MessageType

FORGET_SECONDS: Final = 300.0
"""Silence after which a server is held to be gone: it is asked every minute (`PROBE_SECONDS`), and may miss some."""
SERVERS_MAX: Final = 64
"""Servers known at once: a network has one or two. Made-up ones push out those silent for longest."""
BOOT_FILE_SHOWN: Final = 255  # characters

_ANSWERS: Final = (MessageType.OFFER, MessageType.ACK)


@dataclass(frozen=True, slots=True)
class ForeignServer:
    """One other server, as far as it was heard."""

    address: IPv4Address
    mac: str  # of the card that sent it; empty where only a client's choice was heard
    gives_addresses: bool
    gives_boot: bool  # it says what to boot
    boot_file: str
    seen: float  # when it last was, seconds since the epoch
    client: str  # MAC address of whom it answered last


class ForeignServers:
    """The other servers on this network."""

    def __init__(self, own: IPv4Address, known: Collection[IPv4Address] = (), *, proxy: bool) -> None:
        """`known`: servers that belong here. `proxy`: so does whoever gives out addresses."""
        self._own = own
        self._known = frozenset(known)
        self.relatives: frozenset[IPv4Address] = frozenset()  # the other dhcp services of this Bootlink
        self.proxy = proxy
        self._servers: OrderedDict[IPv4Address, ForeignServer] = OrderedDict()  # silent for longest first

    def answered(self, packet: DhcpPacket, source: IPv4Address, mac: str, now: float) -> ForeignServer | None:
        """A server's answer passed by. Returns the server where that is news."""
        if packet.message_type not in _ANSWERS and not (packet.message_type is None and packet.yiaddr != NO_ADDRESS):
            return None
        address = packet.get(opt.SERVER_ID) or source
        classes = (PXE_CLASS, HTTP_CLASS)
        boot = packet.file.decode("ascii", "replace") or packet.get(opt.BOOT_FILE_NAME) or ""
        return self._heard(
            ForeignServer(
                address,
                mac,
                gives_addresses=packet.yiaddr != NO_ADDRESS,
                gives_boot=bool(boot) or (packet.get(opt.VENDOR_CLASS) or "").startswith(classes),
                boot_file="".join(c if c.isprintable() and c.isascii() else "?" for c in boot)[:BOOT_FILE_SHOWN],
                seen=now,
                client=packet.chaddr.hex(":"),
            )
        )

    def chosen(self, packet: DhcpPacket, now: float) -> ForeignServer | None:
        """A client's request passed by. Returns the server that it has chosen, where that is another and news."""
        address = packet.get(opt.SERVER_ID)
        if address is None or address == NO_ADDRESS or packet.message_type is not MessageType.REQUEST:
            return None
        return self._heard(ForeignServer(address, "", True, False, "", now, packet.chaddr.hex(":")))

    def current(self, now: float) -> list[ForeignServer]:
        """Those that were heard lately."""
        return [server for server in self._servers.values() if now - server.seen < FORGET_SECONDS]

    def belongs(self, server: ForeignServer) -> bool:
        """Whether what this server does is as it should be."""
        named = server.address in self._known or server.address in self.relatives
        return named or (self.proxy and not server.gives_boot)

    def remedy(self, server: ForeignServer) -> str:
        """What to do about one that does not belong here."""
        named = f"if it belongs here, name it in BOOTLINK_DHCP_KNOWN_SERVERS ({server.address})"
        if self.proxy:
            return f"take the boot file (options 66, 67 and 60) out of its settings; {named}"
        if server.gives_addresses:
            return f"switch it off, or let it give out the addresses (BOOTLINK_DHCP_MODE=proxy); {named}"
        return f"switch it off: it tells PCs what to boot; {named}"

    def event(self, server: ForeignServer, interface: str) -> DhcpForeignServer:
        """What to tell of it."""
        return DhcpForeignServer(
            server=server.address,
            server_mac=server.mac or None,
            interface=interface,
            addresses=server.gives_addresses,
            boot_files=server.gives_boot,
            boot_file=server.boot_file,
            client_mac=server.client,
            expected=self.belongs(server),
            at=datetime.fromtimestamp(server.seen, UTC),
        )

    def _heard(self, heard: ForeignServer) -> ForeignServer | None:
        if heard.address == self._own:
            return None
        before = self._servers.pop(heard.address, None)
        if before is not None and heard.seen - before.seen < FORGET_SECONDS:
            heard = replace(
                heard,
                mac=heard.mac or before.mac,
                gives_addresses=heard.gives_addresses or before.gives_addresses,
                gives_boot=heard.gives_boot or before.gives_boot,
                boot_file=heard.boot_file or before.boot_file,
            )
            news = (heard.gives_addresses, heard.gives_boot) != (before.gives_addresses, before.gives_boot)
        else:
            news = True
        self._servers[heard.address] = heard
        while len(self._servers) > SERVERS_MAX:
            self._servers.popitem(last=False)
        return heard if news else None
