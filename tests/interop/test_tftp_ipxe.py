"""Debian's own iPXE, in QEMU, runs our scripts: the judge of every command, option and character in them.

The PC is on QEMU's user network, so nothing needs root: 10.0.2.2 is this machine's loopback. There is no disk behind
the portals here, so it ends at the screens; the boot from a real disk is the end-to-end test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bootlink_events import PLANS_BUCKET, BootPlan, mac_token
from lab.boot_plans import MAC, plan, refused
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.tftp import address_of, serving

GATEWAY = "10.0.2.2"  # QEMU's user network: the machine that QEMU runs on
START_SECONDS = 60.0
CLOSED_PORT = 1  # nothing listens there


class Screen:
    """What the PC has printed on its serial console, without colours and cursor movements."""

    def __init__(self) -> None:
        self._text = ""

    def add(self, output: bytes) -> None:
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode("latin-1"))
        self._text += plain.replace("\r", "").replace("\n", " ")

    @property
    def words(self) -> str:
        return " ".join(self._text.split())

    async def shows(self, *expected: str) -> None:
        """Wait until all of these were printed. Then forget what was printed so far."""
        try:
            async with asyncio.timeout(START_SECONDS):
                while not all(words in self.words for words in expected):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"the PC did not show {expected}, but:\n{self.words[-3000:]}")
        self._text = ""


@contextlib.asynccontextmanager
async def pc(boot_file: str) -> AsyncIterator[Screen]:
    """A PC that iPXE starts and that is given this boot file by DHCP."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.fail("qemu-system-x86_64 is missing: apt install qemu-system-x86 ipxe-qemu seabios")
    process = await asyncio.create_subprocess_exec(
        *("qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-m", "256", "-nographic"),
        *("-serial", "stdio", "-monitor", "none"),
        *("-netdev", f"user,id=n0,bootfile={boot_file}"),
        *("-device", f"virtio-net-pci,netdev=n0,bootindex=1,mac={MAC}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    output, screen = process.stdout, Screen()

    async def watch() -> None:
        while chunk := await output.read(4096):
            screen.add(chunk)

    watching = asyncio.create_task(watch())
    try:
        yield screen
    finally:
        process.kill()
        await process.wait()
        await watching


async def test_debians_ipxe_shows_each_screen_and_boots_on_as_its_plan_changes(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with (
        bus_on(nats.url) as bus,
        serving(tmp_path, nats_url=nats.url, advertise=GATEWAY) as chassis,
    ):
        _, port = address_of(chassis)

        async def put(of: BootPlan) -> None:
            await bus.put(PLANS_BUCKET, mac_token(MAC), of.model_dump_json().encode())

        # autoexec.ipxe leads to the PC's own script, and its boot begins here.
        async with pc(f"tftp://{GATEWAY}:{port}/autoexec.ipxe") as screen:
            await screen.shows(
                "Bootlink: this PC is not known yet", f"bootlink client add {MAC}", "Trying again in 3 s"
            )
            await put(refused("no_link", "No link names an image for pc-001.", "bootlink link set pc-001 IMAGE"))
            await screen.shows(
                "Bootlink: no image is linked to this PC",
                "Cause: No link names an image for pc-001.",
                "What to do: bootlink link set pc-001 IMAGE",
                f"MAC address: {MAC}",
                "Client: pc-001",
                f"Boot server: tftp://{GATEWAY}:{port}",
            )
            await put(plan(portals=(f"{GATEWAY}:{CLOSED_PORT}",)))
            await screen.shows(
                "Bootlink: pc-001 boots win11 version 3, policy discard",
                "Could not open SAN device",
                "Bootlink: the disk of this PC did not answer",
            )
            await screen.shows(".attach.ipxe... ok", "Bootlink: the disk of this PC did not answer")
        assert chassis.health.counters["tftp_internal_errors"] == 0
        assert chassis.health.counters["tftp_broken_off"] == 0
