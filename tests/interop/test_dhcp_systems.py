"""The DHCP clients of real systems against ours, through a lease's whole life: udhcpc, ISC dhclient and dhcpcd.

What is checked is what a sniffer saw on the client's card: which message, to whom, with which address in it. Each
client runs in the client's namespace, with a /run, a lease folder and a resolv.conf of its own: none is the host's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, MessageType
from lab.dhcp_client import discover, with_options
from lab.dhcp_process import DhcpProcess
from lab.netns import Cable, tool
from lab.process import Process
from lab.raw_pc import RawPc
from lab.sniffer import Datagram, Sniffer

SERVER = IPv4Address("10.77.0.1")
FIRST = IPv4Address("10.77.0.128")  # the pool's first address
EVERYONE = IPv4Address("255.255.255.255")
WAIT = 40.0  # seconds; dhcpcd alone takes eight until it has asked everybody about its address

# What dhclient and udhcpc run when something happens. A script that fails makes dhclient decline the address.
SCRIPT = """#!/bin/sh
case "$reason$1" in
PREINIT) ip link set "$interface" up ;;
BOUND|REBOOT)
    busybox arping -D -q -c 2 -w 1 -I "$interface" "$new_ip_address" || exit 1
    ip address replace "$new_ip_address/$new_subnet_mask" dev "$interface" ;;
RENEW|REBIND) ip address replace "$new_ip_address/$new_subnet_mask" dev "$interface" ;;
bound|renew) ip address replace "$ip/$mask" dev "$interface" ;;
*) ip address flush dev "$interface" ;;
esac
"""

# dhclient asks for nothing sooner than the server says, unless it is told to.
DHCLIENT = """
supersede dhcp-renewal-time 3;
supersede dhcp-rebinding-time 6;
backoff-cutoff 2;
initial-interval 1;
"""

# A mount namespace comes with `ip netns exec`; so these mounts are the client's alone.
PRIVATE = """
set -e
mount --bind "$0/run" /run
mkdir -p /var/lib/dhcpcd && mount --bind "$0/lib" /var/lib/dhcpcd
mount --bind "$0/resolv.conf" /etc/resolv.conf
exec "$@"
"""


class System:
    """One client on the client end of the cable. `renew`, `rebind` and `release` are what its user would do."""

    name: str
    package: str

    def __init__(self, cable: Cable, folder: Path) -> None:
        self.card = cable.client_card
        self.folder = folder
        for made in ("run", "lib"):
            (folder / made).mkdir(parents=True)
        for empty in ("resolv.conf", "leases", "dhcpcd.conf"):
            (folder / empty).touch()
        self.script = folder / "script"
        self.script.write_text(SCRIPT)
        self.script.chmod(0o755)
        (folder / "dhclient.conf").write_text(DHCLIENT)
        self._cable = cable
        self._process = Process(self.inside(*self.command()), log=folder / f"{self.name}.log")

    def command(self) -> list[str]:
        raise NotImplementedError

    def inside(self, *command: str) -> list[str]:
        program = tool(command[0], self.package)
        return Cable.inside(self._cable.client, "sh", "-c", PRIVATE, str(self.folder), program, *command[1:])

    def __enter__(self) -> System:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def renew(self) -> None:
        os.kill(self._process.pid, signal.SIGUSR1)

    def rebind(self) -> None:
        """Ask for the same address of whoever is there, since the server does not answer."""

    def release(self) -> None:
        os.kill(self._process.pid, signal.SIGUSR2)


class Udhcpc(System):
    name, package = "udhcpc", "udhcpc"

    def command(self) -> list[str]:
        return ["udhcpc", "-f", "-a", "-i", self.card, "-t", "5", "-T", "1", "-A", "1", "-s", str(self.script)]

    def rebind(self) -> None:
        self.renew()


class Dhclient(System):
    """Renews and rebinds by its own clock."""

    name, package = "dhclient", "isc-dhcp-client"

    def command(self, *more: str) -> list[str]:
        files = {"-cf": "dhclient.conf", "-lf": "leases", "-pf": "pid", "-sf": "script"}
        named = [word for option, file in files.items() for word in (option, str(self.folder / file))]
        return ["dhclient", "-4", "-d", *named, *more, self.card]

    def renew(self) -> None:
        pass

    def release(self) -> None:
        subprocess.run(self.inside(*self.command("-r")), check=True, capture_output=True, timeout=WAIT)


class Dhcpcd(System):
    name, package = "dhcpcd", "dhcpcd-base"

    def command(self, *more: str) -> list[str]:
        return ["dhcpcd", "-4", "-B", "-d", "-f", str(self.folder / "dhcpcd.conf"), "-c", "/bin/true", *more, self.card]

    def rebind(self) -> None:
        os.kill(self._process.pid, signal.SIGHUP)

    def release(self) -> None:
        os.kill(self._process.pid, signal.SIGALRM)


SYSTEMS = {system.name: system for system in (Udhcpc, Dhclient, Dhcpcd)}


@contextlib.contextmanager
def server_unreachable(cable: Cable) -> Iterator[None]:
    """The client's unicasts to the server's DHCP port are lost; its broadcasts are not."""
    nft = Cable.inside(cable.client, tool("nft", "nftables"))
    rules = (
        f"table ip lost {{\nchain out {{\ntype filter hook output priority 0\n"
        f"ip daddr {SERVER} udp dport 67 drop\n}}\n}}\n"
    )
    subprocess.run([*nft, "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*nft, "delete", "table", "ip", "lost"], check=True)


@contextlib.contextmanager
def squatter(cable: Cable, address: IPv4Address) -> Iterator[None]:
    """Somebody on the client's side of the network uses this address, unseen by the server."""
    ip, namespace = tool("ip", "iproute2"), f"{cable.server}-squatter"
    steps = (
        f"netns add {namespace}",
        # A macvlan card reaches what is beyond the server's card, and never that card itself.
        f"-n {cable.server} link add link {cable.server_card} name squat netns {namespace} type macvlan mode bridge",
        f"-n {namespace} address add {address}/24 dev squat",
        f"-n {namespace} link set squat up",
    )
    try:
        for step in steps:
            subprocess.run([ip, *step.split()], check=True)
        yield
    finally:
        subprocess.run([ip, "netns", "del", namespace], check=True)


