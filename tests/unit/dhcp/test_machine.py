"""The decision machine: whole boots, packet by packet."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from bootlink_dhcp.bootfiles import BootFiles
from bootlink_dhcp.boots import Boots
from bootlink_dhcp.decision import Via
from bootlink_dhcp.firmware import FirmwareMemory
from bootlink_dhcp.machine import STRANGERS_BURST, STRANGERS_PER_SECOND, DhcpMachine
from bootlink_dhcp.subnet import Pool
from bootlink_dhcp.topology import Scope, Topology
from bootlink_dhcp.tracker import BootTracker
from bootlink_events import BootAddressed, BootFailed, BootStarted, ClientSeen
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import MessageType
from lab.dhcp_client import Firmware, discover, message, request, with_options
from lab.dhcp_machine import ALL_LOADERS, FIRST, KNOWN, PC, SERVER, Lab, file_of, kind, no_record
from lab.loaders import AtHand


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
    for given_back in (opt.CLIENT_ARCHITECTURE, opt.CLIENT_INTERFACE, opt.CLIENT_UUID):
        assert given_back.code in asked.options
        assert packet.options[given_back.code] == asked.options[given_back.code]  # RFC 4578 sections 2.1 to 2.3
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
