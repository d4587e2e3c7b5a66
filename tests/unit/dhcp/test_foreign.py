"""Other servers: what is heard of them, and what of that is news."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from bootlink_dhcp.foreign import FORGET_SECONDS, SERVERS_MAX, ForeignServers
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, DhcpPacket, MessageType
from lab.dhcp_client import message, with_options

T0 = 1_800_000_000.0
US, OTHER = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")
GIVEN = IPv4Address("10.77.0.150")
MAC = "52:54:00:aa:bb:cc"
PC = "52:54:00:12:34:56"


def offer(*pairs: tuple[int, bytes], server: IPv4Address = OTHER, yiaddr: IPv4Address = GIVEN) -> DhcpPacket:
    return DhcpPacket(
        op=dhcp.BOOTREPLY,
        xid=1,
        chaddr=bytes.fromhex(PC.replace(":", "")),
        yiaddr=yiaddr,
        options=dhcp.options(opt.MESSAGE_TYPE.encode(MessageType.OFFER), opt.SERVER_ID.encode(server), *pairs),
    )


def test_a_server_is_news_once_and_again_when_it_gives_more_or_comes_back() -> None:
    servers = ForeignServers(US, proxy=False)
    heard = servers.answered(offer(), OTHER, MAC, T0)
    assert heard is not None
    assert (heard.address, heard.mac, heard.gives_addresses, heard.gives_boot) == (OTHER, MAC, True, False)
    assert servers.answered(offer(), OTHER, MAC, T0 + 1) is None
    more = servers.answered(offer(opt.BOOT_FILE_NAME.encode("pxelinux.0")), OTHER, MAC, T0 + 2)
    assert more is not None
    assert (more.gives_addresses, more.gives_boot, more.boot_file) == (True, True, "pxelinux.0")
    assert servers.answered(offer(), OTHER, MAC, T0 + 3) is None
    assert [server.boot_file for server in servers.current(T0 + 4)] == ["pxelinux.0"]
    assert servers.current(T0 + 3 + FORGET_SECONDS) == []
    back = servers.answered(offer(), OTHER, MAC, T0 + 3 + FORGET_SECONDS)
    assert back is not None
    assert not back.gives_boot  # what it gave before may be mended


def test_we_are_no_foreign_server() -> None:
    servers = ForeignServers(US, proxy=False)
    assert servers.answered(offer(server=US), US, MAC, T0) is None
    assert servers.chosen(message(MessageType.REQUEST, PC, server=US, wanted=GIVEN), T0) is None
    assert servers.current(T0) == []


def test_a_server_shows_in_what_clients_choose() -> None:
    servers = ForeignServers(US, proxy=False)
    heard = servers.chosen(message(MessageType.REQUEST, PC, server=OTHER, wanted=GIVEN), T0)
    assert heard is not None
    assert (heard.gives_addresses, heard.mac, heard.client) == (True, "", PC)
    assert servers.chosen(message(MessageType.REQUEST, PC, wanted=GIVEN), T0) is None
    assert servers.chosen(message(MessageType.REQUEST, PC, server=NO_ADDRESS), T0) is None
    assert servers.answered(offer(), OTHER, MAC, T0 + 1) is None
    assert servers.current(T0 + 1)[0].mac == MAC


def test_a_proxy_is_known_by_its_class_or_its_file() -> None:
    for pairs, boot in (
        ((opt.VENDOR_CLASS.encode("PXEClient"),), True),
        ((opt.VENDOR_CLASS.encode("HTTPClient"),), True),
        ((opt.VENDOR_CLASS.encode("MSFT 5.0"),), False),
    ):
        heard = ForeignServers(US, proxy=False).answered(offer(*pairs, yiaddr=NO_ADDRESS), OTHER, MAC, T0)
        assert heard is not None
        assert (heard.gives_addresses, heard.gives_boot) == (False, boot)
    filed = replace(offer(), file=b"evil\x1b[2J\xff")
    heard = ForeignServers(US, proxy=False).answered(filed, OTHER, MAC, T0)
    assert heard is not None
    assert heard.boot_file == "evil?[2J?"


def test_only_answers_count() -> None:
    servers = ForeignServers(US, proxy=False)
    nak = with_options(offer(), opt.MESSAGE_TYPE.encode(MessageType.NAK))
    assert servers.answered(nak, OTHER, MAC, T0) is None
    bootp = replace(offer(), options={})
    heard = servers.answered(bootp, OTHER, MAC, T0)  # a BOOTP server, RFC 951
    assert heard is not None
    assert heard.address == OTHER


def test_what_belongs_here_depends_on_the_mode_and_on_who_is_named() -> None:
    plain, boot = offer(), offer(opt.BOOT_FILE_NAME.encode("pxelinux.0"))
    for proxy, known, packet, belongs, words in (
        (False, (), plain, False, "BOOTLINK_DHCP_MODE=proxy"),
        (False, (OTHER,), boot, True, ""),
        (True, (), plain, True, ""),
        (True, (), boot, False, "options 66, 67 and 60"),
        (True, (OTHER,), boot, True, ""),
    ):
        servers = ForeignServers(US, known, proxy=proxy)
        heard = servers.answered(packet, OTHER, MAC, T0)
        assert heard is not None
        assert servers.belongs(heard) is belongs
        event = servers.event(heard, "eth1")
        assert (event.server, event.expected, event.interface) == (OTHER, belongs, "eth1")
        if words:
            assert words in servers.remedy(heard)


def test_made_up_servers_are_forgotten_again() -> None:
    servers = ForeignServers(US, proxy=False)
    for n in range(SERVERS_MAX + 10):
        assert servers.answered(offer(server=OTHER + n), OTHER, MAC, T0 + n) is not None
    assert len(servers.current(T0 + SERVERS_MAX + 10)) == SERVERS_MAX