def is_ack(one: Datagram) -> bool:
    return one.message is MessageType.ACK


def asks_to_keep(one: Datagram, address: IPv4Address, of: IPv4Address) -> bool:
    """A REQUEST of RENEWING or REBINDING (RFC 2131 table 4): ciaddr alone says which address."""
    packet = one.dhcp
    return (
        packet is not None
        and packet.message_type is MessageType.REQUEST
        and packet.ciaddr == address
        and opt.SERVER_ID.code not in packet.options
        and opt.REQUESTED_ADDRESS.code not in packet.options
        and one.target == of
    )


@pytest.mark.parametrize("name", SYSTEMS)
async def test_a_lease_is_obtained_renewed_rebound_and_released(cable: Cable, tmp_path: Path, name: str) -> None:
    with (
        DhcpProcess(cable, tmp_path, pool=f"{FIRST}-{FIRST}"),
        Sniffer(cable.client, cable.client_card) as sniffer,
        SYSTEMS[name](cable, tmp_path / "client") as system,
    ):
        ack = (await sniffer.hears(is_ack, seconds=WAIT)).dhcp
        assert ack is not None
        address = ack.yiaddr
        assert address == FIRST
        _until_it_has(cable, address)

        sniffer.forget()
        system.renew()
        await sniffer.hears(lambda one: asks_to_keep(one, address, SERVER), seconds=WAIT)
        renewed = await sniffer.hears(is_ack, seconds=WAIT)
        assert (renewed.target, renewed.dhcp and renewed.dhcp.yiaddr) == (address, address)

        with server_unreachable(cable):
            sniffer.forget()
            system.rebind()
            await sniffer.hears(lambda one: asks_to_keep(one, address, EVERYONE), seconds=WAIT)
            rebound = await sniffer.hears(is_ack, seconds=WAIT)
            assert (rebound.dhcp and rebound.dhcp.yiaddr) == address

        sniffer.forget()
        system.release()
        released = await sniffer.hears(lambda one: one.message is MessageType.RELEASE, seconds=WAIT)
        assert (released.target, released.dhcp and released.dhcp.ciaddr) == (SERVER, address)
        with RawPc(cable, "52:54:00:00:00:09") as another:
            offer = await another.ask(discover("os", another.mac, 9))
            assert offer is not None
            assert offer.yiaddr == address, "the only address is free again"


