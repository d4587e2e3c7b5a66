"""`make compose-test`: a PC boots from Bootlink in containers, and each container is killed while it runs.

On a boot LAN of its own runs a Docker engine; the images are built, `compose.yaml` is started, a PC in QEMU boots from
it to the login prompt; then, one after the other, each container's process is killed (`kill -9`). Docker starts each
anew; the PC, whose disk is in one of them, goes on as the same boot with what it wrote; a second PC boots at the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from containers.engine import Engine, EngineFailed
from containers.stack import ENGINES, SERVICES, Stack
from guest.console import ConsoleError
from guest.demo import CACHE
from guest.disk import build_disk
from guest.lan import Lan
from guest.pc import PC
from guest.toolbox import BuildError

MACS: Final = ("52:54:00:b0:07:51", "52:54:00:b0:07:52")
PATIENCE: Final = 180.0  # seconds that a command on the PC may take while its block store is away and comes back


class Story:
    """Says what happens, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:7.1f} s  {text}", flush=True)


async def play(story: Story, stack: Stack, lan: Lan, folder: Path) -> None:
    """A PC boots, all containers are killed in turn, and another PC boots. AssertionError for what must not be."""
    disk = await asyncio.to_thread(build_disk, CACHE, story.say)
    image = stack.images / disk.name
    shutil.copy(disk, image)
    image.chmod(0o644)
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    stack.bootlink("image", "add", "demo", f"/srv/bootlink/{disk.name}")
    stack.bootlink("link", "set", "--default", "demo")
    story.say("the image is linked to every PC")
    async with PC(lan, MACS[0], folder, name="pc-1", on_reached=lambda at: story.say(f"pc-1: {at.stage}")) as pc:
        await pc.boot()
        await pc.console.login()
        boot = await asyncio.to_thread(_boot_of, stack, MACS[0])
        for name in (*ENGINES, *SERVICES):
            assert (await pc.console.run(f"echo {name} >>/root/killed && sync", timeout=PATIENCE)).status == 0
            began = time.monotonic()
            await asyncio.to_thread(stack.kill, name)
            story.say(f"{name} was killed, and is healthy again after {time.monotonic() - began:.1f} s")
            read = await pc.console.run("sync; echo 3 >/proc/sys/vm/drop_caches; cat /root/killed", timeout=PATIENCE)
            assert read.status == 0, read.text
            assert read.text.split()[-1] == name, f"what was written before {name} was killed is gone: {read.text}"
        assert await asyncio.to_thread(_boot_of, stack, MACS[0]) == boot, "the kills have begun another boot"
        story.say(f"pc-1 goes on, with all it wrote, as boot {boot}")
        async with PC(lan, MACS[1], folder, name="pc-2", on_reached=lambda at: story.say(f"pc-2: {at.stage}")) as other:
            await other.boot()
        await pc.power_off()
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before, "the image's bytes have changed"
    story.say("the image's bytes are what they were")


def _boot_of(stack: Stack, mac: str) -> str:
    """The id of the PC's latest boot."""
    client = next(one["name"] for one in stack.bootlink("client", "list") if one["mac"] == mac)
    return str(stack.bootlink("boot", "list", "--client", client)[0]["id"])


def main() -> int:
    story = Story()
    folder = Path(tempfile.mkdtemp(prefix="bl-compose-"))
    try:
        with Lan() as lan, Engine(lan) as engine:
            stack = Stack(engine, folder)
            story.say("dockerd runs; the images are built")
            stack.build((*SERVICES, "command"))
            for line in engine.docker("images", "--format", "{{.Repository}} {{.Size}}").splitlines():
                story.say(line)
            stack.up()
            story.say("all containers are healthy")
            told = stack.compose("run", "--rm", "-T", "bootlink", "status", "--json")
            assert '"ready": true' in told, told
            asyncio.run(play(story, stack, lan, folder))
            stack.compose("down", "--volumes")
            assert not engine.docker("ps", "--all", "--quiet"), "containers are left"
    except (AssertionError, BuildError, ConsoleError, EngineFailed) as failed:
        print(f"\nFAILED: {failed}\nwhat was written is in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    story.say("a PC booted from containers, and outlived each of them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
