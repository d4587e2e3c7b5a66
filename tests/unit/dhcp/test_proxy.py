"""The proxy's decisions: whole exchanges of PCs that get their address from another server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from bootlink_dhcp.bootfiles import PROBE_PREFIX, BootFiles
from bootlink_dhcp.boots import Boots
from bootlink_dhcp.decision import Decision, Via
from bootlink_dhcp.firmware import FirmwareMemory
from bootlink_dhcp.machine import STRANGERS_BURST
from bootlink_dhcp.proxy import OFFERS_MAX, ProxyMachine
from bootlink_dhcp.tracker import UNANSWERED, BootTracker
from bootlink_events import BootAddressed, BootId, LoaderRule
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, DhcpPacket, MessageType
from lab.dhcp_client import Firmware, discover, message, with_options
from lab.loaders import AtHand

T0 = 1_800_000_000.0
PC = "52:54:00:12:34:56"
US = IPv4Address("10.77.0.1")
OTHER = IPv4Address("10.77.0.2")  # gives out the addresses
GIVEN = IPv4Address("10.77.0.150")
DECLINE = opt.MESSAGE_TYPE.encode(MessageType.DECLINE)
USE_THE_FILE = b"\x06\x01\x08\xff"


def no_record(key: str, value: Mapping[str, Any] | None) -> None:
    """A disk that forgets."""


class Lab:
    def __init__(self, *loaders: str) -> None:
        self.now = T0
        self.files = BootFiles(US, 69, AtHand(*(loaders or ("undionly.kpxe", "snponly.efi"))), 80)
        self.tracker, self.firmware = BootTracker(no_record), FirmwareMemory(no_record)
        self.machine = ProxyMachine(US, Boots(self.tracker, self.files, self.firmware, self), self)

    def name(self, mac: str) -> str | None:
        return "pc-007" if mac == PC else None

    def loader_rules(self, mac: str) -> tuple[LoaderRule, ...]:
        return ()

    def handle(self, packet: DhcpPacket) -> Decision:
        """As the server does it: through the bytes."""
        return _checked(self.machine.handle(dhcp.decode(dhcp.encode(packet)), self.now))

    def asks_4011(self, packet: DhcpPacket) -> Decision:
        return _checked(self.machine.asked(dhcp.decode(dhcp.encode(packet)), GIVEN, self.now))

    def takes(self, of: DhcpPacket) -> Decision:
        """Everybody hears the client take up the other server's offer."""
        chosen = with_options(
            of,
            opt.MESSAGE_TYPE.encode(MessageType.REQUEST),
            opt.SERVER_ID.encode(OTHER),
            opt.REQUESTED_ADDRESS.encode(GIVEN),
        )
        self.now += 1
        return self.handle(chosen)

    def boot_pass(self, firmware: Firmware, xid: int, mac: str = PC) -> str:
        """DISCOVER to REQUEST; the boot file of our offer."""
        asked = discover(firmware, mac, xid)
        offer = self.handle(asked)
        self.takes(asked)
        self.now += 1
        return _offered(offer).file.decode()

    @property
    def boot_id(self) -> BootId:
        current = self.tracker.current(PC)
        assert current is not None
        return current


def _checked(decision: Decision) -> Decision:
    if decision.reply is not None:
        wire = dhcp.encode(decision.reply.packet)
        assert len(wire) <= 548
        assert dhcp.decode(wire) == decision.reply.packet
    return decision


def _offered(decision: Decision) -> DhcpPacket:
    assert decision.reply is not None
    return decision.reply.packet


def question(xid: int, *pairs: tuple[int, bytes]) -> DhcpPacket:
    """What EDK2 asks at port 4011."""
    asked = replace(discover("ovmf", PC, xid), ciaddr=GIVEN)
    return with_options(asked, opt.MESSAGE_TYPE.encode(MessageType.REQUEST), *pairs)


