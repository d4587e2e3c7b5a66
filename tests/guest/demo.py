"""`make demo`: a real PC without a disk boots from an image link, and its reboot discards what it wrote.

On a boot LAN of its own (a bridge in a network namespace) run nats-server, PostgreSQL and the four services, as
`bootlink up` starts them, and PCs in QEMU with nothing but a network card. The demo adds the image, links it to
everyone, and then plays two users:

- pc-discard writes a file and restarts: the file is gone, and the image's bytes are what they were;
- pc-keep, whose link says so, does the same: the file is still there, and the image's bytes are what they were.

It says what it does as it does it, ends with the first PC's two boots as waterfalls and exits with 0. A stage that
fails is named with its cause, and the exit status is 1.
"""

import asyncio
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console as Terminal

from guest import timing
from guest.console import ConsoleError
from guest.disk import build_disk
from guest.lan import Lan
from guest.pc import PC, Reached
from guest.system import System, SystemFailed
from guest.toolbox import BuildError

CACHE = Path(__file__).parents[2] / ".cache"
IMAGE = "demo"
FILE = "/root/written-by-the-demo"
WORDS = "a user was here"
HASH_PIECE = 1 << 20


class DemoFailed(Exception):
    """The demo saw something that must not be."""

    def __init__(self, stage: str, cause: str) -> None:
        super().__init__(f"{stage}: {cause}")
        self.stage = stage
        self.cause = cause


@dataclass(frozen=True)
class User:
    """One of the demo's two PCs, and what its link promises about a file after a restart."""

    name: str
    mac: str
    policy: str
    keeps: bool


USERS = (
    User("pc-discard", "52:54:00:b0:07:01", "discard", keeps=False),
    User("pc-keep", "52:54:00:b0:07:02", "keep", keeps=True),
)


class Story:
    """Says what happens, with the seconds since the demo began."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._began = time.monotonic()

    def chapter(self, text: str) -> None:
        self._terminal.print(f"\n[bold]{text}[/bold]")

    def say(self, text: str, *, style: str = "") -> None:
        self._terminal.print(f"  {time.monotonic() - self._began:6.1f} s  {text}", style=style, highlight=False)

    def good(self, text: str) -> None:
        self.say(f"✔ {text}", style="green")

    def show(self, text: str) -> None:
        self._terminal.print(text, markup=False, highlight=False, end="")

    def up_said(self, said: Mapping[str, Any]) -> None:
        """What `bootlink up --json` says, in short. A PC that is off is no link on the bridge, and no news here."""
        if said.get("event") == "service_ready":
            where = ", ".join(str(address) for address in (said.get("addresses") or {}).values())
            self.say(f"{said['service']:<10} ready  {where}")
        elif said.get("event") == "died" or said.get("level") in ("error", "critical"):
            what = said.get("message", "died")
            self.say(f"{said.get('service', '')} {what} {said.get('fields', '')}", style="yellow")


async def demo(story: Story, folder: Path) -> None:
    """The whole demo, with everything it writes below `folder` or in the build cache."""
    story.chapter("The disk: a small Linux in a dynamic VHD")
    disk = await asyncio.to_thread(build_disk, CACHE, story.say)
    before = await asyncio.to_thread(digest, disk)
    story.say(f"{disk.name}, {disk.stat().st_size / 2**20:.1f} MiB, sha-256 {before[:16]}…")

    with Lan() as lan:
        story.chapter("The server: nats-server, PostgreSQL and the four services, on a LAN of their own")
        async with System(lan, folder / "data", story.up_said) as system:
            await system.command("image", "add", IMAGE, str(disk))
            await system.command("link", "set", "--default", IMAGE)
            story.say(f"the image {IMAGE} is linked to every PC")
            for user in USERS:
                await system.command("client", "add", user.mac, "--name", user.name)
                if user.policy != "discard":
                    await system.command("link", "set", user.name, IMAGE, "--policy", user.policy)
                    story.say(f"{user.name} is linked with policy {user.policy}")
            switched_on = []
            for user in USERS:
                switched_on.append(await use(story, lan, system, user, folder))
                await require_pristine(story, disk, before)
            story.chapter("Where the seconds went: the first PC's two boots")
            first, *_ = boots = list(reversed(await boots_of(system, USERS[0], 2)))
            shown = await system.query("boot", "show", first)
            for line in timing.lines(timing.steps(switched_on[0], shown["stages"])):
                story.show(f"  {line}\n")
            for boot in boots:
                story.show("\n" + await system.command("boot", "show", boot))


async def use(story: Story, lan: Lan, system: System, user: User, folder: Path) -> datetime:
    """One user's visit: power on, write, restart, look, switch off. Returns when the PC was switched on."""
    story.chapter(f"{user.name}: a PC with no disk, linked with policy {user.policy}")

    def reached(stage: Reached) -> None:
        story.say(f"{stage.stage:<20} +{stage.seconds:.1f} s")

    async with PC(lan, user.mac, folder, name=user.name, on_reached=reached) as pc:
        story.say("power on")
        switched_on = datetime.now(UTC)
        await pc.boot()
        await pc.console.login()
        await require_disk_root(story, pc)
        await must(pc, f"echo '{WORDS}' > {FILE} && sync")
        story.say(f"the user wrote {FILE}; now the PC restarts")
        await pc.reboot()
        await pc.console.login()
        found = (await pc.console.run(f"cat {FILE}")).text.strip() == WORDS
        if found != user.keeps:
            raise DemoFailed(
                f"{user.name}'s restart", f"the file is {'still there' if found else 'gone'} with policy {user.policy}"
            )
        await pc.power_off()
    story.good(f"after the restart the file is {'still there' if user.keeps else 'gone'}")
    boots = await boots_of(system, user, 9)
    if len(boots) != 2:
        raise DemoFailed(f"{user.name}'s boots", f"the registry saw {len(boots)}, not 2")
    return switched_on


