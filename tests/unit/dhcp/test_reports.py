"""What `bootlink status` says of dhcp: each thing that keeps PCs from booting, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from bootlink_dhcp.asked_loaders import Unfulfilled, Wish
from bootlink_dhcp.leases import LeaseTable
from bootlink_dhcp.probing import EVERYTHING, Answering
from bootlink_dhcp.reports import (
    HTTP_TOLD_SECONDS,
    TOLD,
    http_report,
    lease_report,
    loader_report,
    reservation_report,
    taken_report,
)
from bootlink_dhcp.reservations import Reservations
from bootlink_dhcp.subnet import Pool, Subnet

T0 = 1_800_000_000.0


def ip(last: int) -> IPv4Address:
    return IPv4Address(f"10.77.0.{last}")


SUBNET = Subnet(IPv4Network("10.77.0.0/24"), ip(1), Pool(ip(101), ip(116)), 3600)  # 16 addresses: two are kept


def leased(count: int) -> LeaseTable:
    def record(_: IPv4Address, __: Mapping[str, Any] | None) -> None: ...

    table = LeaseTable(SUBNET, lambda _: None, record)
    for n in range(count):
        table.bind(f"52:54:00:00:00:{n:02x}", ip(101 + n), T0)
    return table


def test_a_pool_with_room_is_well() -> None:
    room, text = lease_report([leased(13)], T0)
    assert room
    assert text.startswith("10.77.0.101-10.77.0.116: 3 free, ")


def test_a_pool_whose_rest_is_kept_from_new_pcs_is_told_of_as_one_that_is_used_up_is() -> None:
    for count, words in ((14, "kept for PCs that are known already, 10.77.0.101"), (16, "no address of 10.77.0.101")):
        table = leased(count)
        assert table.choose("52:54:00:00:01:00", None, None, T0, known=lambda _: False) is None
        room, text = lease_report([leased(3), table], T0)
        assert not room
        assert words in text
        assert "widen the pool (BOOTLINK_DHCP_POOL)" in text


def test_addresses_that_are_reserved_for_others_are_no_room_although_nobody_has_them() -> None:
    reserved = [*map(ip, range(103, 117)), ip(20)]  # the last one lies in no pool
    table = LeaseTable(SUBNET, lambda address: "52:54:00:00:02:00" if address in reserved else None, lambda *_: None)
    for mac, words in (("a", "kept for PCs that are known already, 10.77"), ("b", "no address of 10.77")):
        table.bind(mac, table.choose(mac, None, None, T0) or ip(0), T0)
        room, text = lease_report([table], T0, reserved)
        assert not room
        assert words in text
        assert "14 of them reserved" in text
    assert table.choose("c", None, None, T0) is None
    assert lease_report([table], T0)[0], "what is looked at is what is reserved"


def test_loaders_are_named_or_refused_or_missed() -> None:
    assert loader_report([], [], ["a.pxe", "b.efi"], []) == (True, "a.pxe, b.efi")
    assert loader_report(["a.pxe is empty"], [], ["b.efi"], [])[0] is False
    there, text = loader_report([], [], [], [Path("/loaders")])
    assert not there
    assert text.startswith("there is none: install Debian's package ipxe")
    assert "/loaders" in text


def asking(group: str) -> Unfulfilled:
    return Unfulfilled(Wish(group, "nothere.efi", ""), "is in none of the loader folders")


def test_loaders_that_rules_ask_for_in_vain_are_told_beside_what_was_refused_and_bounded() -> None:
    asked = [asking(f"g{n}") for n in range(TOLD + 2)]
    fine, text = loader_report([], asked, ["b.efi"], [])
    assert not fine
    assert text.startswith(asked[0].text)
    assert text.count("nothere.efi") == TOLD
    assert "and 2 more" in text
    assert "bootlink group loader set" in text
    assert "BOOTLINK_DHCP_LOADER_RULES" not in text
    assert loader_report(["a.pxe is empty"], asked[:1], ["b.efi"], [])[1].startswith("a.pxe is empty")
    _, both = loader_report([], [asking(""), asking("teachers")], ["b.efi"], [])
    assert "BOOTLINK_DHCP_LOADER_RULES asks for nothere.efi" in both
    assert both.endswith("or set another: bootlink group loader set GROUP FILE")


def test_who_answers_for_addresses_of_the_pool_is_told_with_what_to_do() -> None:
    assert taken_report([])[0]
    fine, text = taken_report([Answering("52:54:00:00:00:09", ip(101), 1), Answering("", ip(103), 2)])
    assert not fine
    assert text.startswith("10.77.0.101 is in use by 52:54:00:00:00:09 whom we gave none; 10.77.0.103 and 1 more is in")
    assert text.endswith("choose a pool without its address (BOOTLINK_DHCP_POOL)")
    fine, text = taken_report([Answering("52:54:00:00:00:09", ip(101), EVERYTHING)])
    assert not fine
    assert text.startswith("52:54:00:00:00:09 answers ARP for whatever is asked, so new PCs get no address: ")
    assert "BOOTLINK_DHCP_PROBE_ADDRESSES=false" in text
    assert "BOOTLINK_DHCP_POOL" not in text


def test_a_pc_that_is_set_to_http_boot_where_that_is_off_is_told_for_a_day() -> None:
    assert http_report(0, None, T0) == (True, "off, and no PC has asked for it")
    assert http_report(80, None, T0) == (True, "on port 80")
    fine, text = http_report(0, ("52:54:00:00:00:09", T0), T0 + 3600)
    assert not fine
    assert text.startswith("52:54:00:00:00:09 is set to HTTP boot, and that is off: set BOOTLINK_TFTP_HTTP_PORT=80")
    assert http_report(0, ("52:54:00:00:00:09", T0), T0 + HTTP_TOLD_SECONDS + 1)[0]


def test_reservations_that_are_not_honoured_are_told_until_they_are() -> None:
    reservations = Reservations(SUBNET)
    assert reservation_report(reservations.wrong) == (True, "all are honoured")
    reservations.set("a", ip(20))
    reservations.set("b", ip(20))
    reservations.set("c", IPv4Address("192.168.99.1"))
    fine, text = reservation_report(reservations.wrong)
    assert not fine
    assert "b: 10.77.0.20 is reserved for a already" in text
    assert "c: 192.168.99.1 cannot be a client's address in 10.77.0.0/24" in text
    assert "bootlink client set NAME --address" in text
    reservations.set("a", None)
    assert list(reservations.wrong) == ["c"], "b has its address now"
    reservations.set("c", ip(21))
    assert reservations.wrong == {}


def test_of_many_only_some_are_named() -> None:
    _, text = reservation_report({f"pc-{n}": "no" for n in range(TOLD + 4)})
    assert "and 4 more" in text