@pytest.mark.parametrize(("firmware", "loader"), [("ovmf", "snponly.efi"), ("ipxe", "undionly.kpxe")])
def test_a_pc_boots_in_two_passes_under_one_boot_id(firmware: Firmware, loader: str) -> None:
    lab = Lab()
    assert lab.boot_pass(firmware, 1) == f"boot/{lab.boot_id}/{loader}"
    first = lab.boot_id
    assert lab.boot_pass("ipxe", 2) == f"tftp://10.77.0.1/boot/{first}/52-54-00-12-34-56.ipxe"
    assert lab.boot_id == first
    lab.now += 60
    lab.boot_pass(firmware, 3)
    assert lab.boot_id > first


def test_nothing_that_a_client_made_up_for_a_relay_agent_makes_an_answer_too_long_for_it() -> None:
    lab = Lab()
    filled = opt.RELAY_AGENT.encode(bytes(4_000))
    for decision in (lab.handle(with_options(discover("ovmf", PC, 1), filled)), lab.asks_4011(question(1, filled))):
        assert opt.RELAY_AGENT.code not in _offered(decision).options
    one = opt.RELAY_AGENT.encode(b"\x01\x04eth1")
    assert _offered(lab.handle(with_options(discover("ovmf", PC, 2), one))).options[82] == one[1]


def test_the_offer_has_a_boot_file_and_no_address() -> None:
    lab = Lab()
    asked = discover("ovmf", PC, 1)
    decision = lab.handle(asked)
    offer = _offered(decision)
    assert (offer.message_type, offer.yiaddr, offer.siaddr) == (MessageType.OFFER, NO_ADDRESS, US)
    assert offer.get(opt.SERVER_ID) == US
    assert offer.get(opt.VENDOR_CLASS) == "PXEClient"
    assert all(offer.options[code] == asked.options[code] for code in (93, 94, 97))
    assert offer.get(opt.VENDOR_SPECIFIC) == USE_THE_FILE
    assert (offer.get(opt.BOOT_FILE_NAME) or "").encode() == offer.file
    assert offer.sname == b"10.77.0.1"
    for code in (opt.LEASE_TIME, opt.SUBNET_MASK, opt.ROUTER, opt.DNS):
        assert code.code not in offer.options
    assert decision.reply is not None
    assert (decision.reply.via, decision.durable) == (Via.BROADCAST, False)
    assert [type(event).__name__ for event in decision.events] == ["BootStarted"]


def test_an_exchange_with_the_other_server_is_told_once_it_is_complete() -> None:
    lab = Lab()
    asked = discover("ovmf", PC, 1)
    lab.handle(asked)
    (addressed,) = lab.takes(asked).events
    assert isinstance(addressed, BootAddressed)
    assert (addressed.address, addressed.pass_) == (GIVEN, "firmware")
    assert addressed.boot_file == f"boot/{lab.boot_id}/snponly.efi"
    assert lab.takes(asked).events == ()


def test_http_boot_is_offered_its_url() -> None:
    lab = Lab()
    offer = _offered(lab.handle(discover("http", PC, 1)))
    assert offer.file.decode() == f"http://10.77.0.1/boot/{lab.boot_id}/snponly.efi"
    assert offer.get(opt.VENDOR_CLASS) == "HTTPClient"
    assert opt.VENDOR_SPECIFIC.code not in offer.options


def test_a_client_that_asks_again_is_offered_the_other_shape() -> None:
    lab = Lab()
    asked, shapes = discover("ovmf", PC, 1), []
    for at in (0, 0.5, 4, 12, 28):
        lab.now = T0 + at
        offer = _offered(lab.handle(asked))
        shapes.append((bool(offer.file), offer.get(opt.VENDOR_SPECIFIC)))
        assert offer.siaddr == US
        assert opt.BOOT_FILE_NAME.code in offer.options or not offer.file
    file, binl = (True, USE_THE_FILE), (False, None)
    assert shapes == [file, file, binl, file, binl]  # 0.5 s later it is a copy that the network made
    assert lab.boot_id == lab.tracker.current(PC)


