"""A real PC without a disk: QEMU in software emulation, with firmware that boots from a LAN and a serial console.

    async with PC(lan, "52:54:00:12:34:56", folder) as pc:
        boot = await pc.boot()              # power on ... login prompt; the time of each stage
        await pc.console.login()
        output = await pc.console.run("cat /proc/mounts")
        boot = await pc.reboot()            # the guest's own restart
        await pc.power_off()

Each firmware has a table of what a boot prints, in order; a stage that does not come is an error that names it.
Firmware, boot loaders and the guest all speak on the serial line, because the PC has no screen (`-nographic`).
"""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from guest.console import Console, ConsoleError
from guest.firmware import BIOS, Firmware
from guest.lan import Lan
from guest.toolbox import BuildError, missing_tool

QEMU = "qemu-system-x86_64"
MEMORY = 512  # MiB
# Software emulation, always: KVM inside a small virtual machine runs guests badly. A small cache of translated code
# (MiB): with QEMU's default of a gigabyte the old kernel's code lives on in it across a restart, and writing the new
# kernel over it is slow (measured: 30 s from restart to login instead of 15; a first boot is as fast either way).
ACCELERATOR = "tcg,tb-size=32"
POWER_OFF_TIMEOUT = 30.0  # seconds; the guest takes three
KILL_TIMEOUT = 10.0
LAST_WORDS_TIMEOUT = 1.0  # between QEMU closing the serial line and its end


# What ends a boot at once, and what it means.
FAILURES: Mapping[str, str] = {
    r"No more network devices.*\n|No bootable device.*\n": "the PXE ROM found nothing to boot from",
    # Not "Could not open SAN device": the script may go on with the next portal, and says at the end what is wrong.
    r"Could not boot.*\n": "iPXE gave up",
    r"^Cause: .*\n": "Bootlink's screen on the PC says",
    r"^error: .*\n": "GRUB cannot read the disk",
    r"grub rescue>": "GRUB does not find its kernel",
    r"guest: FAILED: .*\n": "the guest gave up",
    r"Kernel panic.*\n": "the guest's kernel crashed",
}


@dataclass(frozen=True, slots=True)
class Reached:
    """A stage of one boot: when it was reached, in seconds since the boot began."""

    stage: str
    seconds: float


class PC:
    """One PC on `lan`, known by its `mac`; its transcript and QEMU's own messages go to `folder`.

    `on_reached` hears of every stage of a boot as it is reached.
    """

    def __init__(
        self,
        lan: Lan,
        mac: str,
        folder: Path,
        *,
        name: str = "pc",
        card: str = "virtio-net-pci",
        firmware: Firmware = BIOS,
        on_reached: Callable[[Reached], None] = lambda reached: None,
    ) -> None:
        self.mac = mac
        self.name = name
        self.transcript = folder / f"{name}.console"
        self._messages = folder / f"{name}.qemu"
        self._lan = lan
        self.tap = lan.tap()
        self._card = card
        self._firmware = firmware
        self._folder = folder
        self._on_reached = on_reached
        self._process: asyncio.subprocess.Process | None = None
        self._console: Console | None = None
        self._began = 0.0

    @property
    def console(self) -> Console:
        if self._console is None:
            raise RuntimeError(f"{self.name} is not switched on")
        return self._console

    async def __aenter__(self) -> "PC":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    def command(self) -> list[str]:
        """The command line of this PC, to be run on its LAN."""
        # Firmware identifies itself by this UUID too (DHCP option 97); it must differ from PC to PC.
        uuid = f"00000000-0000-4000-8000-{self.mac.replace(':', '')}"
        return [
            # The emulator dies with the test run, however that ends.
            "setpriv", "--pdeathsig", "KILL",
            *self._lan.command(
                QEMU, "-name", self.name, "-accel", ACCELERATOR, "-M", "q35", "-m", str(MEMORY), "-uuid", uuid,
                "-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio", "-monitor", "none",
                "-netdev", f"tap,id=n0,ifname={self.tap},script=no,downscript=no",
                "-device", f"{self._card},netdev=n0,bootindex=1,mac={self.mac}{self._firmware.card_options}",
                *self._firmware.arguments(self._folder, self.name),
            ),
        ]  # fmt: skip

    async def power_on(self) -> None:
        """Switch on. Raises BuildError when the emulator cannot be started."""
        if self._process is not None:
            raise RuntimeError(f"{self.name} is switched on")
        for tool in ("setpriv", "ip", QEMU):
            if shutil.which(tool) is None:
                raise missing_tool(tool)
        self._began = time.monotonic()
        with self._messages.open("ab") as messages:
            process = await asyncio.create_subprocess_exec(
                *self.command(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=messages
            )
        assert process.stdout is not None
        assert process.stdin is not None
        self._process = process
        self._console = Console(process.stdout, process.stdin, self.transcript)

    async def boot(self) -> list[Reached]:
        """Switch on and wait for the login prompt. Raises ConsoleError that names the stage which was not reached."""
        await self.power_on()
        try:
            return await self.follow_boot()
        except ConsoleError:
            if await self._broke_down():
                words = self._messages.read_text(errors="replace").strip()
                raise BuildError(f"the emulator of {self.name} ended: {words}") from None
            raise

    async def follow_boot(self) -> list[Reached]:
        """Wait for every stage of the firmware's table in turn; returns when each was reached."""
        reached = []
        for milestone in self._firmware.stages:
            await self.console.expect(
                milestone.pattern, stage=milestone.stage, timeout=milestone.timeout, failures=FAILURES
            )
            stage = Reached(milestone.stage, time.monotonic() - self._began)
            reached.append(stage)
            self._on_reached(stage)
        return reached

    async def reboot(self) -> list[Reached]:
        """Have the guest, where somebody is logged in, restart itself; wait for its next login prompt."""
        await self.console.send("reboot\n")
        await self.console.expect("guest: stopped: root is clean", stage="guest's shutdown", timeout=POWER_OFF_TIMEOUT)
        self._began = time.monotonic()
        return await self.follow_boot()

    async def power_off(self) -> None:
        """Have the guest, where somebody is logged in, switch itself off; wait until it is."""
        process = self._process
        if process is None:
            return
        await self.console.send("poweroff\n")
        await self.console.expect("guest: stopped: root is clean", stage="guest's shutdown", timeout=POWER_OFF_TIMEOUT)
        try:
            await asyncio.wait_for(process.wait(), POWER_OFF_TIMEOUT)
        except TimeoutError:
            raise ConsoleError("power-off", "the PC stays on", self.console.tail(), self.transcript) from None
        await self._leave()

    async def kill(self) -> None:
        """Pull the plug. Does nothing when the PC is off."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.wait_for(self._process.wait(), KILL_TIMEOUT)
        await self._leave()

    async def _broke_down(self) -> bool:
        """Whether the emulator itself ended with an error, rather than what runs in it."""
        if self._process is None:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), LAST_WORDS_TIMEOUT)
        return bool(self._process.returncode)

    async def _leave(self) -> None:
        if self._console is not None:
            await self._console.close()
        self._console = None
        self._process = None
