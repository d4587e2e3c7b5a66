"""The decision machine: whole exchanges, packet by packet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_dhcp.bootfiles import BootFiles
from bootlink_dhcp.boots import Boots
from bootlink_dhcp.decision import Decision, Via
from bootlink_dhcp.firmware import PATIENCE, FirmwareMemory
from bootlink_dhcp.leases import LeaseTable
from bootlink_dhcp.machine import BOOTP_SECONDS, STRANGERS_BURST, STRANGERS_PER_SECOND, Bootp, DhcpMachine
from bootlink_dhcp.reservations import Reservations
from bootlink_dhcp.subnet import Pool, Subnet
from bootlink_dhcp.topology import Scope, Topology
from bootlink_dhcp.tracker import BootTracker
from bootlink_events import BootAddressed, BootFailed, BootLoaderChanged, BootStarted, ClientSeen, LoaderRule
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, DhcpPacket, MessageType
from lab.dhcp_client import Firmware, discover, message, request, with_options
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
    ) -> None:
        self.bootp = bootp
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
        self.machine = DhcpMachine(Topology(Scope(self.subnet, self.leases)), boots, self, bootp=self.bootp)

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


@pytest.mark.parametrize(("firmware", "loader"), [("ovmf", "snponly.efi"), ("ipxe", "undionly.kpxe")])
def test_a_pc_boots_in_two_passes_under_one_boot_id(firmware: Firmware, loader: str) -> None:
    lab = Lab()
    offer, ack = lab.exchange(firmware, PC, 1)
    assert (kind(offer), kind(ack)) == (MessageType.OFFER, MessageType.ACK)
    boot_id = lab.tracker.current(PC)
    assert file_of(offer) == file_of(ack) == f"boot/{boot_id}/{loader}"
    offer, ack = lab.exchange("ipxe", PC, 2)
    assert file_of(offer) == file_of(ack) == f"tftp://10.77.0.1/boot/{boot_id}/52-54-00-12-34-56.ipxe"
    assert lab.tracker.current(PC) == boot_id

    lab.now += 60
    lab.exchange(firmware, PC, 3)
    later = lab.tracker.current(PC)
    assert later is not None
    assert boot_id is not None
    assert later > boot_id


def test_the_events_of_an_unknown_pcs_boot() -> None:
    lab = Lab()
    offer, ack = lab.exchange("ovmf", PC, 1)
    started, seen = offer.events
    assert isinstance(started, BootStarted)
    assert (started.arch, started.firmware) == ("uefi-x64", "PXE")
    assert started.vendor_class == "PXEClient:Arch:00007:UNDI:003000"
    assert isinstance(seen, ClientSeen)
    assert (seen.mac, seen.address, seen.boot_id) == (PC, FIRST, started.boot_id)
    (addressed,) = ack.events
    assert isinstance(addressed, BootAddressed)
    assert (addressed.pass_, addressed.address, addressed.boot_id) == ("firmware", FIRST, started.boot_id)
    assert addressed.duration.total_seconds() == 1
    assert addressed.boot_file == file_of(ack)

    offer, ack = lab.exchange("ipxe", PC, 2)
    assert offer.events == ()
    (addressed,) = ack.events
    assert isinstance(addressed, BootAddressed)
    assert addressed.pass_ == "ipxe"


def test_a_known_pc_gets_its_reserved_address_and_is_called_by_its_name() -> None:
    lab = Lab()
    offer, ack = lab.exchange("ipxe", KNOWN, 1)
    assert offer.reply is not None
    assert offer.reply.packet.yiaddr == IPv4Address("10.77.0.20")
    (started,) = offer.events
    assert isinstance(started, BootStarted)
    assert (started.client, started.firmware, started.arch) == ("pc-007", "iPXE", "bios")
    assert isinstance(ack.events[0], BootAddressed)
    assert ack.events[0].client == "pc-007"


def test_retries_make_no_second_event() -> None:
    lab = Lab()
    asked = discover("ovmf", PC, 1)
    first, second = lab.handle(asked), lab.handle(replace(asked, secs=4))
    assert first.reply is not None
    assert second.events == ()
    wanted = request(first.reply.packet, asked)
    assert len(lab.handle(wanted).events) == 1
    assert lab.handle(wanted).events == ()


def test_what_pxe_firmware_must_find_in_an_offer() -> None:
    asked = discover("ovmf", PC, 1)
    reply = Lab().handle(asked).reply
    assert reply is not None
    packet = reply.packet
    assert packet.get(opt.VENDOR_CLASS) == "PXEClient"
    assert packet.get(opt.CLIENT_UUID) == asked.get(opt.CLIENT_UUID)
    assert packet.get(opt.VENDOR_SPECIFIC) == b"\x06\x01\x08\xff"
    assert packet.get(opt.SERVER_ID) == SERVER
    assert packet.get(opt.SUBNET_MASK) == IPv4Address("255.255.255.0")
    assert packet.get(opt.ROUTER) == (SERVER + 253,)
    assert packet.get(opt.DNS) == (SERVER, SERVER + 1)
    assert (packet.get(opt.LEASE_TIME), packet.get(opt.RENEWAL_TIME), packet.get(opt.REBINDING_TIME)) == (
        3600,
        1800,
        3150,
    )
    assert opt.IPXE.code not in packet.options
    assert reply.via is Via.BROADCAST  # OVMF sets the flag


def test_ipxe_is_told_not_to_wait_for_a_proxy_and_answered_at_its_mac_address() -> None:
    reply = Lab().handle(discover("ipxe", PC, 1)).reply
    assert reply is not None
    assert reply.packet.get(opt.IPXE) == b"\xb0\x01\x01\xff"
    assert (reply.via, reply.address) == (Via.FRAME, FIRST)


@pytest.mark.parametrize("loaders", [ALL_LOADERS, ()], ids=["loaders", "no loader"])
@pytest.mark.parametrize("chain", [True, False], ids=["loader first", "script at once"])
def test_every_answer_to_ipxe_says_that_no_proxy_will_speak(loaders: tuple[str, ...], chain: bool) -> None:
    """iPXE takes the setting from the answer that it goes by; one that lacks it costs 3 s."""
    lab = Lab(loaders=loaders, chain=chain)
    lab.group_options = ((opt.IPXE.code, b"\xb0\x01\x00\xff"),)  # whatever a group has set
    decisions = [*lab.exchange("ipxe", PC, 1), *lab.exchange("ipxe", PC, 2)]  # the ROM's pass, and the loader's
    assert decisions[-1].reply is not None
    address = decisions[-1].reply.packet.yiaddr
    asked = replace(discover("ipxe", PC, 3), ciaddr=address)
    for kind_of in (MessageType.REQUEST, MessageType.INFORM):  # a renewal, and a client with an address of its own
        decisions.append(lab.handle(with_options(asked, opt.MESSAGE_TYPE.encode(kind_of))))
    kinds = [kind(decision) for decision in decisions]
    assert kinds == [MessageType.OFFER, MessageType.ACK] * 2 + [MessageType.ACK] * 2
    for decision in decisions:
        assert decision.reply is not None
        assert decision.reply.packet.get(opt.IPXE) == b"\xb0\x01\x01\xff"


def test_an_ipxe_that_counts_its_user_class_as_rfc_3004_asks_is_an_ipxe_too() -> None:
    asked = with_options(discover("ipxe", PC, 1), opt.USER_CLASS.encode(b"\x04iPXE"))
    assert file_of(Lab(chain=False).handle(asked)).endswith(".ipxe")


def test_an_operating_system_gets_an_address_and_nothing_to_boot() -> None:
    lab = Lab()
    offer, ack = lab.exchange("os", PC, 1)
    assert offer.reply is not None
    for option in (opt.VENDOR_CLASS, opt.VENDOR_SPECIFIC, opt.IPXE, opt.BOOT_FILE_NAME):
        assert option.code not in offer.reply.packet.options
    assert file_of(ack) == ""
    assert offer.events == ack.events == ()
    assert lab.tracker.current(PC) is None


def test_an_operating_systems_own_dhcp_keeps_the_address_and_the_boot_of_its_firmware() -> None:
    lab = Lab()
    lab.exchange("ipxe", PC, 1)
    lab.exchange("ipxe", PC, 2)
    boot_id = lab.tracker.current(PC)
    asked = with_options(discover("os", PC, 3), opt.CLIENT_ID.encode(b"\xff\0\0\0\1a-duid"))
    reply = lab.handle(asked).reply
    assert reply is not None
    assert reply.packet.yiaddr == FIRST
    assert lab.tracker.current(PC) == boot_id


@pytest.mark.parametrize("for_whom", [PC, "52:54:00:00:00:09"], ids=["another for it", "its own for another"])
def test_a_reservation_made_while_a_pc_boots_moves_it_at_its_next_power_on_and_not_before(for_whom: str) -> None:
    lab = Lab()
    lab.exchange("ovmf", PC, 1)
    lab.exchange("ipxe", PC, 2)
    lab.reservations.set(for_whom, FIRST + 50 if for_whom == PC else FIRST)
    # The root disk hangs on FIRST from here on: whatever the system's own DHCP client does, it keeps it.
    asked = with_options(discover("os", PC, 3), opt.REQUESTED_ADDRESS.encode(FIRST))
    for offer in (lab.handle(asked), lab.handle(discover("os", PC, 4))):
        assert offer.reply is not None
        assert offer.reply.packet.yiaddr == FIRST
        assert kind(lab.handle(request(offer.reply.packet, asked))) is MessageType.ACK
    assert kind(lab.handle(message(MessageType.REQUEST, PC, wanted=FIRST))) is MessageType.ACK
    lab.now += 1800
    assert kind(lab.handle(message(MessageType.REQUEST, PC, ciaddr=FIRST))) is MessageType.ACK
    other, _ = lab.exchange("os", "52:54:00:00:00:09", 5)
    assert other.reply is not None
    assert other.reply.packet.yiaddr != FIRST

    offer, ack = lab.exchange("ovmf", PC, 6)
    assert kind(ack) is MessageType.ACK
    assert offer.reply is not None
    assert offer.reply.packet.yiaddr == (FIRST + 50 if for_whom == PC else FIRST + 2)


def test_a_running_pc_keeps_its_address_across_a_restart_with_another_pool() -> None:
    lab = Lab()
    lab.exchange("ovmf", PC, 1)
    lab.exchange("ipxe", PC, 2)
    lab.restart(Pool(FIRST + 50, FIRST + 60))
    assert kind(lab.handle(message(MessageType.REQUEST, PC, ciaddr=FIRST))) is MessageType.ACK
    offer, _ = lab.exchange("ovmf", PC, 3)
    assert offer.reply is not None
    assert offer.reply.packet.yiaddr == FIRST + 50


def test_the_clients_name_is_its_host_name_if_it_asks_for_one() -> None:
    lab = Lab()
    for firmware in ("os", "ipxe"):
        asked = with_options(discover(firmware, KNOWN, 1), opt.PARAMETER_LIST.encode(b"\x01\x0c\x03"))
        offer = lab.handle(asked)
        assert offer.reply is not None
        ack = lab.handle(request(offer.reply.packet, asked))
        assert ack.reply is not None
        assert offer.reply.packet.get(opt.HOST_NAME) == ack.reply.packet.get(opt.HOST_NAME) == "pc-007"
    renewal = with_options(
        message(MessageType.REQUEST, KNOWN, ciaddr=IPv4Address("10.77.0.20")), opt.PARAMETER_LIST.encode(b"\x0c")
    )
    inform = with_options(
        message(MessageType.INFORM, KNOWN, ciaddr=IPv4Address("10.77.0.20")), opt.PARAMETER_LIST.encode(b"\x0c")
    )
    for packet in (renewal, inform):
        reply = lab.handle(packet).reply
        assert reply is not None
        assert reply.packet.get(opt.HOST_NAME) == "pc-007"


@pytest.mark.parametrize(
    ("mac", "wanted", "name"),
    [
        (KNOWN, b"\x01\x03", "pc-007"),  # does not ask
        (KNOWN, None, "pc-007"),
        (PC, b"\x0c", None),  # has no name yet
        (KNOWN, b"\x0c", "pc 007; reboot"),  # a name that is none
        (KNOWN, b"\x0c", "pc-\N{LATIN SMALL LETTER E WITH ACUTE}"),
        (KNOWN, b"\x0c", "a" * 300),
    ],
)
def test_no_host_name_is_sent_unasked_or_unknown_or_unfit(mac: str, wanted: bytes | None, name: str | None) -> None:
    lab = Lab()
    lab.names = {mac: name} if name else {}
    asked = discover("os", mac, 1)
    if wanted is not None:
        asked = with_options(asked, opt.PARAMETER_LIST.encode(wanted))
    reply = lab.handle(asked).reply
    assert reply is not None
    assert opt.HOST_NAME.code not in reply.packet.options


def test_a_vendor_class_cannot_carry_a_terminal_escape_nor_a_novel_into_an_event() -> None:
    lab = Lab()
    text = b"PXEClient\x00\x1b]0;owned\x07\r\n\xff" + b"A" * 6000
    decision = lab.handle(with_options(discover("ovmf", PC, 1), (opt.VENDOR_CLASS.code, text)))
    for event in decision.events:
        assert isinstance(event, BootStarted | ClientSeen)
        assert event.vendor_class.startswith("PXEClient??]0;owned????AAA")
        assert event.vendor_class.isprintable()
        assert len(event.vendor_class) <= 255
    assert len(decision.events) == 2


def test_made_up_mac_addresses_cannot_drown_the_events_of_a_known_pc() -> None:
    lab = Lab(pool_size=1)
    told = withheld = 0
    for n in range(2 * STRANGERS_BURST):
        decision = lab.handle(discover("ovmf", f"52:54:01:00:{n >> 8:02x}:{n & 255:02x}", n))
        told += bool(decision.events)
        withheld += bool(decision.withheld)
        lab.now += 0.0001
    assert STRANGERS_BURST <= told <= STRANGERS_BURST + 2 * STRANGERS_PER_SECOND
    assert told + withheld == 2 * STRANGERS_BURST
    offer, ack = lab.exchange("ovmf", KNOWN, 1)
    assert [type(event).__name__ for event in (*offer.events, *ack.events)] == ["BootStarted", "BootAddressed"]
    lab.now += 60
    assert lab.handle(discover("ovmf", PC, 1)).events


@pytest.mark.parametrize(
    ("firmware", "arch", "loaders", "words"),
    [
        ("ipxe", 0, (), None),  # a ROM's iPXE needs no loader: it gets its script
        ("ovmf", 7, ("undionly.kpxe",), "uefi-x64"),
        ("ovmf", 11, ALL_LOADERS, "uefi-arm64"),
        ("ovmf", 4711, ALL_LOADERS, "arch-4711"),
        ("http", 16, ALL_LOADERS, "http-x64"),
    ],
)
def test_a_firmware_without_a_loader_gets_an_address_and_its_boot_fails_with_cause_and_remedy(
    firmware: Firmware, arch: int, loaders: tuple[str, ...], words: str | None
) -> None:
    lab = Lab(loaders=loaders)
    asked = with_options(discover(firmware, PC, 1), opt.CLIENT_ARCHITECTURE.encode((arch,)))
    offer = lab.handle(asked)
    assert offer.reply is not None
    assert offer.reply.packet.yiaddr == FIRST
    failures = [event for event in offer.events if isinstance(event, BootFailed)]
    if words is None:
        assert failures == []
        assert file_of(offer).endswith(".ipxe")
        return
    assert file_of(offer) == ""
    assert words in failures[0].cause
    assert failures[0].remedy
    assert [e for e in lab.handle(asked).events if isinstance(e, BootFailed)] == []  # said once per boot


def test_x64_falls_back_to_the_other_loader() -> None:
    assert file_of(Lab(loaders=("ipxe.efi",)).handle(discover("ovmf", PC, 1))).endswith("/ipxe.efi")


def test_an_unchained_ipxe_gets_its_script_at_once() -> None:
    lab = Lab(chain=False)
    _, ack = lab.exchange("ipxe", PC, 1)
    assert file_of(ack) == f"tftp://10.77.0.1/boot/{lab.tracker.current(PC)}/52-54-00-12-34-56.ipxe"


def test_another_tftp_port_is_told_to_ipxe_in_urls() -> None:
    lab = Lab(port=6969)
    _, ack = lab.exchange("ipxe", PC, 1)
    assert file_of(ack) == f"tftp://10.77.0.1:6969/boot/{lab.tracker.current(PC)}/undionly.kpxe"
    _, ack = lab.exchange("ipxe", PC, 2)
    assert file_of(ack).startswith("tftp://10.77.0.1:6969/boot/")


def test_a_lost_service_state_costs_one_more_loader_and_no_boot() -> None:
    lab = Lab()
    lab.exchange("ovmf", PC, 1)
    lab.tracker = BootTracker(no_record)
    boots = Boots(lab.tracker, BootFiles(SERVER, 69, AtHand(*ALL_LOADERS)), FirmwareMemory(no_record), lab)
    lab.machine = DhcpMachine(Topology(Scope(lab.subnet, lab.leases)), boots, lab)
    _, ack = lab.exchange("ipxe", PC, 2)
    assert file_of(ack).endswith("undionly.kpxe") or file_of(ack).endswith("snponly.efi")
    _, ack = lab.exchange("ipxe", PC, 3)
    assert file_of(ack).endswith(".ipxe")


def test_only_an_ack_waits_for_the_disk() -> None:
    lab = Lab()
    offer, ack = lab.exchange("os", PC, 1)
    assert (offer.durable, ack.durable) == (False, True)


def test_a_full_pool_is_silence_and_a_failed_boot() -> None:
    lab = Lab(pool_size=1)
    lab.exchange("os", "52:54:00:00:00:01", 1)
    decision = lab.handle(discover("ovmf", PC, 1))
    assert (decision.reply, decision.count) == (None, "pool_exhausted")
    assert isinstance(decision.events[-1], BootFailed)
    assert "BOOTLINK_DHCP_POOL" in decision.events[-1].remedy


# -- REQUEST in its four states (RFC 2131 section 4.3.2) ---------------------------------------------------------


def test_renewing_is_answered_by_unicast_and_prolongs_the_lease() -> None:
    lab = Lab()
    lab.exchange("os", PC, 1)
    lab.now += 1800
    decision = lab.handle(message(MessageType.REQUEST, PC, ciaddr=FIRST))
    assert kind(decision) is MessageType.ACK
    assert decision.reply is not None
    assert (decision.reply.via, decision.reply.address) == (Via.UNICAST, FIRST)
    assert decision.reply.packet.ciaddr == FIRST
    assert lab.leases.of_client(PC, lab.now).expires == lab.now + 3600  # type: ignore[union-attr]


def test_a_renewal_is_granted_although_the_lease_file_was_lost() -> None:
    lab = Lab()
    decision = lab.handle(message(MessageType.REQUEST, PC, ciaddr=FIRST))
    assert kind(decision) is MessageType.ACK


@pytest.mark.parametrize(
    ("case", "packet"),
    [
        ("renewing another client's", message(MessageType.REQUEST, PC, ciaddr=FIRST)),
        ("renewing outside the pool", message(MessageType.REQUEST, PC, ciaddr=IPv4Address("10.77.0.30"))),
        ("renewing our own address", message(MessageType.REQUEST, PC, ciaddr=SERVER)),
        ("renewing in another subnet", message(MessageType.REQUEST, PC, ciaddr=IPv4Address("192.168.1.5"))),
        ("rebooting in another subnet", message(MessageType.REQUEST, PC, wanted=IPv4Address("192.168.1.5"))),
        ("rebooting without a lease", message(MessageType.REQUEST, PC, wanted=FIRST + 1)),
        ("rebooting with another's", message(MessageType.REQUEST, PC, wanted=FIRST)),
        ("selecting what was not offered", message(MessageType.REQUEST, PC, wanted=FIRST, server=SERVER)),
    ],
)
def test_an_address_that_is_not_the_clients_is_refused_by_broadcast(case: str, packet: DhcpPacket) -> None:
    lab = Lab()
    lab.exchange("os", "52:54:00:00:00:01", 1)
    decision = lab.handle(packet)
    assert kind(decision) is MessageType.NAK, case
    assert decision.reply is not None
    assert (decision.reply.via, str(decision.reply.address)) == (Via.BROADCAST, "255.255.255.255")
    assert decision.reply.packet.yiaddr == NO_ADDRESS
    assert decision.reply.packet.get(opt.SERVER_ID) == SERVER
    assert decision.reply.packet.get(opt.MESSAGE_TEXT)


def test_init_reboot_with_the_leased_address_is_confirmed() -> None:
    lab = Lab()
    lab.exchange("os", PC, 1)
    assert kind(lab.handle(message(MessageType.REQUEST, PC, wanted=FIRST))) is MessageType.ACK


def test_a_request_to_another_server_is_left_alone_and_frees_our_offer() -> None:
    lab = Lab()
    lab.handle(discover("os", PC, 1))
    decision = lab.handle(message(MessageType.REQUEST, PC, wanted=FIRST, server=SERVER + 5))
    assert decision.reply is None
    assert lab.leases.counts(lab.now)["offered"] == 0


def test_decline_release_and_inform() -> None:
    lab = Lab()
    lab.exchange("os", PC, 1)
    assert lab.handle(message(MessageType.DECLINE, PC, wanted=FIRST, server=SERVER)).reply is None
    assert lab.leases.counts(lab.now)["declined"] == 1
    lab.exchange("os", PC, 2)
    assert lab.handle(message(MessageType.RELEASE, PC, ciaddr=FIRST + 1, server=SERVER)).count == "release"
    assert lab.handle(message(MessageType.RELEASE, PC, ciaddr=FIRST + 1, server=SERVER)).count == "dropped_release"
    decision = lab.handle(message(MessageType.INFORM, PC, ciaddr=IPv4Address("10.77.0.9")))
    assert decision.reply is not None
    packet = decision.reply.packet
    assert (packet.yiaddr, packet.get(opt.LEASE_TIME), packet.get(opt.DNS)) == (NO_ADDRESS, None, (SERVER, SERVER + 1))
    assert str(decision.reply.address) == "10.77.0.9"


def test_a_relay_is_answered_at_its_address_with_its_option_echoed_last() -> None:
    lab = Lab()
    relay = IPv4Address("10.77.0.2")
    asked = with_options(replace(discover("os", PC, 1), giaddr=relay), (82, b"\1\4port"))
    reply = lab.handle(asked).reply
    assert reply is not None
    assert (reply.via, reply.address) == (Via.RELAY, relay)
    assert list(reply.packet.options)[-1] == 82
    assert reply.packet.get(opt.RELAY_AGENT) == b"\1\4port"
    nak = lab.handle(replace(message(MessageType.REQUEST, PC, wanted=SERVER), giaddr=relay)).reply
    assert nak is not None
    assert nak.via is Via.RELAY
    assert nak.packet.broadcast


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({"op": 2}, "dropped_not_a_request"),
        ({"chaddr": b""}, "dropped_not_ethernet"),
        ({"htype": 6}, "dropped_not_ethernet"),
        ({"chaddr": b"\xff" * 6}, "dropped_impossible_mac"),
        ({"chaddr": bytes(6)}, "dropped_impossible_mac"),
        ({"giaddr": IPv4Address("192.168.9.1")}, "dropped_relay_of_another_subnet"),
        ({"options": {}}, "dropped_bootp"),
        ({"options": {53: b"\2"}}, "dropped_not_a_request"),
        ({"options": {53: b"\3"}}, "dropped_request_without_address"),
        ({"options": {53: b"\4"}}, "dropped_decline"),
        ({"options": {53: b"\7"}}, "dropped_release"),
        ({"options": {53: b"\x08"}}, "dropped_inform"),
    ],
)
def test_what_is_not_for_us_is_dropped_and_counted(change: dict[str, Any], count: str) -> None:
    packet = replace(discover("os", PC, 1), **change)
    decision = Lab().machine.handle(packet, T0)
    assert (decision.count, decision.reply) == (count, None)


ips = st.sampled_from(("0.0.0.0", "10.77.0.1", "10.77.0.101", "10.77.0.255", "192.168.1.1")).map(IPv4Address)
hostile = st.builds(
    DhcpPacket,
    op=st.just(1),
    xid=st.integers(0, 3),
    chaddr=st.sampled_from((b"RT\0\0\0\1", b"RT\0\0\0\2", b"")),
    flags=st.sampled_from((0, 0x8000)),
    ciaddr=ips,
    giaddr=ips,
    options=st.fixed_dictionaries(
        {53: st.integers(1, 8).map(lambda n: bytes((n,)))},
        optional={
            50: ips.map(lambda a: a.packed),
            54: ips.map(lambda a: a.packed),
            60: st.sampled_from((b"PXEClient:Arch:00007", b"HTTPClient", b"MSFT 5.0", b"\xff\xfe")),
            77: st.sampled_from((b"iPXE", b"\4iPXE", b"")),
            82: st.binary(max_size=255),
            93: st.sampled_from((b"\0\0", b"\0\7", b"\xff\xff\0\7")),
            97: st.binary(max_size=255),
        },
    ),
)


@given(st.lists(hostile, max_size=15))
def test_the_machine_raises_nothing_for_any_sequence_of_packets_and_its_replies_fit_a_frame(
    packets: list[DhcpPacket],
) -> None:
    lab = Lab()
    for packet in packets:
        decision = lab.machine.handle(packet, lab.now)
        lab.now += 1
        if decision.reply is not None:
            assert len(dhcp.encode(decision.reply.packet)) <= 1472


def test_a_loader_that_never_comes_up_gives_way_to_the_next_and_that_is_told() -> None:
    lab = Lab()
    told = []
    for xid in range(1, PATIENCE + 2):
        offer, _ = lab.exchange("ovmf", PC, xid)
        told += [event for event in offer.events if isinstance(event, BootLoaderChanged)]
        lab.now += 60
    assert file_of(offer).endswith("/ipxe.efi")
    assert [(event.former, event.loader, event.boots) for event in told] == [("snponly.efi", "ipxe.efi", PATIENCE)]
    assert told[0].boot_id == lab.tracker.current(PC)


def test_a_boot_that_reaches_its_script_speaks_for_its_loader() -> None:
    lab = Lab()
    for xid in range(1, 3 * PATIENCE):
        offer, _ = lab.exchange("ovmf", PC, 2 * xid)
        assert file_of(offer).endswith("/snponly.efi")
        if xid % 2:
            lab.exchange("ipxe", PC, 2 * xid + 1)
        lab.now += 60


def test_a_pc_that_never_took_our_offer_says_nothing_about_its_loader() -> None:
    lab = Lab()
    for xid in range(1, 2 * PATIENCE + 2):
        decision = lab.handle(discover("ovmf", PC, xid))
        assert file_of(decision).endswith("/snponly.efi")
        lab.now += 600


def test_a_groups_loader_is_given_to_its_clients() -> None:
    lab = Lab(loaders=(*ALL_LOADERS, "own.efi"))
    lab.rules[KNOWN] = (LoaderRule(arch="uefi-x64", loaders=("own.efi",)),)
    assert file_of(lab.exchange("ovmf", KNOWN, 1)[0]).endswith("/own.efi")
    assert file_of(lab.exchange("ovmf", PC, 1)[0]).endswith("/snponly.efi")


def test_http_boot_is_answered_with_a_url_and_its_own_class() -> None:
    lab = Lab()
    lab.files = replace(lab.files, http_port=8080)
    lab.restart(Pool(FIRST, FIRST + 3))
    offer, ack = lab.exchange("http", PC, 1)
    url = f"http://10.77.0.1:8080/boot/{lab.tracker.current(PC)}/snponly.efi"
    assert file_of(offer) == file_of(ack) == url
    assert ack.reply is not None
    assert ack.reply.packet.get(opt.VENDOR_CLASS) == "HTTPClient"
    assert opt.VENDOR_SPECIFIC.code not in ack.reply.packet.options


def test_a_groups_options_take_the_place_of_the_usual_and_never_of_what_a_boot_needs() -> None:
    lab = Lab()
    lab.group_options = ((6, b"\x09\x09\x09\x09"), (42, SERVER.packed), (43, b"\1\1\1"), (60, b"mine"))
    offer, ack = lab.exchange("os", PC, 1)
    for decision in (offer, ack):
        assert decision.reply is not None
        packet = decision.reply.packet
        assert packet.get(opt.DNS) == (IPv4Address("9.9.9.9"),)
        assert (packet.get(opt.NTP_SERVERS), packet.get(opt.VENDOR_CLASS)) == ((SERVER,), "mine")
    _, ack = lab.exchange("ovmf", PC, 2)
    assert ack.reply is not None
    assert ack.reply.packet.get(opt.VENDOR_CLASS) == "PXEClient"
    assert ack.reply.packet.options[43] == opt.encapsulate([(6, b"\x08")])
    assert ack.reply.packet.get(opt.DNS) == (IPv4Address("9.9.9.9"),)
    assert ack.reply.packet.get(opt.TFTP_SERVERS) == (SERVER,)


def test_what_does_not_fit_the_clients_packet_is_left_out_whole() -> None:
    lab = Lab()
    lab.group_options = ((200, b"a" * 100), (201, b"b" * 200), (202, b"c"))
    asked = with_options(discover("ovmf", PC, 1), opt.MAX_MESSAGE_SIZE.encode(576))
    small = lab.handle(asked).reply
    assert small is not None
    assert {200, 201, 202} & set(small.packet.options) == {200, 202}
    asked = with_options(asked, opt.MAX_MESSAGE_SIZE.encode(1500))
    large = lab.machine.handle(asked, lab.now).reply
    assert large is not None
    assert {200, 201, 202} <= set(large.packet.options)
    assert len(dhcp.encode(large.packet)) <= 1472


def test_ipxe_is_told_its_initiator_name_with_its_script() -> None:
    lab = Lab()
    lab.exchange("ovmf", PC, 1)
    _, ack = lab.exchange("ipxe", PC, 2)
    assert ack.reply is not None
    boot_id = lab.tracker.current(PC)
    name = f"iqn.2026-11.io.bootlink:52-54-00-12-34-56:{boot_id}"
    assert ack.reply.packet.get(opt.INITIATOR_NAME) == name


def test_a_bootp_client_with_a_reservation_gets_it_in_one_answer_without_a_lease_time() -> None:
    lab = Lab()
    decision = lab.handle(bootp(KNOWN))
    assert (decision.count, decision.durable) == ("bootp", True)
    assert decision.reply is not None
    packet = decision.reply.packet
    assert (packet.yiaddr, decision.reply.via) == (IPv4Address("10.77.0.20"), Via.FRAME)
    assert packet.get(opt.SUBNET_MASK) == lab.subnet.network.netmask
    assert packet.get(opt.HOST_NAME) == "pc-007"
    assert not {51, 53, 54, 58, 59} & set(packet.options)
    assert len(dhcp.encode(packet)) >= 300
    assert lab.handle(bootp(PC)) == Decision("dropped_bootp")
    assert lab.handle(bootp(KNOWN, sname=b"another")).count == "dropped_bootp_for_another_server"
    assert lab.handle(bootp(KNOWN, sname=b"10.77.0.1")).count == "bootp"


def test_bootp_clients_without_a_reservation_are_answered_where_that_is_wanted() -> None:
    lab = Lab(bootp="dynamic", pool_size=2)
    first = lab.handle(bootp(PC, flags=dhcp.BROADCAST_FLAG)).reply
    assert first is not None
    assert (first.packet.yiaddr, first.via) == (FIRST, Via.BROADCAST)
    lab.now += BOOTP_SECONDS - 1
    again = lab.handle(bootp(PC)).reply
    assert again is not None
    assert again.packet.yiaddr == FIRST
    relayed_reply = lab.handle(bootp("52:54:00:00:00:99", giaddr=SERVER + 5)).reply
    assert relayed_reply is not None
    assert (relayed_reply.via, relayed_reply.packet.yiaddr) == (Via.RELAY, FIRST + 1)
    assert lab.handle(bootp("52:54:00:00:00:98")).count == "pool_exhausted"
    assert Lab(bootp="off").handle(bootp(KNOWN)).count == "dropped_bootp"


def test_a_bootp_client_is_told_a_loader_and_where_it_is_and_no_boot_begins() -> None:
    """A printer asks in the same way. What the loader asks for afterwards begins the boot."""
    lab = Lab(loaders=("undionly.kpxe", "ipxe.pxe"))
    decision = lab.handle(bootp(KNOWN))
    assert decision.reply is not None
    packet = decision.reply.packet
    assert (packet.file, packet.siaddr, packet.sname) == (b"undionly.kpxe", SERVER, b"10.77.0.1")
    assert (packet.get(opt.BOOT_FILE_NAME), packet.get(opt.TFTP_SERVER_NAME)) == ("undionly.kpxe", "10.77.0.1")
    assert decision.events == ()
    assert lab.tracker.current(KNOWN) is None
    for asked, file in ((b"ipxe.pxe", b"ipxe.pxe"), (b"unix", b"undionly.kpxe")):
        named = lab.handle(bootp(KNOWN, file=asked)).reply
        assert named is not None
        assert named.packet.file == file
    lab.rules[KNOWN] = (LoaderRule(arch="bios", loaders=("ipxe.pxe",)),)
    ruled = lab.handle(bootp(KNOWN)).reply
    assert ruled is not None
    assert ruled.packet.file == b"ipxe.pxe"
    for other in (Lab(loaders=()), Lab(port=6969)):  # nothing to send, and a port that no such client asks at
        bare = other.handle(bootp(KNOWN)).reply
        assert bare is not None
        assert (bare.packet.file, bare.packet.siaddr, bare.packet.sname) == (b"", NO_ADDRESS, b"")
        assert not {66, 67} & set(bare.packet.options)


def test_a_bootp_client_of_before_options_is_answered_without_any() -> None:
    lab = Lab()
    lab.group_options = ((17, b"/root"),)
    reply = lab.handle(bootp(KNOWN, cookie=False)).reply
    assert reply is not None
    assert (reply.packet.cookie, reply.packet.options) == (False, {})
    assert (reply.packet.yiaddr, reply.packet.file) == (IPv4Address("10.77.0.20"), b"undionly.kpxe")
    assert dhcp.decode(dhcp.encode(reply.packet)) == reply.packet


def test_thousands_of_made_up_clients_take_nothing_from_those_we_know() -> None:
    lab = Lab(pool_size=50)
    known = [f"52:54:00:00:01:{n:02x}" for n in range(20)]
    for n, mac in enumerate(known):
        lab.exchange("os", mac, n)
    had = {mac: lease.address for mac in known if (lease := lab.leases.of_client(mac, lab.now))}
    for n in range(5_000):
        asked = discover("os", f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}", n)
        offer = lab.machine.handle(asked, lab.now)
        if offer.reply is not None and n % 2:
            lab.machine.handle(request(offer.reply.packet, asked), lab.now)
        lab.now += 0.05
    assert lab.handle(discover("os", "02:ff:00:00:00:01", 9)).count == "pool_exhausted"
    for mac in known:  # in the middle of their leases, and as they boot anew
        renewed = lab.handle(message(MessageType.REQUEST, mac, ciaddr=had[mac]))
        assert kind(renewed) is MessageType.ACK
        _, ack = lab.exchange("ovmf", mac, 7)
        assert ack.reply is not None
        assert ack.reply.packet.yiaddr == had[mac]
    _, ack = lab.exchange("ovmf", KNOWN, 8)
    assert ack.reply is not None
    assert ack.reply.packet.yiaddr == IPv4Address("10.77.0.20")

    newcomer = "52:54:00:00:02:01"
    lab.names[newcomer] = "pc-1"  # the registry has learned of it
    _, ack = lab.exchange("ovmf", newcomer, 9)
    assert kind(ack) is MessageType.ACK


@pytest.mark.parametrize("way", ["wanted", "selecting", "renewing"])
def test_made_up_clients_that_ask_for_addresses_by_name_take_nothing_from_those_we_know(way: str) -> None:
    lab = Lab(pool_size=16)
    lab.names[PC] = "pc-1"
    _, ack = lab.exchange("os", PC, 1)
    lab.now += 2 * 3600  # its lease has run out
    assert ack.reply is not None
    for n, address in enumerate(lab.subnet.pool):
        mac = f"02:00:00:00:00:{n:02x}"
        if way == "wanted":
            offer = lab.handle(with_options(discover("os", mac, n), opt.REQUESTED_ADDRESS.encode(address)))
            if offer.reply is not None:
                lab.handle(request(offer.reply.packet, discover("os", mac, n)))
        elif way == "selecting":
            lab.handle(message(MessageType.REQUEST, mac, wanted=address, server=SERVER))
        else:
            lab.handle(message(MessageType.REQUEST, mac, ciaddr=address))
    _, again = lab.exchange("os", PC, 2)
    assert again.reply is not None
    assert again.reply.packet.yiaddr == ack.reply.packet.yiaddr
    newcomer = "52:54:00:00:02:01"
    lab.names[newcomer] = "pc-2"
    _, first = lab.exchange("os", newcomer, 3)
    assert kind(first) is MessageType.ACK


def test_an_address_that_was_anothers_is_probed_before_it_is_offered() -> None:
    lab = Lab(pool_size=1)
    first = lab.handle(discover("os", PC, 1))
    assert first.fresh is not None
    lab.exchange("os", PC, 1)
    lab.now += 2 * 3600  # its lease has run out, but does its system know?
    back = lab.handle(discover("os", PC, 2))
    assert back.fresh is None  # its own
    lab.now += 2 * 3600
    other = lab.handle(discover("os", "52:54:00:00:00:02", 3))
    assert other.reply is not None
    assert other.fresh is not None
    assert other.fresh.address == FIRST


def test_a_stranger_gets_no_address_that_a_known_client_may_come_back_for() -> None:
    lab = Lab(pool_size=1)
    lab.names[PC] = "pc-1"
    _, ack = lab.exchange("os", PC, 1)
    lab.now += 2 * 3600  # its lease has run out
    assert lab.handle(discover("os", "02:00:00:00:00:01", 2)).count == "pool_exhausted"
    other = "52:54:00:00:00:02"
    lab.names[other] = "pc-2"
    _, taken = lab.exchange("os", other, 3)  # another that belongs here may have it
    assert ack.reply is not None
    assert taken.reply is not None
    assert taken.reply.packet.yiaddr == ack.reply.packet.yiaddr