def test_the_shape_that_led_to_a_script_is_remembered_until_boots_fail_with_it() -> None:
    lab = Lab()
    asked = discover("ovmf", PC, 1)
    for at in (0, 4):
        lab.now = T0 + at
        lab.handle(asked)
    lab.takes(asked)
    assert _offered(lab.asks_4011(question(1))).file
    lab.now += 5
    lab.boot_pass("ipxe", 2)
    for boot in range(3):
        lab.now += 600
        asked = discover("ovmf", PC, 10 + boot)
        for _ in range(3):  # whatever else it repeats for
            assert not _offered(lab.handle(asked)).file
            lab.now += 4
        lab.takes(asked)


def test_a_boot_that_was_lost_changes_the_shape_too() -> None:
    lab = Lab()
    assert lab.boot_pass("ovmf", 1)
    lab.now += 60
    assert not lab.boot_pass("ovmf", 2)


def test_ipxe_is_offered_its_file_however_often_it_asks() -> None:
    lab = Lab()
    asked = discover("ipxe", PC, 1)
    for _ in range(4):
        assert _offered(lab.handle(asked)).file
        lab.now += 4


def test_every_answer_to_ipxe_says_that_no_other_proxy_will_speak() -> None:
    """Option 175.176: without it iPXE waits 3 s. It goes to iPXE alone."""
    lab = Lab()
    answers = []
    for xid in (1, 2):  # the ROM's pass, and the loader's
        asked = discover("ipxe", PC, xid)
        answers.append(lab.handle(asked))
        lab.takes(asked)
        for kind in (MessageType.REQUEST, MessageType.INFORM):
            question = replace(with_options(asked, opt.MESSAGE_TYPE.encode(kind)), ciaddr=GIVEN)
            answers.append(lab.asks_4011(question))
        lab.now += 1
    assert [_offered(answer).get(opt.IPXE) for answer in answers] == [b"\xb0\x01\x01\xff"] * 6
    assert _offered(answers[-1]).file.endswith(b".ipxe")
    others: tuple[Firmware, ...] = ("ovmf", "http")
    for firmware in others:
        assert opt.IPXE.code not in _offered(Lab().handle(discover(firmware, PC, 3))).options


def test_port_4011_names_the_file_of_the_boot_that_the_discover_began() -> None:
    lab = Lab()
    asked = discover("ovmf", PC, 1)
    lab.handle(asked)
    lab.takes(asked)
    for xid in (1, 99):  # EDK2 draws a new transaction id for its question
        ack = _offered(lab.asks_4011(question(xid)))
        assert ack.message_type is MessageType.ACK
        assert (ack.xid, ack.ciaddr, ack.yiaddr, ack.siaddr) == (xid, GIVEN, NO_ADDRESS, US)
        assert ack.file.decode() == f"boot/{lab.boot_id}/snponly.efi"
        assert ack.get(opt.VENDOR_SPECIFIC) == USE_THE_FILE
    first = lab.boot_id
    assert lab.boot_pass("ipxe", 2).startswith(f"tftp://10.77.0.1/boot/{first}/")


def test_port_4011_names_the_script_in_the_second_pass() -> None:
    lab = Lab()
    lab.boot_pass("ovmf", 1)
    asked = discover("ipxe", PC, 2)
    lab.handle(asked)
    lab.takes(asked)
    inform = replace(with_options(asked, opt.MESSAGE_TYPE.encode(MessageType.INFORM)), ciaddr=GIVEN)
    assert _offered(lab.asks_4011(inform)).file.endswith(b".ipxe")


def test_a_boot_item_that_was_chosen_comes_back() -> None:
    lab = Lab()
    lab.handle(discover("ovmf", PC, 1))
    item = opt.VENDOR_SPECIFIC.encode(opt.encapsulate([(71, b"\x80\x00\x00\x00")]))
    ack = _offered(lab.asks_4011(question(1, item)))
    assert ack.get(opt.VENDOR_SPECIFIC) == b"\x06\x01\x08\x47\x04\x80\x00\x00\x00\xff"
    for broken in (b"\x47\x09\x80", b"\x47", b""):
        ack = _offered(lab.asks_4011(question(1, opt.VENDOR_SPECIFIC.encode(broken))))
        assert ack.get(opt.VENDOR_SPECIFIC) == USE_THE_FILE


