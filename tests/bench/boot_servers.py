"""The servers that a boot begins with, ours and their peers: DHCP and TFTP, each one process on one core.

They run in the server's namespace of a cable. Ours are the real `python -m bootlink_dhcp` and `bootlink_tftp`, with all
that they do in production: a nats-server beside them takes their events, and every lease is on disk before its ACK.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bench.machine import CLIENT_CORE, SERVER_CORE, pinned
from bootlink_events import PLANS_BUCKET, BootPlan, mac_token
from lab.chassis import bus_on
from lab.loaders import NBP
from lab.nats import LabEngine
from lab.netns import Cable, entered, tool
from lab.process import Process

SERVER = IPv4Address("10.77.0.1")
CLIENT = IPv4Address("10.77.0.2")  # the relay agent that perfdhcp plays, and the PC that fetches files
POOL = "10.77.64.0-10.77.255.250"
LEASE_SECONDS = 3600
CLIENTS_TIMEOUT = 180.0  # seconds
LOADERS = {"undionly.kpxe": 75_000, "large.img": 40 << 20}


@dataclass(frozen=True)
class Server:
    """A server that serves, in the server's namespace of `cable`."""

    name: str
    cable: Cable
    pid: int
    port: int


def lan() -> Cable:
    return Cable(server_address=f"{SERVER}/16", client_address=f"{CLIENT}/16")


@contextlib.contextmanager
def nats(folder: Path, cable: Cable, plans: Iterable[BootPlan] = ()) -> Iterator[str]:
    """A nats-server on the loopback of the server's namespace, with the registry's streams and these plans. It has the
    load client's core: it is no part of what is measured, and must not slow it down."""
    with entered(cable.server):
        engine = LabEngine(folder / "nats")
        engine.prepare()
    process = Process(cable.inside(cable.server, *pinned(CLIENT_CORE, *engine.command)), log=folder / "nats.log")

    def answers() -> bool:
        with entered(cable.server):
            return engine.answers()

    process.start(answers)
    try:
        with entered(cable.server):
            asyncio.run(_provide(engine.url, plans))
        yield engine.url
    finally:
        process.stop()


async def _provide(url: str, plans: Iterable[BootPlan]) -> None:
    async with bus_on(url) as bus:
        for one in plans:
            await bus.put(PLANS_BUCKET, mac_token(one.mac), one.model_dump_json().encode())


@contextlib.contextmanager
def ours(service: str, folder: Path, cable: Cable, nats_url: str, **settings: str) -> Iterator[Server]:
    """`python -m bootlink_<service>`, ready. `folder` holds its data; `settings` are its own, without their prefix."""
    prefix = f"BOOTLINK_{service.upper()}_"
    environment = os.environ | {
        "BOOTLINK_DATA": str(folder),
        "BOOTLINK_NATS_URL": nats_url,
        "BOOTLINK_LOG_FORMAT": "json",
        **{prefix + name.upper(): value for name, value in settings.items()},
    }
    log = folder / f"{service}.log"
    command = cable.inside(cable.server, *pinned(SERVER_CORE, sys.executable, "-m", f"bootlink_{service}"))
    process = Process(command, log=log, env=environment)
    process.start(lambda: '"event": "ready"' in log.read_text())
    said = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    address = next(line["address"] for line in said if line["event"] == "listening" and line["what"] == service)
    try:
        yield Server("Bootlink", cable, process.pid, int(address.rpartition(":")[2]))
    finally:
        process.stop()


@contextlib.contextmanager
def dhcp(folder: Path, cable: Cable, *, probe: bool = False) -> Iterator[Server]:
    """Without `probe` it offers addresses unseen, as Kea does."""
    folder.mkdir()
    with (
        nats(folder, cable) as url,
        ours(
            "dhcp",
            folder,
            cable,
            url,
            interface=cable.server_card,
            pool=POOL,
            probe_addresses=str(probe).lower(),
            lease_seconds=str(LEASE_SECONDS),
            loaders=str(loaders(folder)),
        ) as server,
    ):
        yield server


@contextlib.contextmanager
def kea(folder: Path, cable: Cable) -> Iterator[Server]:
    """Kea with its leases in memory, and in the lease file that it keeps of them (memfile)."""
    folder.mkdir()
    configuration = {
        "Dhcp4": {
            "interfaces-config": {"interfaces": [cable.server_card], "dhcp-socket-type": "udp"},
            "lease-database": {
                "type": "memfile",
                "persist": True,
                "name": str(folder / "leases.csv"),
                "lfc-interval": 0,
            },
            "valid-lifetime": LEASE_SECONDS,
            "subnet4": [{"subnet": "10.77.0.0/16", "pools": [{"pool": POOL.replace("-", " - ")}]}],
            "loggers": [{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{"output": "stderr"}]}],
        }
    }
    file = folder / "kea.json"
    file.write_text(json.dumps(configuration))
    program = tool("kea-dhcp4", "kea-dhcp4-server")
    process = Process(
        cable.inside(cable.server, *pinned(SERVER_CORE, program, "-c", str(file))),
        log=folder / "kea.log",
        env=os.environ | {"KEA_PIDFILE_DIR": str(folder), "KEA_LOCKFILE_DIR": str(folder)},
    )
    process.start(lambda: _bound(cable, 67))
    try:
        yield Server("Kea", cable, process.pid, 67)
    finally:
        process.stop()


@contextlib.contextmanager
def tftp(folder: Path, cable: Cable) -> Iterator[Server]:
    folder.mkdir()
    with (
        nats(folder, cable) as url,
        ours("tftp", folder, cable, url, host=str(SERVER), port="69", loaders=str(loaders(folder))) as server,
    ):
        yield server


@contextlib.contextmanager
def hpa(folder: Path, cable: Cable) -> Iterator[Server]:
    """tftpd-hpa as Debian brings it; it makes a process of each transfer, on the same core."""
    folder.mkdir()
    program = tool("in.tftpd", "tftpd-hpa")
    options = ("-4", "-L", "-u", "root", "-s", "-a", f"{SERVER}:69", str(loaders(folder)))
    command = cable.inside(cable.server, *pinned(SERVER_CORE, program, *options))
    process = Process(command, log=folder / "tftpd.log")
    process.start(lambda: _bound(cable, 69))
    try:
        yield Server("tftpd-hpa", cable, process.pid, 69)
    finally:
        process.stop()


def loaders(folder: Path) -> Path:
    """Files to fetch: one of a loader's size, and a large one. dhcp takes them for loaders by how they begin."""
    made = folder / "loaders"
    made.mkdir(exist_ok=True)
    for name, size in LOADERS.items():
        (made / name).write_bytes(content(size))
    return made


def content(size: int) -> bytes:
    block = bytes(index * 7 % 251 for index in range(251))
    return (NBP + block * (size // len(block) + 1))[:size]


def clients(cable: Cable, module: str, *arguments: str) -> list[str]:
    """Run `python -m bench.<module>` at the clients' end; the lines that it prints. RuntimeError if it fails."""
    command = (sys.executable, "-m", f"bench.{module}", *arguments)
    done = subprocess.run(
        cable.inside(cable.client, *pinned(CLIENT_CORE, *command)),
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=CLIENTS_TIMEOUT,
    )
    if done.returncode:
        raise RuntimeError(f"the clients failed: {done.stderr[-2000:]}")
    return done.stdout.splitlines()


def _bound(cable: Cable, port: int) -> bool:
    """Whether somebody has this UDP port in the server's namespace."""
    with entered(cable.server), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(SERVER), port))
        except OSError:
            return True
        return False
