"""The decision machine: which loader and which options an answer carries."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from bootlink_dhcp.firmware import PATIENCE
from bootlink_dhcp.subnet import Pool
from bootlink_events import BootLoaderChanged, LoaderRule
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from lab.dhcp_client import discover, with_options
from lab.dhcp_machine import ALL_LOADERS, FIRST, KNOWN, PC, SERVER, Lab, file_of


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
