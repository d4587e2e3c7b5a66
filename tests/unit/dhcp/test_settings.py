"""Settings, the subnet they make, and the one clear line when they make none."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from bootlink_dhcp.interface import find_card, holder_of_udp_port
from bootlink_dhcp.reservations import Reservations
from bootlink_dhcp.settings import DhcpSettings
from bootlink_dhcp.subnet import Pool, Subnet
from bootlink_events import LoaderRule
from bootlink_runtime import StartupError, load

OWN = IPv4Interface("10.77.0.1/24")
FAR = "10.78.0.0/24 pool=10.78.0.9-10.78.0.99 router=10.78.0.1"


def subnet(own: IPv4Interface = OWN, **settings: Any) -> Subnet:
    made = DhcpSettings(**settings)
    own_subnet = made.subnet(own)
    made.relayed(own_subnet)
    return own_subnet


def test_subnets_behind_relay_agents_are_like_our_own_unless_told_otherwise() -> None:
    settings = DhcpSettings(
        subnets=f"{FAR} lease=600 domain=far.example; 10.79.0.0/16 pool=10.79.1.1-10.79.1.9,10.79.2.1-10.79.2.9 "
        "router=10.79.0.1 dns=10.79.0.2,10.79.0.3 search=a.example,b.example;",
        domain="lab.example",
        pool="10.77.0.10-10.77.0.19,10.77.0.30-10.77.0.39",
    )
    own = settings.subnet(OWN)
    assert (len(own.pool), str(own.pool)) == (20, "10.77.0.10-10.77.0.19, 10.77.0.30-10.77.0.39")
    far, farther = settings.relayed(own)
    assert (far.lease_seconds, far.domain, far.server) == (600, "far.example", OWN.ip)
    assert (farther.lease_seconds, farther.domain, farther.search) == (3600, "lab.example", ("a.example", "b.example"))
    assert [str(address) for address in farther.dns] == ["10.79.0.2", "10.79.0.3"]
    assert IPv4Address("10.79.2.9") in farther.pool
    assert IPv4Address("10.79.1.10") not in farther.pool
    assert len(list(farther.pool)) == len(farther.pool) == 18


def test_the_pool_nobody_asked_for_is_the_upper_half() -> None:
    assert str(subnet().pool) == "10.77.0.128-10.77.0.254"
    assert str(subnet(IPv4Interface("10.0.0.1/8")).pool).endswith("-10.255.255.254")
    assert len(subnet(IPv4Interface("10.0.0.1/8")).pool) == 65536
    assert str(subnet(IPv4Interface("192.168.1.1/30")).pool) == "192.168.1.2-192.168.1.2"


def test_the_default_pool_leaves_out_our_address_and_the_routers() -> None:
    chosen = subnet(IPv4Interface("10.77.0.254/24"), router=IPv4Address("10.77.0.140"))
    assert str(chosen.pool) == "10.77.0.141-10.77.0.253"


@pytest.mark.parametrize(
    ("own", "settings", "problem", "remedy"),
    [
        (OWN, {"pool": "10.77.0.300-10.77.0.301"}, "is no pool", "write it like"),
        (OWN, {"pool": "10.77.0.5"}, "is no pool", "write it like"),
        (OWN, {"pool": "10.78.0.10-10.78.0.20"}, "not inside the subnet", "10.77.0.1 and 10.77.0.254"),
        (OWN, {"pool": "10.77.0.100-10.77.0.255"}, "not inside the subnet", "between"),
        (OWN, {"pool": "10.77.0.20-10.77.0.10"}, "ends before it begins", "lower address first"),
        (OWN, {"pool": "10.77.0.1-10.77.0.20"}, "server's own address, 10.77.0.1", "leaves it out"),
        (OWN, {"pool": "10.77.0.2-10.77.0.20", "router": IPv4Address("10.77.0.9")}, "the router", "leaves it out"),
        (OWN, {"router": IPv4Address("10.78.0.9")}, "not in the subnet", "could not reach"),
        (IPv4Interface("10.0.0.1/8"), {"pool": "10.1.0.0-10.3.0.0"}, "too large", "at most"),
        (IPv4Interface("10.0.0.1/31"), {}, "no room", "/30"),
        (OWN, {"pool": "10.77.0.10-10.77.0.20,10.77.0.20-10.77.0.30"}, "10.77.0.20-10.77.0.30 overlap", "end the one"),
        (OWN, {"pool": "10.77.0.10-10.77.0.20,10.78.0.1-10.78.0.2"}, "not inside the subnet", "between"),
        (OWN, {"domain": "no domain"}, "'no domain' is no domain name", "letters"),
        (OWN, {"search": "lab.example,-"}, "'-' is no domain name", "letters"),
        (OWN, {"subnets": "10.78.0.0/24"}, "has no pool", "BOOTLINK_DHCP_SUBNETS"),
        (OWN, {"subnets": "10.78.0.1/24 pool=10.78.0.9-10.78.0.9"}, "is no subnet", "like 10.78.0.0/24"),
        (OWN, {"subnets": "10.78.0.0/24 pool=10.78.0.9-10.78.0.9"}, "has no router", "router="),
        (OWN, {"subnets": FAR + " dsn=10.0.0.1"}, "'dsn' is nothing that a subnet has", "like"),
        (OWN, {"subnets": FAR + " dns=10.0.0"}, "10.78.0.0/24: Expected 4 octets", "like"),
        (OWN, {"subnets": FAR + " router=10.78.0.2"}, "a word stands there twice", "like"),
        (OWN, {"subnets": FAR + " lease=0"}, "a lease of 0 s in the subnet 10.78.0.0/24", "from 60 to"),
        (OWN, {"subnets": FAR + " lease=9999999999"}, "lease=9999999999 is no number of seconds", "like"),
        (OWN, {"subnets": FAR + " lease=-60"}, "lease=-60 is no number of seconds", "like"),
        (OWN, {"subnets": FAR + " dns=" + ",".join(5 * ["10.78.0.2"])}, "5 name servers", "at most 4"),
        (OWN, {"subnets": FAR + " search="}, "'' is no domain name", "letters"),
        (OWN, {"subnets": FAR + " domain=" + ".".join(5 * ["a" * 60])}, "takes 306 bytes, and one has 255", "letters"),
        (OWN, {"search": ",".join(2 * [".".join(3 * ["a" * 60])])}, "takes 368 bytes; an option has 255", "leave some"),
        (OWN, {"subnets": FAR.replace("router=10.78", "router=10.79")}, "router 10.79.0.1 is not in", "reach"),
        (OWN, {"subnets": FAR.replace("0.9-", "1.9-")}, "not inside the subnet 10.78.0.0/24", "between"),
        (OWN, {"subnets": f"{FAR};{FAR}"}, "10.78.0.0/24 and 10.78.0.0/24 overlap", "correct one"),
        (OWN, {"subnets": "10.77.0.0/16 pool=10.77.5.1-10.77.5.9 router=10.77.5.10"}, "overlap", "correct one"),
    ],
)
def test_a_contradiction_is_one_line_with_a_remedy(
    own: IPv4Interface, settings: dict[str, Any], problem: str, remedy: str
) -> None:
    with pytest.raises(StartupError) as error:
        subnet(own, **settings)
    assert problem in error.value.problem
    assert remedy in error.value.remedy


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOOTLINK_DATA", str(tmp_path))
    monkeypatch.setenv("BOOTLINK_DHCP_INTERFACE", "eth1")
    monkeypatch.setenv("BOOTLINK_DHCP_DNS", "10.77.0.1, 9.9.9.9")
    monkeypatch.setenv("BOOTLINK_DHCP_ROUTER_ADVERTISEMENTS", "off")
    monkeypatch.setenv(
        "BOOTLINK_DHCP_LOADER_RULES", '[{"arch": "uefi-x64", "model": "00:1b:21", "loaders": ["a/b.efi"]}]'
    )
    settings = load(DhcpSettings)
    assert settings.interface == "eth1"
    assert settings.dns == (IPv4Address("10.77.0.1"), IPv4Address("9.9.9.9"))
    assert settings.router_advertisements == "off"
    assert settings.loader_rules == (LoaderRule(arch="uefi-x64", model="00:1b:21", loaders=("a/b.efi",)),)
    assert settings.loader_folders == (tmp_path / "tftp" / "loaders", Path("/usr/lib/ipxe"))


def test_what_the_tftp_service_is_told_holds_here_too_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTLINK_TFTP_PORT", "6969")
    monkeypatch.setenv("BOOTLINK_TFTP_LOADERS", "/a:/b")
    assert load(DhcpSettings).tftp_port == 6969
    assert load(DhcpSettings).loader_folders == (Path("/a"), Path("/b"))
    monkeypatch.setenv("BOOTLINK_DHCP_TFTP_PORT", "70")
    assert load(DhcpSettings).tftp_port == 70


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DNS", "1.1.1.1,2,3"),
        ("LEASE_SECONDS", "5"),
        ("ROUTER", "x"),
        ("PORT", "70000"),
        ("KNOWN_SERVERS", "10.77.0.2,x"),
        ("MODE", "both"),
        ("LOADER_RULES", '[{"arch": "pdp11", "loaders": ["a"]}]'),
        ("LOADER_RULES", '[{"arch": "bios", "loaders": ["../a"]}]'),
        ("LOADER_RULES", '[{"arch": "bios", "loaders": []}]'),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(f"BOOTLINK_DHCP_{variable}", value)
    with pytest.raises(StartupError, match=f"BOOTLINK_DHCP_{variable}"):
        load(DhcpSettings)


def test_a_card_that_is_not_named_or_not_there_is_said_with_those_that_are() -> None:
    for name in ("", "no-such-card"):
        with pytest.raises(StartupError, match="BOOTLINK_DHCP_INTERFACE"):
            find_card(name, None)
    with pytest.raises(StartupError, match="not an Ethernet card"):
        find_card("lo", None)


def test_a_port_that_nobody_holds_has_no_known_holder() -> None:
    assert holder_of_udp_port(0) == "another program"


def test_one_address_has_one_owner_and_must_be_a_clients() -> None:
    net = IPv4Network("10.77.0.0/24")
    reservations = Reservations(
        Subnet(net, IPv4Address("10.77.0.1"), Pool(IPv4Address("10.77.0.100"), IPv4Address("10.77.0.110")), 3600)
    )
    twenty = IPv4Address("10.77.0.20")
    assert reservations.set("a", twenty) is None
    assert "reserved for a" in (reservations.set("b", twenty) or "")
    for unfit in ("10.77.0.1", "10.77.0.0", "10.77.0.255", "10.78.0.1"):
        assert "cannot be a client's" in (reservations.set("b", IPv4Address(unfit)) or "")
    assert reservations.set("a", None) is None
    assert reservations.set("b", twenty) is None
    assert (reservations.of("a"), reservations.owner(twenty)) == (None, "b")
