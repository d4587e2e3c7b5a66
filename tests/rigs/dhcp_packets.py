"""Hostile DHCP: what firmware, iPXE and systems send, broken in every way that bytes can be broken.

One case is a short time on a boot LAN with too small a pool: some PCs, each known by its MAC address, discover,
request, renew, decline and release; any packet may be mutated, and some are noise. What must hold, whatever is sent:

    the codec raises DhcpMalformed or nothing, and the machine nothing at all
    what is answered is an OFFER, an ACK or a NAK to that transaction, from us, within one Ethernet frame, which our own
    codec reads back; who cannot be answered is answered nothing
    no address is promised to two clients at a time, none outside the pool but the one that is reserved, and that one to
    nobody but its owner, whatever the others do
    what is held stays below the pool, the reservation and the clients that the tracker may remember
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from random import Random
from typing import Any, Final

from bootlink_dhcp.bootfiles import BootFiles
from bootlink_dhcp.boots import Boots
from bootlink_dhcp.decision import Decision
from bootlink_dhcp.firmware import FirmwareMemory
from bootlink_dhcp.leases import LeaseTable
from bootlink_dhcp.machine import DhcpMachine
from bootlink_dhcp.reservations import Reservations
from bootlink_dhcp.subnet import Pool, Subnet
from bootlink_dhcp.topology import Scope, Topology
from bootlink_dhcp.tracker import BootTracker
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import DhcpMalformed, DhcpPacket, MessageType
from bootlink_wire.dhcp_frame import MAX_PAYLOAD
from lab.dhcp_client import Firmware, discover, message, request, with_options
from lab.golden import GOLDEN, dhcp_capture
from lab.loaders import AtHand
from rigs.figures import Figures, Violation

STEPS: Final = 40  # packets of one case
PCS: Final = 12
POOL: Final = Pool(IPv4Address("10.77.0.100"), IPv4Address("10.77.0.107"))
SERVER: Final = IPv4Address("10.77.0.1")
RESERVED: Final = IPv4Address("10.77.0.20")
OWNER: Final = "52:54:00:00:00:00"
LEASE: Final = 3600  # seconds
REMEMBERED: Final = 8  # boots that the tracker may remember: fewer than there are PCs
FIRMWARES: Final[tuple[Firmware, ...]] = ("ovmf", "ipxe", "os", "http")
ANSWERS: Final = (MessageType.OFFER, MessageType.ACK, MessageType.NAK)
ADDRESSES: Final = (
    *map(
        IPv4Address, ("0.0.0.0", "255.255.255.255", "127.0.0.1", "224.0.0.1", "10.77.0.0", "10.77.0.255", "10.99.0.1")
    ),
    *(SERVER, RESERVED, POOL.first, POOL.last),
)


class Lan:
    """A machine for one subnet, as the service makes it, and what it has promised."""

    def __init__(self) -> None:
        subnet = Subnet(IPv4Network("10.77.0.0/24"), SERVER, POOL, LEASE, dns=(SERVER,))
        reservations = Reservations(subnet)
        reservations.set(OWNER, RESERVED)
        self.records: dict[str, Mapping[str, Any]] = {}
        self.leases = LeaseTable(subnet, reservations.owner, self._record)
        self.tracker = BootTracker(lambda key, value: None, max_clients=REMEMBERED)
        files = BootFiles(SERVER, 69, AtHand("undionly.kpxe", "snponly.efi"))
        boots = Boots(self.tracker, files, FirmwareMemory(lambda key, value: None), self)
        self.machine = DhcpMachine(Topology(Scope(subnet, self.leases)), boots, self)
        self.promised: dict[IPv4Address, tuple[str, float]] = {}  # until when

    def _record(self, address: IPv4Address, value: Mapping[str, Any] | None) -> None:
        key = str(address)
        self.records.pop(key, None)
        if value is not None:
            self.records[key] = value

    def name(self, mac: str) -> str | None:
        return "pc-000" if mac == OWNER else None

    def reserved(self, mac: str) -> IPv4Address | None:
        return RESERVED if mac == OWNER else None

    def options(self, mac: str) -> Sequence[tuple[int, bytes]]:
        return ()

    def loader_rules(self, mac: str) -> tuple[Any, ...]:
        return ()


class Case:
    """One case. `seen` is what became of what was sent."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.lan = Lan()
        self.now = 1_790_000_000.0
        self.seen: Counter[str] = Counter()
        self._offers: list[tuple[DhcpPacket, DhcpPacket]] = []  # with the DISCOVER of each

    def run(self) -> None:
        for _ in range(STEPS):
            packet = self._said()
            for datagram in self._mutated(dhcp.encode(packet)):
                self._receive(datagram, packet)
            self.now += self.random.choice((0.0, 0.01, 1.0, 61.0, 4000.0))
        self._owner_is_served()

    # What they send

    def _said(self) -> DhcpPacket:
        random = self.random
        mac = f"52:54:00:00:00:{random.randrange(PCS):02x}"
        kind = random.choice(("discover", "discover", "request", "request", "message", "capture"))
        packet = discover(random.choice(FIRMWARES), mac, random.getrandbits(32))
        if kind == "request" and self._offers:
            offer, asked = random.choice(self._offers)
            packet = request(offer, asked)
        elif kind == "message":
            packet = message(
                random.choice(list(MessageType)),
                mac,
                ciaddr=random.choice(ADDRESSES),
                wanted=random.choice((None, *ADDRESSES)),
                server=random.choice((None, SERVER, SERVER + 1)),
            )
        elif kind == "capture":
            name = random.choice(sorted(path.name for path in (GOLDEN / "dhcp").glob("*.hex")))
            packet = dhcp.decode(dhcp_capture(name))
        if random.random() < 0.1:
            packet = replace(packet, giaddr=random.choice(ADDRESSES), flags=random.choice((0, 0x8000, 0xFFFF)))
        if random.random() < 0.15:
            codes = random.choices((12, 43, 50, 52, 53, 54, 55, 57, 60, 61, 77, 82, 93, 97, 118, 175, 254), k=3)
            lengths = (0, 1, 2, 4, 7, 255, 256, 1000)
            extra = [(code, random.randbytes(random.choice(lengths))) for code in codes]
            packet = with_options(packet, *extra)
        return packet

    def _mutated(self, datagram: bytes) -> list[bytes]:
        random = self.random
        if random.random() < 0.6:
            return [datagram]
        mutant = bytearray(datagram)
        kind = random.choice(("bits", "options", "header", "cut", "long", "twice", "noise", "fill"))
        self.seen[f"mutated: {kind}"] += 1
        options = range(dhcp.OPTIONS_AT, len(mutant))
        match kind:
            case "bits":
                for _ in range(random.randrange(1, 12)):
                    mutant[random.randrange(len(mutant))] ^= 1 << random.randrange(8)
            case "options":
                for _ in range(random.randrange(1, 6)):
                    mutant[random.choice(options)] = random.choice((0, 1, 52, 53, 82, 254, 255, random.randrange(256)))
            case "header":
                mutant[random.randrange(dhcp.HEADER.size)] = random.choice((0, 1, 2, 6, 16, 17, 255))
            case "cut":
                del mutant[random.randrange(len(mutant)) :]
            case "long":
                mutant += bytes((random.choice((0, 53, 82, 43, 255)), 255)) * random.choice((1, 40, 5000))
            case "twice":
                return [datagram, datagram]
            case "noise":
                mutant[:] = random.randbytes(random.choice((0, 1, 239, 240, 241, 300, 1472, 9217)))
            case "fill":
                mutant[random.choice(options) :] = bytes((random.choice((0, 53, 255)),)) * 64
        return [bytes(mutant)]

    # What they are answered

    def _receive(self, datagram: bytes, meant: DhcpPacket) -> None:
        try:
            packet = dhcp.decode(datagram)
        except DhcpMalformed:
            self.seen["malformed"] += 1
            return
        decision = self.lan.machine.handle(packet, self.now)
        self.seen[decision.count] += 1
        if decision.reply is not None:
            self._look(packet, decision)
        if len(self.lan.records) > len(POOL) + 1:
            raise Violation(f"{len(self.lan.records)} leases are held, of {len(POOL)} addresses and one reservation")
        if len(self.lan.tracker) > REMEMBERED:
            raise Violation(f"{len(self.lan.tracker)} boots are remembered, where {REMEMBERED} may be")

    def _look(self, packet: DhcpPacket, decision: Decision) -> None:
        assert decision.reply is not None
        reply = decision.reply.packet
        wire = dhcp.encode(reply)
        if len(wire) > MAX_PAYLOAD:
            raise Violation(f"a reply of {len(wire)} bytes, with {_sizes(reply)}")
        heard = dhcp.decode(wire)
        kind = heard.message_type
        if heard.op != dhcp.BOOTREPLY or heard.xid != packet.xid or heard.chaddr != packet.chaddr:
            raise Violation(f"{reply.op} to {reply.chaddr.hex()} is no reply to {packet.chaddr.hex()}")
        if packet.message_type is None:
            return  # BOOTP has no types, and its addresses last
        if kind not in ANSWERS:
            raise Violation(f"{kind} is no OFFER, ACK or NAK")
        if opt.RELAY_AGENT.code not in packet.options and opt.SERVER_ID.encode(SERVER) not in heard.options.items():
            raise Violation(f"a reply does not say who we are, but {heard.options.get(opt.SERVER_ID.code)!r}")
        self.seen[kind.name] += 1
        mac = heard.chaddr.hex(":")
        if kind is not MessageType.NAK and int(heard.yiaddr):
            self._promise(mac, heard, kind)
        if kind is MessageType.OFFER:
            self._offers = [*self._offers[-8:], (heard, packet)]

    def _promise(self, mac: str, heard: DhcpPacket, kind: MessageType) -> None:
        address = heard.yiaddr
        if address != RESERVED and address not in POOL:
            raise Violation(f"{address} is promised, which is in no pool")
        if address == RESERVED and mac != OWNER:
            raise Violation(f"{mac} is given what is reserved for another")
        if kind is not MessageType.ACK:
            return
        holder, until = self.lan.promised.get(address, (mac, 0.0))
        if holder != mac and until > self.now and self._held(address) != holder:
            self.seen["given up before its time"] += 1  # released or declined, which these packets may well say
        elif holder != mac and until > self.now:
            raise Violation(f"{address} is {holder}'s until {until - self.now:.0f} s from now, and given to {mac}")
        self.lan.promised[address] = (mac, self.now + LEASE)

    def _held(self, address: IPv4Address) -> str | None:
        record = self.lan.records.get(str(address))
        return None if record is None else str(record["client"])

    def _owner_is_served(self) -> None:
        """Whatever was done to the pool: the client with a reservation gets its address."""
        self.now += 2 * 24 * 3600.0  # past a quarantine, which anybody can bring upon an address in the owner's name
        asked = discover("ovmf", OWNER, 1)  # a power-on: a system that runs keeps the address that its disk hangs on
        decision = self.lan.machine.handle(asked, self.now)
        if decision.reply is None or decision.reply.packet.yiaddr != RESERVED:
            raise Violation(f"the owner of {RESERVED} is answered {decision.count}")


def _sizes(reply: DhcpPacket) -> dict[int, int]:
    return {code: len(value) for code, value in reply.options.items()}


def run(count: int, seed: int, folder: Path) -> Figures:
    """`count` cases in memory."""
    seen: Counter[str] = Counter()
    for number in range(count):
        case = Case(Random(f"{seed}/{number}"))
        try:
            case.run()
        except Exception as error:
            raise Violation(f"case {number} of seed {seed}: {error!r}") from error
        seen += case.seen
    return {
        "packets mutated": sum(n for name, n in seen.items() if name.startswith("mutated")),
        "malformed": seen["malformed"],
        "OFFERs": seen["OFFER"],
        "ACKs": seen["ACK"],
        "NAKs": seen["NAK"],
    }
