"""QEMU's own PXE ROM (iPXE of 2019) against our dhcp and tftp, as processes on a LAN of their own.

What is checked is what a sniffer on the LAN saw: the order of the packets and the boot ids in the file names.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bootlink_events import BootId
from bootlink_wire import dhcp
from guest.lan import Lan
from lab.netns import entered, tool
from lab.process import Process

MAC = "52:54:00:12:34:56"
START_SECONDS = 60.0
ETHERTYPE_ALL = 3


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


class Sniffer:
    """The steps of a boot, as they pass on a cable."""

    def __init__(self, lan: Lan, card: str) -> None:
        with entered(lan.namespace):
            kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
            self._sock = socket.socket(socket.AF_PACKET, kind, socket.htons(ETHERTYPE_ALL))
            self._sock.bind((card, 0))
        self.steps: list[str] = []

    def close(self) -> None:
        self._sock.close()

    async def until(self, pattern: str) -> str:
        """Collect steps until one matches."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    step = _step(await loop.sock_recv(self._sock, 65535))
                    if step is not None and step not in self.steps[-1:]:  # a retransmission is no new step
                        self.steps.append(step)
                        if re.fullmatch(pattern, step):
                            return step
        except TimeoutError:
            pytest.fail(f"{pattern} did not come after {self.steps}")


def _step(frame: bytes) -> str | None:
    if frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 134:
        return "router advertisement"
    if frame[12:14] != b"\x08\x00" or frame[23] != 17:
        return None
    port, payload = int.from_bytes(frame[36:38]), frame[42 : 34 + int.from_bytes(frame[38:40])]
    if port in (67, 68):
        message = dhcp.decode(payload).message_type
        return message.name if message else None
    if port == 69 and payload[:2] == b"\0\1":
        return payload[2:].split(b"\0")[0].decode()
    return None


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
    with contextlib.closing(Sniffer(lan, card)) as sniffer:
        for _ in range(2):
            sniffer.steps.clear()
            async with powered_on(lan, card):
                script = await sniffer.until(r".*\.ipxe")
            boot_id = script.split("/")[1]
            seen = [step for step in sniffer.steps if step != "router advertisement"]
            # iPXE's ROM repeats its DISCOVER or REQUEST now and then, when emulation is slow.
            assert list(dict.fromkeys(seen)) == [
                *("DISCOVER", "OFFER", "REQUEST", "ACK"),
                f"boot/{boot_id}/undionly.kpxe",
                f"boot/{boot_id}/52-54-00-12-34-56.ipxe",
            ]
            assert seen.count("ACK") >= 2
            assert "router advertisement" in sniffer.steps
            boots.append(BootId.parse(boot_id))
    assert boots[1] > boots[0]
