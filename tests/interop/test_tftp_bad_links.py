"""Every real TFTP client against our service over bad links: a cable on which nftables loses packets, both ways, and
a proxy that repeats and overtakes.

Which packets the cable loses is counted, not diced. Nothing else stands between client and service there, so ports are
what they are: 69 for the request, another for the transfer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.netns import Cable, tool
from lab.process import Process
from lab.tftp import address_of, loader_bytes, loaders, serving
from lab.tftp_clients import CLIENTS, Command, fetch
from lab.udp_proxy import Impairment, proxied

# Each client asks an address of the server's own: by it the kernel counts what is lost, for each client alone. So it is
# the same packets in each run, and a loss is never that of the packet which makes good for another.
SERVERS = {name: f"10.77.0.{101 + number}" for number, name in enumerate(CLIENTS)}
# Blocks enough for some losses on each way, and few enough for clients that wait five seconds before they ask again.
SIZES = {True: 1428 * 40 + 7, False: 512 * 40 + 7}
LOST_EVERY = 17  # a prime: it falls on every kind of packet in turn, and never twice on one that is sent again
# The first that is lost of what comes to the server and of what comes to the client, counted from 0: in the middle.
FIRST = (3, 7)
FIRST_OF = {
    "busybox": (0, 7),  # the request
    "curl": (1, 7),  # the ACK of the OACK; atftp aborts ("unexpected OACK") when that is answered, as it must be
    "curl-1428": (3, 0),  # the OACK
    "hpa": (3, 0),  # the first block, which a server sends again only if it is asked
}
TABLE = "table ip lossy {{ chain arrived {{ type filter hook input priority 0;\n{rules}\n}}; }}"
RULE = "ip {end} {server} meta l4proto udp numgen inc mod {every} == {first} counter drop"


@contextlib.contextmanager
def losing(cable: Cable) -> Iterator[None]:
    """Of each client's datagrams every LOST_EVERYth is lost on its way to either end.

    Where it arrives, not where it is sent: there the kernel would tell the sender (EPERM), as no network does.
    """
    ends = {cable.server: "daddr", cable.client: "saddr"}
    try:
        for index, (namespace, end) in enumerate(ends.items()):
            rules = [
                RULE.format(end=end, server=server, every=LOST_EVERY, first=FIRST_OF.get(name, FIRST)[index])
                for name, server in SERVERS.items()
            ]
            _nft(namespace, "-f", "-", words=TABLE.format(rules="\n".join(rules)))
        yield
        for namespace, end in ends.items():
            listed = _nft(namespace, "list", "table", "ip", "lossy")
            lost = {found[1]: int(found[2]) for found in re.finditer(end + r" (\S+) .* counter packets (\d+)", listed)}
            assert lost.keys() == set(SERVERS.values())
            assert 0 not in lost.values(), f"nothing was lost on the way to {namespace}: {lost}"
    finally:
        for namespace in ends:
            _nft(namespace, "delete", "table", "ip", "lossy")


def _nft(namespace: str, *arguments: str, words: str = "") -> str:
    command = Cable.inside(namespace, tool("nft", "nftables"), *arguments)
    return subprocess.run(command, input=words, capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def tftp_process(cable: Cable, folder: Path) -> Iterator[Path]:
    """The service on port 69 of the server's end; yields the folder that it serves."""
    loaders(folder)
    log = folder / "tftp.log"
    environment = {
        **os.environ,
        "BOOTLINK_DATA": str(folder / "data"),
        "BOOTLINK_NATS_URL": "nats://127.0.0.1:9",
        "BOOTLINK_TFTP_LOADERS": str(folder / "loaders"),
        "BOOTLINK_LOG_FORMAT": "json",
    }
    command = Cable.inside(cable.server, sys.executable, "-m", "bootlink_tftp")
    process = Process(command, log=log, env=environment)
    process.start(lambda: '"ready"' in log.read_text())
    try:
        yield folder / "loaders"
    finally:
        process.stop()


@pytest.fixture
def cable() -> Iterator[Cable]:
    with Cable() as made:
        ip = tool("ip", "iproute2")
        subprocess.run(
            [ip, "-n", made.client, "address", "add", "10.77.0.9/24", "dev", made.client_card], check=True
        )  # fmt: skip
        for server in SERVERS.values():
            subprocess.run(
                [ip, "-n", made.server, "address", "add", f"{server}/24", "dev", made.server_card], check=True
            )  # fmt: skip
        yield made


async def test_every_real_client_gets_every_byte_though_packets_are_lost_on_both_ways(
    cable: Cable, tmp_path: Path
) -> None:
    """All at once, for each spends its time in waiting."""
    with tftp_process(cable, tmp_path) as folder:

        async def gets(name: str) -> None:
            contents = loader_bytes(SIZES["14" in name or "windowsize" in name])
            (folder / name).write_bytes(contents)
            await fetch(_on_the_client(cable, CLIENTS[name]), (SERVERS[name], 69), name, tmp_path / name)
            assert (tmp_path / name).read_bytes() == contents, name

        with losing(cable):
            await asyncio.gather(*map(gets, CLIENTS))


async def test_every_real_client_gets_every_byte_though_packets_come_twice_and_out_of_order(tmp_path: Path) -> None:
    muddled = Impairment(repeated=0.1, late=0.1, delay=0.005)
    async with serving(tmp_path) as chassis, proxied(address_of(chassis), muddled, seed=3) as proxy:

        async def gets(name: str) -> None:
            await fetch(CLIENTS[name], proxy.address, "undionly.kpxe", tmp_path / name)
            assert (tmp_path / name).read_bytes() == (tmp_path / "loaders" / "undionly.kpxe").read_bytes(), name

        await asyncio.gather(*map(gets, CLIENTS))


def _on_the_client(cable: Cable, client: Command) -> Command:
    return lambda *words: Cable.inside(cable.client, *client(*words))