async def require_disk_root(story: Story, pc: PC) -> None:
    """The root file system must be the iSCSI disk, and writable."""
    mounts = await must(pc, "cat /proc/mounts")
    device, options = next(
        (fields[0], fields[3].split(",")) for fields in map(str.split, mounts.splitlines()) if fields[1] == "/"
    )
    target = await must(pc, "cat /sys/class/iscsi_session/session*/targetname")
    if "rw" not in options or not device.startswith("/dev/sd") or not target.startswith("iqn.2026-11.io.bootlink:"):
        raise DemoFailed("root file system", f"/ is {device} ({','.join(options)}), the target is {target or 'none'}")
    story.good(f"logged in; / is {device}, read-write, from {target.strip()}")


async def must(pc: PC, command: str) -> str:
    """Run a command on the PC that has to succeed."""
    output = await pc.console.run(command)
    if output.status != 0:
        raise DemoFailed(f"`{command}` on {pc.name}", f"status {output.status}: {output.text.strip()}")
    return output.text


async def require_pristine(story: Story, disk: Path, before: str) -> None:
    after = await asyncio.to_thread(digest, disk)
    if after != before:
        raise DemoFailed("the image", f"its bytes changed: sha-256 was {before}, is {after}")
    story.good("the image's bytes are what they were")


async def boots_of(system: System, user: User, limit: int) -> list[str]:
    """The ids of a PC's latest boots, the newest first."""
    listed = await system.query("boot", "list", "--client", user.name, "--limit", str(limit))
    return [str(boot["id"]) for boot in listed]


def digest(file: Path) -> str:
    sha = hashlib.sha256()
    with file.open("rb") as data:
        while piece := data.read(HASH_PIECE):
            sha.update(piece)
    return sha.hexdigest()


def main() -> int:
    """Run the demo. On failure its folder stays, for whoever looks into it."""
    terminal = Terminal(soft_wrap=True)
    story = Story(terminal)
    folder = Path(tempfile.mkdtemp(prefix="bootlink-demo-"))
    try:
        if os.geteuid() != 0:
            raise BuildError("the demo makes a network namespace, which needs root: sudo make demo")
        asyncio.run(demo(story, folder))
    except (BuildError, ConsoleError, DemoFailed, SystemFailed) as failed:
        terminal.print(f"\nFAILED at {getattr(failed, 'stage', 'set-up')}", style="bold red")
        terminal.print(str(failed), markup=False, highlight=False)
        terminal.print(f"everything that was written is in {folder}", markup=False)
        return 1
    shutil.rmtree(folder)
    story.chapter("Bootlink booted a real PC from an image link, four times. Next: a VHD of your own, see README.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