def test_port_4011_begins_a_boot_where_no_discover_was_heard() -> None:
    lab = Lab()
    decision = lab.asks_4011(question(1))
    assert [type(event).__name__ for event in decision.events] == ["BootStarted", "BootAddressed"]
    first = lab.boot_id
    lab.now += UNANSWERED + 1
    lab.asks_4011(question(2))
    assert lab.boot_id > first


def test_a_script_that_was_offered_counts_as_used() -> None:
    """We see no acknowledgement of it: a PC that is reset with its disk attached must not get the same boot id."""
    lab = Lab()
    lab.boot_pass("ipxe", 1)
    asked = discover("ipxe", PC, 2)
    lab.handle(asked)
    first = lab.boot_id
    lab.now += 3
    assert _offered(lab.handle(asked)).file.endswith(b".ipxe")  # the same question again
    lab.now += 20
    assert _offered(lab.handle(discover("ipxe", PC, 3))).file.endswith(b"undionly.kpxe")
    assert lab.boot_id > first


@pytest.mark.parametrize(
    ("packet", "count"),
    [
        (discover("os", PC, 1), "ignored_not_booting"),
        (message(MessageType.RELEASE, PC, ciaddr=GIVEN), "ignored_not_booting"),
        (replace(discover("ovmf", PC, 1), op=dhcp.BOOTREPLY), "dropped_not_a_request"),
        (replace(discover("ovmf", PC, 1), htype=6), "dropped_not_ethernet"),
        (discover("ovmf", "01:00:5e:00:00:01", 1), "dropped_impossible_mac"),
        (discover("ovmf", PROBE_PREFIX.hex(":") + ":00:00:01", 1), "ignored_not_booting"),
        (
            with_options(discover("ovmf", PC, 1), opt.MESSAGE_TYPE.encode(MessageType.DECLINE)),
            "ignored_not_for_a_proxy",
        ),
    ],
)
def test_who_does_not_boot_is_not_answered(packet: DhcpPacket, count: str) -> None:
    decision = Lab().handle(packet)
    assert (decision.count, decision.reply, decision.events) == (count, None, ())


def test_a_renewal_is_no_boot() -> None:
    lab = Lab()
    renewal = with_options(replace(discover("ovmf", PC, 1), ciaddr=GIVEN), opt.MESSAGE_TYPE.encode(MessageType.REQUEST))
    assert lab.handle(renewal).events == ()
    assert lab.tracker.current(PC) is None


def test_firmware_without_a_loader_is_told_of_and_left_alone() -> None:
    lab = Lab("undionly.kpxe")
    decision = lab.handle(discover("ovmf", PC, 1))
    assert decision.reply is None
    assert [type(event).__name__ for event in decision.events] == ["BootStarted", "BootFailed"]
    assert lab.asks_4011(question(1)).reply is None


def test_a_client_behind_a_relay_is_answered_through_it() -> None:
    lab = Lab()
    agent = opt.RELAY_AGENT.encode(b"\x01\x02ab")
    asked = with_options(replace(discover("ovmf", PC, 1), giaddr=IPv4Address("10.78.0.1")), agent)
    decision = lab.handle(asked)
    assert decision.reply is not None
    assert (decision.reply.via, decision.reply.address) == (Via.RELAY, IPv4Address("10.78.0.1"))
    assert list(decision.reply.packet.options.items())[-1] == agent


def test_made_up_clients_cost_bounded_events_and_memory() -> None:
    lab = Lab()
    told = withheld = 0
    for n in range(OFFERS_MAX + 50):
        decision = lab.handle(discover("ovmf", f"52:54:01:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}", 1))
        assert decision.reply is not None
        told += bool(decision.events)
        withheld += bool(decision.withheld)
    assert told == STRANGERS_BURST
    assert withheld == OFFERS_MAX + 50 - STRANGERS_BURST
    assert len(lab.machine._offered) == OFFERS_MAX
    assert len(lab.firmware) == 0
