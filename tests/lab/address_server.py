"""Other people's DHCP servers: dnsmasq and Kea, each on a host of its own on a LAN where ours is a guest.

with Host(lan, "10.77.0.2/24") as host, dnsmasq(host, folder): ...
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

from guest.lan import Lan
from guest.toolbox import BuildError, run
from lab.netns import tool
from lab.process import Process

FIRST, LAST = "10.77.0.50", "10.77.0.60"
_numbers = itertools.count(1)


class Host:
    """A machine on the LAN's bridge: a namespace with one card. Without an address it is a PC's place."""

    client_card = "eth0"

    def __init__(self, lan: Lan, address: str = "") -> None:
        self._lan = lan
        self.address = IPv4Interface(address).ip if address else None
        self._address = address
        number = next(_numbers)
        self.client = f"bl-{os.getpid()}-h{number}"  # its namespace
        self._port = f"h{number}"

    def __enter__(self) -> Host:
        run("ip", "netns", "add", self.client)
        try:
            run(
                *("ip", "-netns", self._lan.namespace, "link", "add", self._port, "type", "veth"),
                *("peer", "name", self.client_card, "netns", self.client),
            )
            run("ip", "-netns", self._lan.namespace, "link", "set", self._port, "master", Lan.BRIDGE, "up")
            run("ip", "-netns", self.client, "link", "set", "lo", "up")
            run("ip", "-netns", self.client, "link", "set", self.client_card, "up")
            if self._address:
                run("ip", "-netns", self.client, "address", "add", self._address, "dev", self.client_card)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BuildError):
            run("ip", "netns", "delete", self.client)

    def command(self, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", self.client, *argv]


@contextlib.contextmanager
def dnsmasq(host: Host, folder: Path, *more: str) -> Iterator[Process]:
    """dnsmasq as DHCP server, and nothing else unless told so."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "dnsmasq.log"
    command = host.command(
        *(tool("dnsmasq", "dnsmasq-base"), "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0"),
        *(f"--interface={host.client_card}", "--bind-interfaces", "--no-ping", "--log-dhcp", "--log-facility=-"),
        *(f"--dhcp-leasefile={folder / 'leases'}", f"--pid-file={folder / 'pid'}", f"--dhcp-range={FIRST},{LAST},1h"),
        *more,
    )
    process = Process(command, log=log)
    process.start(lambda: "DHCP, IP range" in log.read_text() or "DHCP, sockets bound" in log.read_text())
    try:
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def kea(host: Host, folder: Path) -> Iterator[Process]:
    """Kea's DHCPv4 server, its leases in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "kea.json"
    log = folder / "kea.log"
    settings.write_text(
        json.dumps(
            {
                "Dhcp4": {
                    "interfaces-config": {"interfaces": [host.client_card], "dhcp-socket-type": "raw"},
                    "lease-database": {"type": "memfile", "persist": False},
                    "subnet4": [
                        {"id": 1, "subnet": "10.77.0.0/24", "pools": [{"pool": f"{FIRST} - {LAST}"}]},
                    ],
                    "loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]}],
                }
            }
        )
    )
    process = Process(
        host.command(tool("kea-dhcp4", "kea-dhcp4-server"), "-c", str(settings)),
        log=log,
        env={**os.environ, "KEA_LOCKFILE_DIR": str(folder), "KEA_PIDFILE_DIR": str(folder)},
    )
    process.start(lambda: "DHCP4_STARTED" in log.read_text())
    try:
        yield process
    finally:
        process.stop()
