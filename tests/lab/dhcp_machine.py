"""The DHCP decision machine on its own: packets in, decisions out, a clock that stands still."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from bootlink_dhcp.bootfiles import BootFiles
from bootlink_dhcp.boots import Boots
from bootlink_dhcp.decision import Decision
from bootlink_dhcp.firmware import FirmwareMemory
from bootlink_dhcp.leases import LeaseTable
from bootlink_dhcp.machine import Bootp, DhcpMachine
from bootlink_dhcp.reservations import Reservations
from bootlink_dhcp.subnet import Pool, Subnet
from bootlink_dhcp.topology import Scope, Topology
from bootlink_dhcp.tracker import BootTracker
from bootlink_events import LoaderRule
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import DhcpPacket, MessageType
from lab.dhcp_client import Firmware, discover, request
from lab.loaders import AtHand

T0 = 1_800_000_000.0
PC = "52:54:00:12:34:56"
KNOWN = "52:54:00:00:00:07"
SERVER = IPv4Address("10.77.0.1")
FIRST = IPv4Address("10.77.0.101")
ALL_LOADERS = ("undionly.kpxe", "snponly.efi", "ipxe.efi")


def no_record(key: str, value: Mapping[str, Any] | None) -> None:
    """A disk that forgets."""


def bootp(mac: str, **fields: Any) -> DhcpPacket:
    """A BOOTREQUEST: no option 53, nor any other."""
    return DhcpPacket(op=dhcp.BOOTREQUEST, xid=0x951, chaddr=bytes.fromhex(mac.replace(":", "")), **fields)


class Lab:
    """One machine; the client KNOWN has a plan that reserves 10.77.0.20."""

    def __init__(
        self,
        *,
        loaders: tuple[str, ...] = ALL_LOADERS,
        port: int = 69,
        chain: bool = True,
        pool_size: int = 4,
        bootp: Bootp = "reserved",
        beside_others: bool = False,
    ) -> None:
        self.bootp, self.beside_others = bootp, beside_others
        self.names = {KNOWN: "pc-007"}
        self.group_options: tuple[tuple[int, bytes], ...] = ()
        self.rules: dict[str, tuple[LoaderRule, ...]] = {}
        self.files, self.chain, self.now = BootFiles(SERVER, port, AtHand(*loaders)), chain, T0
        self.leases_on_disk: dict[str, Mapping[str, Any]] = {}
        self.tracker = BootTracker(no_record)
        self.restart(Pool(FIRST, FIRST + pool_size - 1))

    def restart(self, pool: Pool) -> None:
        """The service anew, with this pool; what it remembers of boots is not looked at here."""
        self.subnet = Subnet(IPv4Network("10.77.0.0/24"), SERVER, pool, 3600, SERVER + 253, (SERVER, SERVER + 1))
        self.reservations = Reservations(self.subnet)
        self.reservations.set(KNOWN, IPv4Address("10.77.0.20"))
        self.leases = LeaseTable(self.subnet, self.reservations.owner, self._record_lease)
        self.leases.restore(list(self.leases_on_disk.items()), self.now)
        boots = Boots(self.tracker, self.files, FirmwareMemory(no_record), self, chain_rom_ipxe=self.chain)
        topology = Topology(Scope(self.subnet, self.leases))
        self.machine = DhcpMachine(topology, boots, self, bootp=self.bootp, beside_others=self.beside_others)

    def _record_lease(self, address: IPv4Address, value: Mapping[str, Any] | None) -> None:
        key = str(address)
        self.leases_on_disk.pop(key, None)
        if value is not None:
            self.leases_on_disk[key] = value

    def name(self, mac: str) -> str | None:
        return self.names.get(mac)

    def loader_rules(self, mac: str) -> tuple[LoaderRule, ...]:
        return self.rules.get(mac, ())

    def reserved(self, mac: str) -> IPv4Address | None:
        return self.reservations.of(mac)

    def options(self, mac: str) -> tuple[tuple[int, bytes], ...]:
        return self.group_options

    def handle(self, packet: DhcpPacket) -> Decision:
        """As the server does it: through the bytes."""
        decision = self.machine.handle(dhcp.decode(dhcp.encode(packet)), self.now)
        if decision.reply is not None:
            wire = dhcp.encode(decision.reply.packet)
            assert len(wire) <= 548  # what every client must accept (RFC 2131 section 2)
            assert dhcp.decode(wire) == decision.reply.packet
        return decision

    def exchange(self, firmware: Firmware, mac: str, xid: int) -> tuple[Decision, Decision]:
        """DISCOVER to ACK, one second each."""
        asked = discover(firmware, mac, xid)
        offer = self.handle(asked)
        assert offer.reply is not None
        self.now += 1
        ack = self.handle(request(offer.reply.packet, asked))
        self.now += 1
        return offer, ack


def kind(decision: Decision) -> MessageType | None:
    return decision.reply.packet.message_type if decision.reply else None


def file_of(decision: Decision) -> str:
    """The boot file, after checking that it is said the same way everywhere."""
    assert decision.reply is not None
    packet = decision.reply.packet
    assert (packet.get(opt.BOOT_FILE_NAME) or "").encode() == packet.file
    assert (packet.get(opt.TFTP_SERVER_NAME) or "").encode() == packet.sname
    assert (packet.siaddr == SERVER) == bool(packet.file)
    assert opt.OVERLOAD.code not in packet.options
    return packet.file.decode()
