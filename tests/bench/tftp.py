"""TFTP beside tftpd-hpa: one client, a room of them, and windows over a link that takes its time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from bench import boot_servers
from bench.boot_servers import LOADERS, SERVER, Server, content
from bench.machine import CLIENT_CORE, cpu_seconds, pinned
from bench.report import Goal, Section, percentile, table
from lab import fleet
from lab.netns import Cable, tool
from lab.tftp import NO_NATS
from lab.udp_proxy import Impairment, proxied

BLOCK = 1428  # what curl, GRUB and iPXE ask for is near this: a block in one Ethernet frame
ROUNDS = 5
AWAY = 0.0002  # seconds: about what two cards and a switch take for a block and its ACK
AWAY_BLOCKS = 3_000
ROOM = 200
DELAY = 0.002  # seconds, each way
WINDOW = 16
WINDOW_GAIN = 3.0
SLOW_FILE, SLOW_BYTES = "slow.img", 1 << 20

Serving = Callable[[Path, Cable], AbstractContextManager[Server]]


def transfers(folder: Path) -> Section:
    servers: dict[str, Serving] = {"Bootlink": boot_servers.tftp, "tftpd-hpa": boot_servers.hpa}
    alone: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
    away: dict[str, list[float]] = {name: [] for name in servers}
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(serving(folder / name, stack.enter_context(boot_servers.lan())))
            for name, serving in servers.items()
        }
        for _ in range(ROUNDS):
            for name, server in running.items():
                alone[name].append(fetched(server, folder / "fetched"))
                away[name].append(fetched_from_away(server))
        room = {name: room_fetched(server) for name, server in running.items()}
    slow = windows(folder / "slow")
    rates = {name: statistics.median(rate for rate, _ in seen) for name, seen in alone.items()}
    rows = [
        (
            name,
            f"{rates[name] / 1e6:.1f}",
            f"{statistics.median(cpu for _, cpu in alone[name]) * 1e6:.0f}" if name == "Bootlink" else "",
            f"{statistics.median(away[name]) / 1e6:.1f}",
            len(room[name]),
            *(f"{percentile(room[name], percent) * 1000:,.0f}" for percent in (50, 99)),
        )
        for name in servers
    ]
    size = LOADERS["large.img"]
    text = (
        f"curl fetches {size >> 20} MiB in blocks of {BLOCK} octets over a virtual cable, where an answer takes some "
        "20 µs: tftp looks for it for a moment before it sleeps, tftpd-hpa sleeps at once. So beside it a client that "
        f"takes {AWAY * 1000:.1f} ms for each of {AWAY_BLOCKS:,} blocks, as behind a switch, where both sleep. Then "
        f"{ROOM} clients fetch a loader of {LOADERS['undionly.kpxe']:,} octets at once, one block at a time, each from "
        "an address of its own. tftpd-hpa makes a process of each transfer, so its CPU time is not shown.\n\n"
    )
    away_head = f"{AWAY * 1000:.1f} ms away MB/s"
    head = ("", "one client MB/s", "CPU µs per block", away_head, f"of {ROOM} at once done", "p50 ms", "p99 ms")
    slow_rows = [
        (what, f"{seconds * 1000:,.0f}", f"{SLOW_BYTES / seconds / 1e6:.2f}") for what, seconds in slow.items()
    ]
    gain = slow["one block at a time"] / slow[f"windowsize {WINDOW}"]
    text += table(head, rows)
    text += (
        f"\n{SLOW_BYTES >> 20} MiB by atftp over a link that takes {DELAY * 1000:.0f} ms each way "
        "(`tests/lab/udp_proxy.py`):\n\n"
    )
    share = rates["Bootlink"] / rates["tftpd-hpa"]
    return Section(
        "TFTP",
        text + table(("", "ms", "MB/s"), slow_rows),
        (
            Goal("TFTP: one client as fast as from tftpd-hpa", share >= 1, f"{share:.2f} of it"),
            Goal(
                f"TFTP: {ROOM} clients at once, none without its file",
                len(room["Bootlink"]) == ROOM,
                str(len(room["Bootlink"])),
            ),
            Goal(
                f"TFTP: windowsize {WINDOW} at least {WINDOW_GAIN:.0f} x one block at a time",
                gain >= WINDOW_GAIN,
                f"{gain:.1f} x",
            ),
        ),
    )


def fetched(server: Server, to: Path) -> tuple[float, float]:
    """One curl fetches the large file: octets per second, and the server's CPU seconds per block."""
    size = LOADERS["large.img"]
    url = f"tftp://{SERVER}:{server.port}/large.img"
    command = (tool("curl", "curl"), "-sS", "--tftp-blksize", str(BLOCK), "--max-time", "60", "-o", str(to), url)
    before, began = cpu_seconds(server.pid), time.monotonic()
    subprocess.run(server.cable.inside(server.cable.client, *pinned(CLIENT_CORE, *command)), check=True)
    taken = time.monotonic() - began
    used = cpu_seconds(server.pid) - before
    if to.read_bytes() != content(size):
        raise RuntimeError(f"{server.name} sent something else than the file")
    return size / taken, used / (size / BLOCK)