@pytest.mark.parametrize("name", SYSTEMS)
async def test_an_address_that_somebody_else_uses_is_declined_and_not_offered_again(
    cable: Cable, tmp_path: Path, name: str
) -> None:
    with (
        squatter(cable, FIRST),
        DhcpProcess(cable, tmp_path) as dhcp,
        Sniffer(cable.client, cable.client_card) as sniffer,
        SYSTEMS[name](cable, tmp_path / "client"),
    ):
        declined = await sniffer.hears(lambda one: one.message is MessageType.DECLINE, seconds=WAIT)
        assert declined.dhcp is not None
        assert declined.dhcp.get(opt.REQUESTED_ADDRESS) == FIRST
        sniffer.forget()
        ack = (await sniffer.hears(is_ack, seconds=WAIT)).dhcp
        assert ack is not None
        assert ack.yiaddr != FIRST
        with RawPc(cable, "52:54:00:00:00:09") as another:
            wants = with_options(discover("os", another.mac, 9), opt.REQUESTED_ADDRESS.encode(FIRST))
            offer = await another.ask(wants)
            assert offer is not None
            assert offer.yiaddr not in (FIRST, ack.yiaddr)
        dhcp.logs("address declined: another host has it")


class Informing(Dhcpcd):
    """Has an address of its own, and asks for the rest."""

    def command(self, *more: str) -> list[str]:
        return super().command("-s", "10.77.0.99/24", *more)


async def test_a_system_with_an_address_of_its_own_is_told_the_rest_and_given_no_lease(
    cable: Cable, tmp_path: Path
) -> None:
    with (
        DhcpProcess(cable, tmp_path, dns="10.77.0.53"),
        Sniffer(cable.client, cable.client_card) as sniffer,
        Informing(cable, tmp_path / "client"),
    ):
        asked = await sniffer.hears(lambda one: one.message is MessageType.INFORM, seconds=WAIT)
        ack = await sniffer.hears(is_ack, seconds=WAIT)
    assert asked.dhcp is not None
    assert asked.dhcp.ciaddr == IPv4Address("10.77.0.99")
    answer = ack.dhcp
    assert answer is not None
    assert answer.get(opt.DNS) == (IPv4Address("10.77.0.53"),)
    # RFC 2131 section 4.3.5: to its address, without one for it and without lease times.
    assert (ack.target, answer.yiaddr) == (IPv4Address("10.77.0.99"), NO_ADDRESS)
    assert not {opt.LEASE_TIME.code, opt.RENEWAL_TIME.code, opt.REBINDING_TIME.code} & {*answer.options}


def _until_it_has(cable: Cable, address: IPv4Address) -> None:
    """Wait until the client has put the address on its card: only then can it speak to one address."""
    shown = Cable.inside(cable.client, tool("ip", "iproute2"), "-4", "address", "show", "dev", cable.client_card)
    deadline = time.monotonic() + WAIT
    while str(address) not in subprocess.run(shown, capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < deadline, f"the client does not take {address}"
        time.sleep(0.1)
