"""QEMU's own PXE ROM (iPXE of 2019) against our dhcp and tftp, as processes on a LAN of their own.

What is checked is what a sniffer on the LAN saw: the order of the packets and the boot ids in the file names.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bootlink_events import BootId
from bootlink_wire.dhcp import MessageType
from guest.lan import Lan
from lab.golden import differs
from lab.netns import tool
from lab.process import Process
from lab.sniffer import Sniffer, datagram

MAC = "52:54:00:12:34:56"
START_SECONDS = 60.0


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    """A LAN with dhcp and tftp on its bridge."""
    with Lan() as made, contextlib.ExitStack() as services:
        for name in ("dhcp", "tftp"):
            log = tmp_path / f"{name}.log"
            environment = {
                **os.environ,
                "BOOTLINK_DATA": str(tmp_path),
                "BOOTLINK_NATS_URL": "nats://127.0.0.1:9",
                "BOOTLINK_DHCP_INTERFACE": Lan.BRIDGE,
                "BOOTLINK_LOG_FORMAT": "json",
            }
            process = Process(made.command(sys.executable, "-m", f"bootlink_{name}"), log=log, env=environment)
            process.start(lambda log=log: '"ready"' in log.read_text())  # type: ignore[misc]
            services.callback(process.stop)
        yield made


def steps(sniffer: Sniffer) -> list[str]:
    """The steps of a boot, as they passed on a cable; a retransmission is no new step."""
    found = [step for frame in sniffer.frames if (step := _step(frame)) is not None]
    return [step for before, step in itertools.pairwise([None, *found]) if step is not None and step != before]


def _step(frame: bytes) -> str | None:
    if frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 134:
        return "router advertisement"
    heard = datagram(frame)
    if heard is None:
        return None
    return heard.message.name if heard.message else heard.file


@contextlib.asynccontextmanager
async def powered_on(lan: Lan, card: str) -> AsyncIterator[None]:
    command = lan.command(
        *(tool("qemu-system-x86_64", "qemu-system-x86 ipxe-qemu seabios"), "-accel", "tcg", "-M", "q35", "-m", "256"),
        *("-display", "none", "-serial", "none", "-monitor", "none"),
        *("-netdev", f"tap,id=n0,ifname={card},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=n0,bootindex=1,mac={MAC}"),
    )
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def test_the_rom_is_led_to_its_script_under_one_boot_id_and_a_power_cycle_is_a_greater_one(lan: Lan) -> None:
    boots = []
    card = lan.tap()
    with Sniffer(lan.namespace, card) as sniffer:
        for _ in range(2):
            sniffer.forget()
            async with powered_on(lan, card):
                script = await sniffer.hears(lambda one: (one.file or "").endswith(".ipxe"), seconds=START_SECONDS)
            boot_id = (script.file or "").split("/")[1]
            passed = steps(sniffer)
            seen = [step for step in passed if step != "router advertisement"]
            # iPXE's ROM repeats its DISCOVER or REQUEST now and then, when emulation is slow.
            assert list(dict.fromkeys(seen)) == [
                *("DISCOVER", "OFFER", "REQUEST", "ACK"),
                f"boot/{boot_id}/undionly.kpxe",
                f"boot/{boot_id}/52-54-00-12-34-56.ipxe",
            ]
            assert seen.count("ACK") >= 2
            assert "router advertisement" in passed
            asked = {one.message: one.payload for one in sniffer.said(MessageType.DISCOVER, MessageType.REQUEST)[:2]}
            assert differs(asked[MessageType.DISCOVER], "ipxe-rom-discover.hex") == []
            assert differs(asked[MessageType.REQUEST], "ipxe-rom-request.hex") == []
            second = [one for one in sniffer.said(MessageType.DISCOVER) if one.dhcp and one.dhcp.broadcast]
            assert differs(second[0].payload, "undionly-discover.hex") == []
            boots.append(BootId.parse(boot_id))
    assert boots[1] > boots[0]
