"""A second LAN behind a router that is a DHCP relay agent: ISC dhcrelay, which adds the relay agent option.

    server's Lan 10.77.0.0/24 ── up0 10.77.0.2 │ router, dhcrelay │ br0 10.78.0.1 ── far Lan 10.78.0.0/24

The router also advertises itself for IPv6, by dnsmasq, as routers do. Where none does, iPXE waits for one at each pass.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from guest.lan import Lan
from lab.netns import tool
from lab.process import Process

UPLINK = "up0"
UPLINK_ADDRESS = IPv4Address("10.77.0.2")
FAR = IPv4Network("10.78.0.0/24")
ROUTER = IPv4Address("10.78.0.1")


@contextlib.contextmanager
def relayed(lan: Lan, folder: Path) -> Iterator[Lan]:
    """The far LAN, whose DHCP is relayed to the server on `lan`."""
    with Lan(f"{ROUTER}/{FAR.prefixlen}") as far, contextlib.ExitStack() as agents:
        steps = (
            f"-n {lan.namespace} link add far0 type veth peer name {UPLINK} netns {far.namespace}",
            f"-n {lan.namespace} link set far0 master {Lan.BRIDGE} up",
            f"-n {lan.namespace} route add {FAR} via {UPLINK_ADDRESS}",
            f"-n {far.namespace} address add {UPLINK_ADDRESS}/24 dev {UPLINK}",
            f"-n {far.namespace} link set {UPLINK} up",
            f"-n {far.namespace} address add fd78::1/64 dev {Lan.BRIDGE} nodad",
        )
        # The route needs the uplink's other end; so it comes last.
        for step in sorted(steps, key=lambda step: "route" in step):
            subprocess.run([tool("ip", "iproute2"), *step.split()], check=True)
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            subprocess.run(far.command("sh", "-c", f"echo 1 >/proc/sys/net/{path}"), check=True)
        dhcrelay = (tool("dhcrelay", "isc-dhcp-relay"), "-4", "-d", "--no-pid", "-a", "-id", Lan.BRIDGE, "-iu", UPLINK)
        dnsmasq = (tool("dnsmasq", "dnsmasq-base"), "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file")
        advertises = ("--port=0", f"--interface={Lan.BRIDGE}", "--enable-ra", "--dhcp-range=fd78::,ra-only")
        leases = (f"--dhcp-leasefile={folder / 'dnsmasq.leases'}", "--log-facility=-")
        for command in ((*dhcrelay, str(lan.address.ip)), (*dnsmasq, *advertises, *leases)):
            process = Process(far.command(*command), log=folder / f"{Path(command[0]).name}.log")
            process.start()
            agents.callback(process.kill)
        yield far