def fetched_from_away(server: Server, blocks: int = AWAY_BLOCKS) -> float:
    """Octets per second of a client that acknowledges each block `AWAY` seconds later."""
    said = boot_servers.clients(
        server.cable, "far", str(SERVER), str(server.port), "large.img", str(blocks), str(BLOCK), str(AWAY)
    )
    return float(said[0])


def room_fetched(server: Server, count: int = ROOM) -> list[float]:
    """So many clients fetch a loader at once: the seconds that each took that got it whole."""
    # Any address of that network is the client's own, for binding and for ARP: no address of a card is needed.
    subprocess.run(
        ["ip", "-n", server.cable.client, "route", "add", "local", "10.77.1.0/24", "dev", "lo"], check=True
    )  # fmt: skip
    said = boot_servers.clients(server.cable, "room", str(SERVER), str(server.port), "undionly.kpxe", str(count))
    return [float(line) for line in said]


def windows(folder: Path) -> dict[str, float]:
    """The seconds of one transfer over a slow link, by what was agreed."""
    folder.mkdir()
    loaders = boot_servers.loaders(folder)
    (loaders / SLOW_FILE).write_bytes(content(SLOW_BYTES))
    environment = os.environ | {
        "BOOTLINK_DATA": str(folder),
        "BOOTLINK_NATS_URL": NO_NATS,
        "BOOTLINK_LOG_FORMAT": "json",
        "BOOTLINK_TFTP_HOST": "127.0.0.1",
        "BOOTLINK_TFTP_PORT": "0",
        "BOOTLINK_TFTP_LOADERS": str(loaders),
    }
    with fleet.service("tftp", folder, environment) as (_, addresses):
        host, _, port = addresses["tftp"].rpartition(":")
        return asyncio.run(_over_slow_link((host, int(port)), folder))


async def _over_slow_link(server: tuple[str, int], folder: Path) -> dict[str, float]:
    found = {}
    for what, options in (
        ("one block at a time", ()),
        (f"windowsize {WINDOW}", ("--option", f"windowsize {WINDOW}")),
    ):
        async with proxied(server, Impairment(late=1.0, delay=DELAY)) as proxy:
            host, port = proxy.address
            to = folder / "fetched"
            command = (tool("atftp", "atftp"), "--option", f"blksize {BLOCK}", *options)
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *command, "--get", "-r", SLOW_FILE, "-l", str(to), host, str(port)
            )
            status = await asyncio.wait_for(process.wait(), 60)
            found[what] = time.monotonic() - began
        if status or to.read_bytes() != content(SLOW_BYTES):
            raise RuntimeError(f"atftp ({what}) has not got the file: status {status}")
        to.unlink()
    return found
